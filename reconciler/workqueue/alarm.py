"""Have the event loop call back when the earliest timer is due."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

__all__ = ["Alarm"]

_LONGEST_SLEEP = 86_400.0
"""Seconds for which the loop's timer is set at most; some loops cannot count further than their integers."""


class Alarm:
    """Hold the one timer that a queue has in its loop.

    Args:
        now: tells monotonic time.
        ring: called when the time has come, or after a day; it sets the alarm anew.

    Attributes:
        at: the monotonic second that it is set for; infinite while it is not set.
    """

    __slots__ = ("_handle", "_now", "_ring", "at")

    def __init__(self, now: Callable[[], float], ring: Callable[[], None]) -> None:
        self._now = now
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self.at = math.inf

    def set(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        """Ring at a time; one that is set for an earlier time stays, and is set again then.

        Args:
            due: monotonic second.
            loop: the queue's event loop, in whose thread this is called.
        """
        if due >= self.at:
            return
        self.cancel()
        self.at = due
        self._handle = loop.call_at(loop.time() + min(max(0.0, due - self._now()), _LONGEST_SLEEP), self._call)

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        self.at = math.inf

    def _call(self) -> None:
        self._handle = None
        self.at = math.inf
        self._ring()
