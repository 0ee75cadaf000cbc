"""The timers of waiting entries: a heap with lazy deletion, and one alarm in the event loop for the earliest one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Generic

from reconciler.workqueue.entry import Entry, K

__all__ = ["Alarm", "Timers"]

_SLACK = 64
"""Stale items that the heap may have beyond the number of valid ones."""

_LONGEST_SLEEP = 86_400.0
"""The longest time in seconds for which the loop's timer is set, since some loops have a limit."""


class Timers(Generic[K]):
    """The waiting entries, ordered by the time at which they become ready.

    A heap item is valid while `_waiting` has its stamp. Moving or clearing a timer leaves a stale item behind. The heap
    is rebuilt as soon as the stale items outnumber the valid ones by more than `_SLACK`, which costs O(1) per timer on
    average. An item has numbers only, so the garbage collector soon ignores it.
    """

    __slots__ = ("_heap", "_stamp", "_waiting")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._stamp = 0
        self._waiting: dict[int, Entry[K]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def set(self, entry: Entry[K], due: float) -> None:
        """Set or move the timer of an entry."""
        if entry.due is not None:
            del self._waiting[entry.timer]
        self._stamp += 1
        entry.due = due
        entry.timer = self._stamp
        self._waiting[self._stamp] = entry
        heappush(self._heap, (due, self._stamp))
        self._compact()

    def clear(self, entry: Entry[K]) -> None:
        """Clear the timer of an entry, which must have one."""
        entry.due = None
        del self._waiting[entry.timer]
        self._compact()

    def next_due(self) -> float | None:
        """Return the monotonic second of the earliest timer, None without timers."""
        heap = self._heap
        while heap:
            due, stamp = heap[0]
            if stamp in self._waiting:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> Entry[K] | None:
        """Return an entry whose timer has expired, and clear the timer; None if there is none."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, stamp = heappop(self._heap)
        entry = self._waiting[stamp]
        self.clear(entry)
        return entry

    def drop_all(self) -> list[Entry[K]]:
        """Drop all timers, and return their entries, which are neither ready nor waiting any more."""
        entries = list(self._waiting.values())
        self._waiting.clear()
        self._heap.clear()
        return entries

    def _compact(self) -> None:
        heap, waiting = self._heap, self._waiting
        if not waiting:
            heap.clear()
            waiting.clear()  # a dict that was emptied item by item keeps its largest size
        elif len(heap) > 2 * len(waiting) + _SLACK:
            heap[:] = [item for item in heap if item[1] in waiting]
            heapify(heap)


class Alarm:
    """The one timer that a queue has in its event loop.

    Args:
        now: returns monotonic time.
        ring: called when the time has come, or after a day; it sets the alarm again.

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
        """Set the alarm, unless it is set for an earlier time.

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
        """Cancel the alarm."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        self.at = math.inf

    def _call(self) -> None:
        self._handle = None
        self.at = math.inf
        self._ring()
