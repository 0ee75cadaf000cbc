"""Killed between the work and the status write: an intent that is written first prevents that the work is repeated.

python examples/intent_first.py

This is for work that must not happen twice and has no idempotency key: write the intent first (`flush`), then do the
work. The next process finds an intent without a result and does not repeat it. The price is a second write, and a
message whose result is unknown. The worker is a separate process. It is killed (SIGKILL) after the work and before the
status is written, then restarted. It needs no cluster: it uses the embedded API server.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from demo_cluster import KIND, NAME, cluster, run, run_and_kill, wait_for_kill

from reconciler import Client, StatusBatcher


async def before(client: Client, message: dict[str, Any], siren: Path) -> None:
    """Do the work, then record the result."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("started", 0) + 1
        sound(siren)
        wait_for_kill()
        status.append("attempts", {"attempt": attempt, "result": "done"}, key="attempt")
        status.set(started=attempt, phase="Sent")


async def after(client: Client, message: dict[str, Any], siren: Path) -> None:
    """Record the intent, do the work, then record the result."""
    async with StatusBatcher(client, message) as status:
        attempt = status.get("started", 0)
        if attempt:
            status.upsert("attempts", {"attempt": attempt, "result": "unknown"}, key="attempt")
            status.set(phase="Unknown")
            return
        async with StatusBatcher(client, message, on_error="discard") as intent:  # withdrawn if it cannot be written
            intent.append("attempts", {"attempt": attempt + 1, "result": "intended"}, key="attempt")
            intent.set(started=attempt + 1)
            await intent.flush()  # raises before anything is done if the object has changed since it was read
        sound(siren)
        wait_for_kill()
        status.upsert("attempts", {"attempt": attempt + 1, "result": "done"}, key="attempt")
        status.set(phase="Sent")


def sound(siren: Path) -> None:
    """Simulate work that cannot be undone."""
    siren.write_text(siren.read_text() + "howl\n")


async def work(namespace: str, siren: Path) -> None:
    """Run the worker process."""
    async with Client.from_config() as client:
        message = (await client.get(KIND, NAME, namespace)).to_dict()
        await (before if namespace == "before" else after)(client, message, siren)


def main() -> None:
    """Kill the worker, restart it, and print the result."""
    with cluster() as demo, tempfile.TemporaryDirectory() as directory:
        for namespace in ("before", "after"):
            siren = Path(directory) / namespace
            siren.touch()
            demo.make(namespace)
            run_and_kill(__file__, namespace, str(siren))
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
