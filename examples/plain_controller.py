"""A plain controller on kubernetes-asyncio that lists, watches and acts. Tested in test_plain_controller.py.

It creates a ConfigMap for each Cabinet. `watch_before` is typical code of many repositories; `watch_after` is the same
after the test has shown what it misses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from kubernetes_asyncio import client, watch

CABINETS = {"group": "example.com", "version": "v1", "namespace": "default", "plural": "cabinets"}


class Controller:
    """A controller that creates a ConfigMap for each Cabinet.

    Args:
        api_client: the client of the API server.
    """

    def __init__(self, api_client: client.ApiClient) -> None:
        self._core = client.CoreV1Api(api_client)
        self._custom = client.CustomObjectsApi(api_client)
        self._list: Callable[..., Any] = self._custom.list_namespaced_custom_object

    async def watch_before(self) -> None:
        """Watch until the stream ends; then later events are missed."""
        async with watch.Watch() as stream:
            async for event in stream.stream(self._list, **CABINETS):
                if event["type"] == "ADDED":
                    await self.reconcile(event["object"])

    async def watch_after(self) -> None:
        """List, watch from the list's version, and start again whenever the watch ends or fails."""
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
        """Create or replace the ConfigMap of a Cabinet."""
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
