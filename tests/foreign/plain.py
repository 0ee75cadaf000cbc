"""A plain controller over either generated asyncio client, as users write it: list, watch, act."""

from __future__ import annotations

from typing import Any

from tests.foreign.story import FINALIZER, GROUP, PLURAL, VERSION, child_of, status_of

ADDRESS = {"group": GROUP, "version": VERSION, "namespace": "default", "plural": PLURAL}
MERGE = "application/merge-patch+json"


class PlainController:
    """A controller that keeps a ConfigMap for each Database.

    Args:
        client: the module of the generated APIs.
        watch: the class of its watches.
        error: what its APIs raise.
        api: an open ApiClient.
    """

    def __init__(self, client: Any, watch: Any, error: Any, api: Any) -> None:
        self._core = client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._watch = watch
        self._error = error

    async def run(self) -> None:
        """List, then watch from that version, until cancelled."""
        found = await self._custom.list_namespaced_custom_object(**ADDRESS)
        for obj in found["items"]:
            await self._reconcile(obj)
        version = found["metadata"]["resourceVersion"]
        while True:
            async with self._watch() as stream:
                async for event in stream.stream(
                    self._custom.list_namespaced_custom_object,
                    **ADDRESS,
                    resource_version=version,
                    timeout_seconds=60,
                ):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] in ("ADDED", "MODIFIED"):
                        await self._reconcile(event["object"])

    async def _reconcile(self, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        finalizers = metadata.get("finalizers", [])
        if metadata.get("deletionTimestamp"):
            if FINALIZER in finalizers:
                await self._patch(obj, {"metadata": {"finalizers": [f for f in finalizers if f != FINALIZER]}})
            return
        if FINALIZER not in finalizers:
            await self._patch(obj, {"metadata": {"finalizers": [*finalizers, FINALIZER]}})
        child = child_of(obj)
        try:
            await self._core.create_namespaced_config_map("default", child)
        except self._error as error:
            if error.status != 409:
                raise
            await self._core.replace_namespaced_config_map(child["metadata"]["name"], "default", child)
        if obj.get("status") != status_of(obj):
            await self._custom.patch_namespaced_custom_object_status(
                **ADDRESS, name=metadata["name"], body={"status": status_of(obj)}, _content_type=MERGE
            )

    async def _patch(self, obj: dict[str, Any], body: dict[str, Any]) -> None:
        name = obj["metadata"]["name"]
        await self._custom.patch_namespaced_custom_object(**ADDRESS, name=name, body=body, _content_type=MERGE)
