"""The connection of a queue to its event loop: waiting tasks, and adds from other threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic

from reconciler.workqueue.entry import K

__all__ = ["Inbox", "Waiters"]


class Waiters:
    """Tasks that wait to be woken, first in first out.

    Attributes:
        futures: one for each task.
    """

    __slots__ = ("futures",)

    def __init__(self) -> None:
        self.futures: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait to be woken. Cancellation passes a wake-up that came at the same moment on to the next task."""
        woken = asyncio.get_running_loop().create_future()
        self.futures.append(woken)
        try:
            await woken
        except BaseException:
            if woken.done() and not woken.cancelled():
                self.wake_one()
            else:
                with contextlib.suppress(ValueError):
                    self.futures.remove(woken)
            raise

    def wake_one(self) -> None:
        """Wake the task that has waited longest, if there is one."""
        while self.futures:
            future = self.futures.popleft()
            if not future.done():
                future.set_result(None)
                return

    def wake_all(self) -> None:
        """Wake every task."""
        while self.futures:
            self.wake_one()

    def clear(self) -> None:
        """Drop tasks of an event loop that has ended."""
        self.futures.clear()


class Inbox(Generic[K]):
    """Adds from other threads that the event loop has not processed yet.

    The loop is woken once for many adds. Adds of one key with one reason are merged as the queue would merge them, so
    the inbox stays small even if threads are faster than the loop.

    Args:
        deliver: called in the loop's thread with key, monotonic due time or None, priority and reason.
        lost: called in any thread with the number of adds that are dropped because the loop is closed.
    """

    __slots__ = ("_deliver", "_items", "_lock", "_loop", "_lost")

    def __init__(self, deliver: Callable[[K, float | None, int, str], None], lost: Callable[[int], None]) -> None:
        self._deliver = deliver
        self._lost = lost
        self._lock = threading.Lock()
        self._items: dict[tuple[K, str], tuple[float | None, int]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake this loop from now on; called in its thread."""
        with self._lock:
            self._loop = loop
        self.take()

    def put(self, key: K, due: float | None, priority: int, reason: str) -> None:
        """Store an add, from any thread; before the queue has a loop, the add waits for it."""
        with self._lock:
            wake = not self._items
            earlier = self._items.get((key, reason))
            if earlier is not None:
                due = None if due is None or earlier[0] is None else min(due, earlier[0])
                priority = max(priority, earlier[1])
            self._items[key, reason] = (due, priority)
            if not wake or self._loop is None:
                return
            try:
                self._loop.call_soon_threadsafe(self.take)
            except RuntimeError:  # the loop is closed
                self._items.clear()
                self._lost(1)

    def take(self) -> None:
        """Deliver all adds; called in the loop's thread."""
        with self._lock:
            items, self._items = self._items, {}
        for (key, reason), (due, priority) in items.items():
            self._deliver(key, due, priority, reason)
