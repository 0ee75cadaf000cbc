"""The pool of a controller's workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any

from reconciler.controller.errors import ControllerError
from reconciler.controller.reconcile.worker import Worker
from reconciler.meta import Request
from reconciler.workqueue import WorkQueue

__all__ = ["WorkerPool"]

_log = logging.getLogger("reconciler.controller")

_LOG_INTERVAL = 10.0
"""Seconds between log lines about reconciles that do not end."""


class WorkerPool:
    """The tasks of the workers of one queue.

    Args:
        name: the controller's name.
        queue: the controller's queue.
    """

    def __init__(self, name: str, queue: WorkQueue[Request]) -> None:
        self._name = name
        self._queue = queue
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._hurried = asyncio.Event()

    def start(self, workers: Sequence[Worker]) -> None:
        """Start the workers."""
        self._tasks = [
            asyncio.create_task(worker.work(), name=f"{self._name} worker {number}")
            for number, worker in enumerate(workers)
        ]

    @property
    def started(self) -> bool:
        """Return whether the workers have been started."""
        return bool(self._tasks)

    async def finished(self, others: Sequence[asyncio.Task[None]] = ()) -> None:
        """Wait until all workers, and other tasks that belong to the controller, have ended.

        Cancellation changes nothing.

        Raises:
            BaseException: what a task raised; the others continue.
            ControllerError: something other than `stop` cancelled a task.
        """
        running = {*self._tasks, *others}
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()
                elif not self._stopping:
                    raise ControllerError(f"{task.get_name()} was cancelled, but not by the controller")

    async def stop(self, grace: float) -> None:
        """Process what is ready and in progress for the grace period, then cancel what is in progress.

        Returns when every worker, thread and flush has ended, however long that takes. End the process if you cannot
        wait. `hurry` ends the grace period at once.

        Args:
            grace: seconds. 0 cancels at once.
        """
        self._stopping = True
        draining = asyncio.create_task(self._queue.shutdown(drain=grace > 0))
        drained = asyncio.gather(*self._tasks, return_exceptions=True)
        hurried = asyncio.create_task(self._hurried.wait())
        ends: set[asyncio.Future[Any]] = {drained, hurried}
        await asyncio.wait(ends, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if self._queue.active:
            _log.warning(
                "%s: %s: cancelling the reconciles of %s, %d keys are ready",
                self._name,
                "stopping at once" if self._hurried.is_set() or not grace else f"the {grace:g} s of grace are over",
                self.in_progress(),
                len(self._queue),
            )
        hurried.cancel()
        await self._cancel([task for task in self._tasks if not task.done()])
        await draining

    def hurry(self) -> None:
        """End the grace period of `stop`, which cancels what is in progress."""
        self._hurried.set()

    async def _cancel(self, running: Collection[asyncio.Task[None]]) -> None:
        await self._queue.shutdown()
        for task in running:
            task.cancel()
        while running:
            _, running = await asyncio.wait(running, timeout=_LOG_INTERVAL)
            if running:
                _log.warning("%s is still waiting for the reconciles of %s to end", self._name, self.in_progress())

    def in_progress(self) -> str:
        """Return the keys in progress, for a message."""
        return ", ".join(str(key) for key in self._queue.keys() if self._queue.in_progress(key)) or "nothing"  # noqa: SIM118 - a queue is not a dict
