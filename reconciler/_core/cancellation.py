"""Cancellation of the current task, as opposed to a CancelledError that the code in it raised itself; a timeout."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

TICKS = 10
"""Parts of a `RunningTimeout`; a pause of the process counts as one of them at most."""

FAILURES = (Exception, asyncio.CancelledError)
"""What counts as a failure of user code, for ``except``.

Nobody can cancel a call that does not await, so a CancelledError that comes from one is a failure like any other.
Around an ``await``, check `is_cancelled` first.
"""


def is_cancelled() -> bool:
    """Return whether the current task was cancelled; False for a CancelledError that the code in it raised itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class RunningTimeout:
    """A timeout of a block of code that counts only time in which the process ran.

    After a pause (a stopped process, a suspended machine, a blocked event loop), a response may have arrived that
    nobody has read yet. `asyncio.timeout` would cancel the wait for it. Here the time is counted in ticks. A tick that
    comes late follows a pause, and does not end the block. An event loop that is late each time doubles the time at
    most.

    Args:
        seconds: how long the block may take. After that it is cancelled, and ends with a TimeoutError.
    """

    def __init__(self, seconds: float) -> None:
        self._step = max(0.0, seconds) / TICKS
        self._ticks = TICKS
        self._counted = 0.0
        self._scope = asyncio.timeout(None)

    @property
    def spent(self) -> float:
        """Return the seconds counted so far."""
        return self._counted + min(self._step, self._loop.time() - self._started)

    def expired(self) -> bool:
        """Return whether the block was cancelled by this timeout."""
        return self._scope.expired()

    def shorten(self, seconds: float) -> None:
        """Leave no more than these seconds from now on."""
        if seconds < self._step * self._ticks:
            self._counted, self._step, self._ticks = self.spent, seconds / TICKS, TICKS
            self._handle.cancel()
            self._start_tick()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._scope.__aenter__()
        self._start_tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _start_tick(self) -> None:
        self._started = self._loop.time()
        self._handle = self._loop.call_later(self._step, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        is_late = now - self._started > self._step * 5 / 4
        self._counted, self._started = self._counted + self._step, now
        self._ticks -= 1
        if self._ticks > 0 or (is_late and self._ticks > -TICKS):
            self._start_tick()
        elif not self._scope.expired():
            self._scope.reschedule(now)
