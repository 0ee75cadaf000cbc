"""Run the workers of one controller, and end them such that nothing of them is left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any

from reconciler.controller.reconcile.worker import Worker
from reconciler.meta import Request
from reconciler.workqueue import WorkQueue

__all__ = ["Pool"]

_log = logging.getLogger("reconciler.controller")

_SAY_AGAIN = 10.0
"""Seconds between log lines about reconciles that do not end."""


class Pool:
    """Be a number of workers on one queue.

    Args:
        name: the controller's name.
        queue: the controller's queue.
    """

    def __init__(self, name: str, queue: WorkQueue[Request]) -> None:
        self._name = name
        self._queue = queue
        self._tasks: list[asyncio.Task[None]] = []
        self._hurried = asyncio.Event()

    def start(self, workers: Sequence[Worker]) -> None:
        """Start the workers."""
        self._tasks = [
            asyncio.create_task(worker.work(), name=f"{self._name} worker {number}")
            for number, worker in enumerate(workers)
        ]

    async def finished(self, others: Sequence[asyncio.Task[None]] = ()) -> None:
        """Wait until all workers, and others that run beside them, have ended. Cancellation changes nothing.

        Raises:
            BaseException: what ended one that was not asked to end; the rest go on.
        """
        tasks = [*self._tasks, *others]
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled():
                    task.result()

    async def stop(self, grace: float) -> None:
        """Finish what is ready and in hand, as long as the grace lasts; then cancel what is in hand.

        Returns when every worker, thread and flush has ended, however long that takes: who must not wait so long ends
        the process. `hurry` ends the grace period at once.

        Args:
            grace: seconds. 0 cancels at once.
        """
        draining = asyncio.create_task(self._queue.shutdown(drain=grace > 0))
        drained = asyncio.gather(*self._tasks, return_exceptions=True)
        hurried = asyncio.create_task(self._hurried.wait())
        news: set[asyncio.Future[Any]] = {drained, hurried}
        await asyncio.wait(news, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        await self._cut_off([task for task in self._tasks if not task.done()])
        await draining

    def hurry(self) -> None:
        """End the grace period of `stop`, which cancels what is in progress."""
        self._hurried.set()

    async def _cut_off(self, running: Collection[asyncio.Task[None]]) -> None:
        await self._queue.shutdown()
        for task in running:
            task.cancel()
        while running:
            _, running = await asyncio.wait(running, timeout=_SAY_AGAIN)
            if running:
                _log.warning("%s: still waiting for the reconciles of %s to end", self._name, self.in_progress())

    def in_progress(self) -> str:
        """Return the keys that are being reconciled, for a message."""
        return ", ".join(str(key) for key in self._queue.keys() if self._queue.in_progress(key)) or "nothing"  # noqa: SIM118 - a queue is no dict
