"""Channels that fail at random and record each call before and after it, with fsync, for the judge.

A separate distribution offers them to ``reconciler run notification`` by entry points; see `install`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
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
FILE = "CALLS"
"""The environment variable that names the file of the calls."""

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


class Recording:
    """A channel that writes a line to a file; a third of the calls fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def deliver(self, message: Message) -> None:
        message.mark_sent()
        run = current_run()
        self._write("call", message, cycle=run.reconcile_id if run is not None else "")
        await asyncio.sleep(random.uniform(0, 0.3))
        chance = random.random()
        self._write("failed" if chance < 0.33 else "delivered", message)
        if chance < 0.25:
            raise RetryableDeliveryError("503")
        if chance < 0.3:
            raise DeferredDeliveryError("429", retry_after=2)
        if chance < 0.33:
            raise PermanentDeliveryError("410")

    def _write(self, what: str, message: Message, **more: Any) -> None:
        entry = {
            "what": what,
            "time": time.time(),
            "request": message.name,
            "channel": self.name,
            "attempt": message.attempt,
            "process": os.getpid(),
            **more,
        }
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)


def one() -> Recording:
    return Recording("one")


def two() -> Recording:
    return Recording("two")


def three() -> Recording:
    return Recording("three")


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
