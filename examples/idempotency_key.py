"""Killed between the work and the write: with a key of its own the work is not done twice.

python examples/idempotency_key.py

The batcher lives in memory. What was recorded in its block and not yet written is lost with the process, and the next
process does the work again. Here the other side is a mail provider that recognises a key it has seen. The worker is a
process of its own; it is killed (SIGKILL) after it has sent the mail, before the status is written, and started anew.
It needs no cluster: the embedded API server is the cluster, and counts.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from demo_cluster import KIND, NAME, cluster, kill_at_the_worst_moment, run, the_worst_moment

from reconciler import Client, StatusBatcher


async def before(client: Client, message: dict[str, Any], mails: Path) -> None:
    """Send, then record: a key made anew each time cannot be recognised."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("total", 0) + 1
        send(mails, message["spec"]["text"], key=str(uuid.uuid4()))
        the_worst_moment()
        status.append("attempts", {"attempt": attempt, "result": "sent"}, keep_last=20)
        status.set(total=attempt, phase="Sent")


async def after(client: Client, message: dict[str, Any], mails: Path) -> None:
    """Send, then record: the key follows from the object and from what is recorded, so a repetition has the same."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("total", 0) + 1
        send(mails, message["spec"]["text"], key=f"{message['metadata']['uid']}/{attempt}")
        the_worst_moment()
        status.append("attempts", {"attempt": attempt, "result": "sent"}, key="attempt", keep_last=20)
        status.set(total=attempt, phase="Sent")


def send(mails: Path, text: str, *, key: str) -> None:
    """Stand for the provider: a key that it has seen is answered as the first time, and no mail goes out."""
    sent = mails.read_text().splitlines()
    if not any(line.startswith(f"{key}: ") for line in sent):
        mails.write_text("\n".join([*sent, f"{key}: {text}", ""]))


async def work(namespace: str, mails: Path) -> None:
    """Be the worker process."""
    async with Client.from_config() as client:
        message = (await client.get(KIND, NAME, namespace)).to_dict()
        await (before if namespace == "before" else after)(client, message, mails)


def main() -> None:
    """Kill the worker, start it again, and tell what came of it."""
    with cluster() as demo, tempfile.TemporaryDirectory() as directory:
        for namespace in ("before", "after"):
            mails = Path(directory) / namespace
            mails.touch()
            demo.make(namespace)
            kill_at_the_worst_moment(__file__, namespace, str(mails))
            recorded = demo.status(namespace).get("total", 0)
            run(__file__, namespace, str(mails))
            sent = len(mails.read_text().splitlines())
            total = demo.status(namespace)["total"]
            demo.report(namespace, f"recorded when killed: {recorded}, in the end: {total}, mails sent: {sent}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        asyncio.run(work(sys.argv[1], Path(sys.argv[2])))
