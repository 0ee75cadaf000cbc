"""Take adds from other threads and bring them to the queue's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic

from reconciler.workqueue.entry import K

__all__ = ["Inbox"]


class Inbox(Generic[K]):
    """Collect what other threads add until the loop takes it: one wake-up of the loop for many adds.

    Adds of one key with one reason are one item, merged as the queue would merge them, so that threads which are faster
    than the loop fill nothing up.

    Args:
        deliver: called in the loop's thread with key, monotonic due time or None, priority and reason.
        lost: called in any thread when the loop is closed, with the number of adds that nobody will take.
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
        """Take one add, from any thread; before there is a loop it waits for one."""
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
        """Deliver everything; called in the loop's thread."""
        with self._lock:
            items, self._items = self._items, {}
        for (key, reason), (due, priority) in items.items():
            self._deliver(key, due, priority, reason)
