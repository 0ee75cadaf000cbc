"""A hand-written loop on `kubernetes.aio`, before and after: python examples/batcher_kubernetes_aio.py.

It needs no cluster: it uses the embedded API server, which counts the writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from demo_cluster import GROUP, NAME, PLURAL, VERSION, cluster
from kubernetes.aio import client, config, watch

from reconciler import StatusBatcher


async def before(api: client.CustomObjectsApi, message: dict[str, Any]) -> None:
    """Write each step at once; each write triggers the loop again."""
    where = (GROUP, VERSION, message["metadata"]["namespace"], PLURAL, message["metadata"]["name"])
    merge = {"_content_type": "application/merge-patch+json"}
    attempts = []
    for attempt in range(1, 6):
        attempts.append({"attempt": attempt, "result": await deliver(message, attempt)})
        status = {"attempts": attempts, "total": len(attempts)}
        await api.patch_namespaced_custom_object_status(*where, {"status": status}, **merge)
    await api.patch_namespaced_custom_object_status(*where, {"status": {"phase": "Sent"}}, **merge)


async def after(api: client.CustomObjectsApi, message: dict[str, Any]) -> None:
    """Record the same steps; they are written once, when the block ends."""
    async with StatusBatcher(api, message) as status:
        for attempt in range(1, 6):
            status.append("attempts", {"attempt": attempt, "result": await deliver(message, attempt)}, keep_last=50)
            status.increment("total")
        status.set(phase="Sent")


async def deliver(message: dict[str, Any], attempt: int) -> str:
    """Simulate the work."""
    return "accepted" if attempt == 5 else f"{message['spec']['text']}: not now"


async def controller(work: Callable[[client.CustomObjectsApi, dict[str, Any]], Awaitable[None]], namespace: str) -> int:
    """Process each message that is not sent; return the number of watch events until all are sent."""
    woken = 0
    async with client.ApiClient() as api_client, watch.Watch() as watching:
        api = client.CustomObjectsApi(api_client)
        async for event in watching.stream(api.list_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL):
            woken += 1
            message = await api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, NAME)
            if message.get("status", {}).get("phase") != "Sent":
                await work(api, message)
            if event["object"].get("status", {}).get("phase") == "Sent":
                break
    return woken


async def main() -> None:
    """Run the loop with each function, and print the counts."""
    with cluster() as demo:
        await config.load_kube_config(demo.kubeconfig)
        for work in (before, after):
            demo.make(namespace=work.__name__)
            woken = await controller(work, namespace=work.__name__)
            demo.report(work.__name__, f"woken {woken} times")


if __name__ == "__main__":
    asyncio.run(main())
