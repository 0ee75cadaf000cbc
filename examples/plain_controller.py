"""A plain controller on kubernetes-asyncio, as people write it: list, watch, act. Tested in test_plain_controller.py.

It keeps a ConfigMap for each Cabinet. `watch_before` is what one finds in many repositories, `watch_after` what became
of it when the test had shown what it misses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from kubernetes_asyncio import client, watch

CABINETS = {"group": "example.com", "version": "v1", "namespace": "default", "plural": "cabinets"}


class Controller:
    """Keep a ConfigMap for each Cabinet.

    Args:
        api_client: reaches the API server.
    """

    def __init__(self, api_client: client.ApiClient) -> None:
        self._core = client.CoreV1Api(api_client)
        self._custom = client.CustomObjectsApi(api_client)
        self._list: Callable[..., Any] = self._custom.list_namespaced_custom_object

    async def watch_before(self) -> None:
        """Watch for ever. What if the stream ends?"""
        async with watch.Watch() as stream:
            async for event in stream.stream(self._list, **CABINETS):
                if event["type"] == "ADDED":
                    await self.reconcile(event["object"])

    async def watch_after(self) -> None:
        """List what is there, watch from there, and begin anew whenever that ends, whatever ended it."""
        while True:
            try:
                found = await self._list(**CABINETS)
                for obj in found["items"]:
                    await self.reconcile(obj)
                version = found["metadata"]["resourceVersion"]
                async with watch.Watch() as stream:
                    async for event in stream.stream(self._list, resource_version=version, **CABINETS):
                        if event["type"] in ("ADDED", "MODIFIED"):
                            await self.reconcile(event["object"])
            except (client.ApiException, aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.1)

    async def reconcile(self, obj: dict[str, Any]) -> None:
        """Make the ConfigMap as the Cabinet says."""
        metadata = obj["metadata"]
        owner = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        data = {"drawers": str(obj["spec"]["drawers"])}
        child = {"metadata": {"name": metadata["name"], "ownerReferences": [owner]}, "data": data}
        try:
            await self._core.create_namespaced_config_map("default", child)
        except client.ApiException as error:
            if error.status != 409:
                raise
            await self._core.replace_namespaced_config_map(metadata["name"], "default", child)
