"""Turns of answers that take long in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.clock import Clock

__all__ = ["Turns"]


class Turns:
    """Turns of answers that take long in the event loop: one at a time, and after each one a rest as long as it took.

    So many requests at once take half of the time of the event loop, and others run between any two of them.

    Attributes:
        seconds: how long the last turn took.
    """

    def __init__(self, clock: Clock) -> None:
        self.seconds = 0.0
        self._now = clock.monotonic
        self._until = 0.0
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it while the block runs. Cancellation gives it up."""
        async with self._lock:
            await asyncio.sleep(max(0.0, self._until - self._now()))
            began = self._now()
            try:
                yield
            finally:
                ended = self._now()
                self.seconds = ended - began
                self._until = ended + self.seconds
