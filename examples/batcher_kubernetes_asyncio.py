"""A hand-written loop on kubernetes_asyncio, with the one change that stops its status storm: the batcher.

python examples/batcher_kubernetes_asyncio.py default
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from kubernetes_asyncio import client, config, watch

from reconciler import StatusBatcher

GROUP, VERSION, PLURAL = "example.com", "v1", "databases"


async def work_on(api: client.CustomObjectsApi, obj: dict[str, Any]) -> None:
    """Do three steps; whatever they say goes out as one write when the block ends."""
    async with StatusBatcher(api, obj) as status:
        for step in ("network", "volume", "process"):
            status.append("steps", {"name": step, "result": "done"}, keep_last=20)
            status.increment("totalSteps")
        status.set(phase="Ready")
        status.set_condition("Ready", True, reason="StepsDone", message="3 of 3")


async def main(namespace: str) -> None:
    """Watch databases and work on each that is not ready."""
    await config.load_kube_config()
    async with client.ApiClient() as api_client:
        api = client.CustomObjectsApi(api_client)
        stream = watch.Watch().stream(api.list_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL)
        async for event in stream:
            obj = event["object"]
            if event["type"] != "DELETED" and (obj.get("status") or {}).get("phase") != "Ready":
                await work_on(api, obj)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "default"))
