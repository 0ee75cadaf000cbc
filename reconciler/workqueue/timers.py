"""Keep the entries that wait for a time: a heap with lazy deletion that cannot fill up with stale items."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic

from reconciler.workqueue.entry import Entry, K

__all__ = ["Timers"]

_SLACK = 64


class Timers(Generic[K]):
    """Know which waiting entry is due first.

    A heap item is valid while its stamp is the entry's `timer`. Moving or clearing a timer leaves a stale item behind;
    as soon as these outnumber the valid ones, and `_SLACK`, the heap is rebuilt, which costs O(1) a timer on average.
    """

    __slots__ = ("_heap", "_live", "_stamp")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry[K]]] = []
        self._stamp = 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def set(self, entry: Entry[K], due: float) -> None:
        """Give an entry its timer, or move the one it has."""
        if entry.due is None:
            self._live += 1
        self._stamp += 1
        entry.due = due
        entry.timer = self._stamp
        heappush(self._heap, (due, self._stamp, entry))
        self._compact()

    def clear(self, entry: Entry[K]) -> None:
        """Drop an entry's timer; it must have one."""
        self._live -= 1
        entry.due = None
        entry.timer = 0
        self._compact()

    def next_due(self) -> float | None:
        """Return the earliest time that an entry waits for, None when none waits."""
        heap = self._heap
        while heap:
            due, stamp, entry = heap[0]
            if entry.timer == stamp:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> Entry[K] | None:
        """Return one entry whose time has come, its timer cleared; None when there is none."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, entry = heappop(self._heap)
        self.clear(entry)
        return entry

    def _compact(self) -> None:
        heap = self._heap
        if not self._live:
            heap.clear()
        elif len(heap) > 2 * self._live + _SLACK:
            heap[:] = [item for item in heap if item[2].timer == item[1]]
            heapify(heap)
