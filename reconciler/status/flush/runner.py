"""Run the flushes of one batcher: one after the other, behind a shield, and each within its time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from reconciler.clock import Clock
from reconciler.meta import current_cycle
from reconciler.status.flush.budget import Budget
from reconciler.status.flush.drivers import drive, drive_blocking, outlast
from reconciler.status.flush.session import Pending, Session

__all__ = ["SHUTDOWN_TIMEOUT", "AsyncFlusher", "BlockingFlusher"]

SHUTDOWN_TIMEOUT = 2.0
"""Seconds for a flush from when its controller, which is to stop, has cancelled the reconcile."""


class AsyncFlusher:
    """Run flushes over an asynchronous client.

    Args:
        writer: a `StatusWriter`.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._running: asyncio.Task[None] | None = None
        self._budget: Budget | None = None  # of the flush in progress
        self._hurried = False

    async def flush(self, session: Session, seconds: float, *, checkpoint: bool, cancelled: bool = False) -> None:
        """Write what a session recorded. Cancellation waits for the write, and is raised then.

        Args:
            session: the batcher's.
            seconds: for the flush.
            checkpoint: raise on a conflict instead of replaying.
            cancelled: whether the block ended with a cancellation.

        Raises:
            StatusError: it failed.
        """
        if cancelled:
            self._hurry()
        if self._running is not None and not self._running.done():
            task = asyncio.create_task(self._in_turn(session, seconds, checkpoint=checkpoint))
            await outlast(task, on_cancel=self._hurry)
            return
        pending = session.begin(checkpoint=checkpoint)
        if pending is not None:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            self._running = loop.create_task(self._send(session, pending, seconds, ended))
            await outlast(self._running, on_cancel=self._hurry, ended=ended)

    async def _in_turn(self, session: Session, seconds: float, *, checkpoint: bool) -> None:
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])
        pending = session.begin(checkpoint=checkpoint)
        if pending is not None:
            self._running = asyncio.current_task()
            await self._send(session, pending, seconds)

    async def _send(
        self, session: Session, pending: Pending, seconds: float, ended: asyncio.Future[None] | None = None
    ) -> None:
        now = asyncio.get_running_loop().time()
        self._budget = budget = Budget(now, min(seconds, SHUTDOWN_TIMEOUT) if self._hurried else seconds)
        try:
            flushed = await drive(pending, self._writer, budget)
        except BaseException as error:
            session.fail(pending, error)
            raise
        finally:
            self._running = self._budget = None
            if ended is not None and not ended.done():
                ended.set_result(None)
        session.finish(pending, flushed)

    def _hurry(self) -> None:
        """Shorten the time of the flush if the cancellation is that of a controller that stops."""
        cycle = current_cycle.get()
        if cycle is None or not cycle.stopping or self._hurried:
            return
        self._hurried = True
        if self._budget is not None:
            self._budget.shorten(asyncio.get_running_loop().time(), SHUTDOWN_TIMEOUT)


class BlockingFlusher:
    """Run flushes over a blocking client; threads take turns.

    Args:
        writer: a `SyncStatusWriter`.
        clock: measures the time.
    """

    def __init__(self, writer: Any, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._turn = threading.Lock()

    def flush(self, session: Session, seconds: float, *, checkpoint: bool) -> None:
        """Write what a session recorded.

        Raises:
            StatusError: it failed.
        """
        with self._turn:
            pending = session.begin(checkpoint=checkpoint)
            if pending is None:
                return
            budget = Budget(self._clock.monotonic(), seconds)
            try:
                flushed = drive_blocking(pending, self._writer, budget, self._clock, hurry=self._hurry(budget))
            except BaseException as error:
                session.fail(pending, error)
                raise
            session.finish(pending, flushed)

    def _hurry(self, budget: Budget) -> Callable[[], None]:
        """Return what shortens a budget, once, when the controller is to stop.

        No cancellation reaches a thread that waits for a request, so the controller is asked before each one.
        """
        cycle, hurried = current_cycle.get(), False

        def hurry() -> None:
            nonlocal hurried
            if cycle is not None and cycle.stopping and not hurried:
                hurried = True
                budget.shorten(self._clock.monotonic(), SHUTDOWN_TIMEOUT)

        return hurry
