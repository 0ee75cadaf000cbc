"""Killed between the work and the write: an intent that was written first keeps the work from being repeated.

python examples/intent_first.py

For work that must not happen twice and has no key that the other side would recognise: say first that it is about to
happen (`flush`), then do it. The next process finds an intent without a result, and leaves it at that. The price is a
second write, and a message whose fate nobody knows. The worker is a process of its own; it is killed (SIGKILL) after
the work, before the status is written, and started anew. It needs no cluster: the embedded API server is the cluster.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from demo_cluster import KIND, NAME, cluster, kill_at_the_worst_moment, run, the_worst_moment

from reconciler import Client, StatusBatcher


async def before(client: Client, message: dict[str, Any], siren: Path) -> None:
    """Do, then record."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("started", 0) + 1
        sound(siren)
        the_worst_moment()
        status.append("attempts", {"attempt": attempt, "result": "done"}, key="attempt")
        status.set(started=attempt, phase="Sent")


async def after(client: Client, message: dict[str, Any], siren: Path) -> None:
    """Record the intent, do, record the result."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("started", 0)
        if attempt:
            status.upsert("attempts", {"attempt": attempt, "result": "unknown"}, key="attempt")
            status.set(phase="Unknown")
            return
        status.append("attempts", {"attempt": attempt + 1, "result": "intended"}, key="attempt")
        status.set(started=attempt + 1)
        await status.flush()  # raises, and nothing is done, if the object is newer than what was read
        sound(siren)
        the_worst_moment()
        status.upsert("attempts", {"attempt": attempt + 1, "result": "done"}, key="attempt")
        status.set(phase="Sent")


def sound(siren: Path) -> None:
    """Stand for work that cannot be taken back, and is heard each time."""
    siren.write_text(siren.read_text() + "howl\n")


async def work(namespace: str, siren: Path) -> None:
    """Be the worker process."""
    async with Client.from_config() as client:
        message = (await client.get(KIND, NAME, namespace)).to_dict()
        await (before if namespace == "before" else after)(client, message, siren)


def main() -> None:
    """Kill the worker, start it again, and tell what came of it."""
    with cluster() as demo, tempfile.TemporaryDirectory() as directory:
        for namespace in ("before", "after"):
            siren = Path(directory) / namespace
            siren.touch()
            demo.make(namespace)
            kill_at_the_worst_moment(__file__, namespace, str(siren))
            recorded = demo.status(namespace).get("attempts", [{}])[0].get("result", "nothing")
            run(__file__, namespace, str(siren))
            done = len(siren.read_text().splitlines())
            result = demo.status(namespace)["attempts"][0]["result"]
            demo.report(namespace, f"recorded when killed: {recorded}, in the end: {result}, times done: {done}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        asyncio.run(work(sys.argv[1], Path(sys.argv[2])))
