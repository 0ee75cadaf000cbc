"""Channels that call the receiver of a campaign, and its record of the calls.

A separate distribution offers them to ``reconciler run notification`` by entry points; see `install`.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from reconciler.clock import SystemClock, use_clock
from reconciler.controller import current_run
from reconciler.notification import (
    DeferredDeliveryError,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
)

NAMES = ("one", "two", "three")
PORT = "RECEIVER"
"""The environment variable that names the port of the receiver."""

CLOCK = "WALL_CLOCK"
"""The environment variable that names the file with the seconds by which the process's wall clock is wrong."""


class SteppedClock(SystemClock):
    """The machine's clocks, with a wall clock that the campaign sets."""

    def now(self) -> datetime:
        file = Path(os.environ[CLOCK])
        return super().now() + timedelta(seconds=float(file.read_text()) if file.exists() else 0.0)


if CLOCK in os.environ:
    _in_force = use_clock(SteppedClock())  # ends with the process
    _in_force.__enter__()


class Calling:
    """A channel that calls the receiver, and fails as its answer says."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def deliver(self, message: Message) -> None:
        chance = float(await self._call(message))
        if chance < 0.25:
            raise RetryableDeliveryError("503")
        if chance < 0.3:
            raise DeferredDeliveryError("429", retry_after=2)
        if chance < 0.33:
            raise PermanentDeliveryError("410")

    async def _call(self, message: Message) -> bytes:
        run = current_run()
        call = {
            "request": message.name,
            "channel": self.name,
            "attempt": message.attempt,
            "process": os.getpid(),
            "cycle": run.reconcile_id if run is not None else "",
        }
        reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ[PORT]))
        try:
            message.mark_sent()
            writer.write(json.dumps(call).encode() + b"\n")
            return await reader.readline()
        finally:
            writer.close()


def one() -> Calling:
    return Calling("one")


def two() -> Calling:
    return Calling("two")


def three() -> Calling:
    return Calling("three")


def install(directory: Path) -> None:
    """Create a distribution that offers the channels."""
    metadata = directory / "recording_channels-1.0.dist-info"
    metadata.mkdir(parents=True)
    (directory / "recording_channels.py").write_text(Path(__file__).read_text())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: recording-channels\nVersion: 1.0\n")
    points = "".join(f"{name} = recording_channels:{name}\n" for name in NAMES)
    (metadata / "entry_points.txt").write_text(f"[reconciler.channels]\n{points}")


def calls(file: Path) -> list[dict[str, Any]]:
    """Return the recorded calls, in order."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
