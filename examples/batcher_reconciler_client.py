"""A hand-written loop on `reconciler.Client`, before and after: python examples/batcher_reconciler_client.py.

It needs no cluster: it uses the embedded API server, which counts the writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from demo_cluster import KIND, NAME, cluster

from reconciler import Client, StatusBatcher


async def before(client: Client, message: dict[str, Any]) -> None:
    """Write each step at once; each write triggers the loop again."""
    where = (KIND, message["metadata"]["name"], message["metadata"]["namespace"])
    attempts = []
    for attempt in range(1, 6):
        attempts.append({"attempt": attempt, "result": await deliver(message, attempt)})
        status = {"attempts": attempts, "total": len(attempts)}
        await client.patch(*where, patch={"status": status}, subresource="status")
    await client.patch(*where, patch={"status": {"phase": "Sent"}}, subresource="status")


async def after(client: Client, message: dict[str, Any]) -> None:
    """Record the same steps; they are written once, when the block ends."""
    async with StatusBatcher(client, message) as status:
        for attempt in range(1, 6):
            status.append("attempts", {"attempt": attempt, "result": await deliver(message, attempt)}, keep_last=50)
            status.increment("total")
        status.set(phase="Sent")


async def deliver(message: dict[str, Any], attempt: int) -> str:
    """Simulate the work."""
    return "accepted" if attempt == 5 else f"{message['spec']['text']}: not now"


async def controller(work: Callable[[Client, dict[str, Any]], Awaitable[None]], namespace: str) -> int:
    """Process each message that is not sent; return the number of watch events until all are sent."""
    woken = 0
    async with Client.from_config() as client, aclosing(client.watch(KIND, namespace)) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                continue
            woken += 1
            message = (await client.get(KIND, NAME, namespace)).to_dict()
            if message.get("status", {}).get("phase") != "Sent":
                await work(client, message)
            if event.object.to_dict().get("status", {}).get("phase") == "Sent":
                break
    return woken


async def main() -> None:
    """Run the loop with each function, and print the counts."""
    with cluster() as demo:
        for work in (before, after):
            demo.make(namespace=work.__name__)
            woken = await controller(work, namespace=work.__name__)
            demo.report(work.__name__, f"woken {woken} times")


if __name__ == "__main__":
    asyncio.run(main())
