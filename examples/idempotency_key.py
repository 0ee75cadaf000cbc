"""Killed between the work and the status write: an idempotency key prevents that the work is done twice.

python examples/idempotency_key.py

The batcher lives in memory. If the process dies, everything that was recorded but not yet written is lost, and the next
process does the work again. Here the work is a mail; the mail provider recognizes keys that it has seen. The worker is
a separate process. It is killed (SIGKILL) after it has sent the mail and before the status is written, then restarted.
It needs no cluster: it uses the embedded API server, which counts the writes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from demo_cluster import KIND, NAME, cluster, run, run_and_kill, wait_for_kill

from reconciler import Client, StatusBatcher


async def before(client: Client, message: dict[str, Any], mails: Path) -> None:
    """Send, then record. The provider cannot recognize a random key."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("total", 0) + 1
        send(mails, message["spec"]["text"], key=str(uuid.uuid4()))
        wait_for_kill()
        status.append("attempts", {"attempt": attempt, "result": "sent"}, keep_last=20)
        status.set(total=attempt, phase="Sent")


async def after(client: Client, message: dict[str, Any], mails: Path) -> None:
    """Send, then record. The key is derived from object and recorded status, so a repetition has the same key."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("total", 0) + 1
        send(mails, message["spec"]["text"], key=f"{message['metadata']['uid']}/{attempt}")
        wait_for_kill()
        status.append("attempts", {"attempt": attempt, "result": "sent"}, key="attempt", keep_last=20)
        status.set(total=attempt, phase="Sent")


def send(mails: Path, text: str, *, key: str) -> None:
    """Simulate the provider: a key that it has seen succeeds, and no second mail is sent."""
    sent = mails.read_text().splitlines()
    if not any(line.startswith(f"{key}: ") for line in sent):
        mails.write_text("\n".join([*sent, f"{key}: {text}", ""]))


async def work(namespace: str, mails: Path) -> None:
    """Run the worker process."""
    async with Client.from_config() as client:
        message = (await client.get(KIND, NAME, namespace)).to_dict()
        await (before if namespace == "before" else after)(client, message, mails)


def main() -> None:
    """Kill the worker, restart it, and print the result."""
    with cluster() as demo, tempfile.TemporaryDirectory() as directory:
        for namespace in ("before", "after"):
            mails = Path(directory) / namespace
            mails.touch()
            demo.make(namespace)
            run_and_kill(__file__, namespace, str(mails))
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
