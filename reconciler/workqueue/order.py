"""Decide which ready entry is next: by priority, first in first out within one, and none starves."""

from __future__ import annotations

from bisect import insort
from collections import Counter, OrderedDict
from typing import Generic

from reconciler.workqueue.entry import Entry, K

__all__ = ["PATIENCE", "ReadyOrder"]

PATIENCE = 100
"""How many hand-outs in a row may come from the highest priority while a lower one waits.

The next one then goes to the key that is ready longest in any lower priority, so low priorities together get one
hand-out in 101, oldest first, and each key's wait is bounded by the number of keys that were ready before it.
"""


class ReadyOrder(Generic[K]):
    """Keep ready entries, one insertion-ordered level a priority.

    Taking an entry out of the middle is O(1), so nothing stale is ever left behind. Opening a level is linear in the
    number of levels, which are as few as the priorities in use.

    Attributes:
        size: how many entries there are.
    """

    __slots__ = ("_levels", "_passed", "_position", "_priorities", "size")

    def __init__(self) -> None:
        self.size = 0
        self._levels: dict[int, OrderedDict[Entry[K], None]] = {}
        self._priorities: list[int] = []  # of all levels, ascending; what `pop` emptied goes when it is met again
        self._position = 0
        self._passed = 0  # hand-outs in a row from the top while something lower waited

    def push(self, entry: Entry[K]) -> None:
        """Put an entry last in the level of its priority."""
        self.size += 1
        self._position += 1
        entry.position = self._position
        level = self._levels.get(entry.priority)
        if level is None:
            level = self._levels[entry.priority] = OrderedDict()
            insort(self._priorities, entry.priority)
        level[entry] = None

    def remove(self, entry: Entry[K]) -> None:
        """Take an entry out, wherever it stands."""
        self.size -= 1
        level = self._levels[entry.priority]
        del level[entry]
        if not level:
            self._close(entry.priority)

    def reprioritize(self, entry: Entry[K], priority: int) -> None:
        """Move an entry to the end of the level of another priority."""
        self.remove(entry)
        entry.priority = priority
        self.push(entry)

    def pop(self) -> Entry[K]:
        """Take the next entry out; there must be one."""
        level = self._levels[self._priorities[-1]]
        while not level:
            del self._levels[self._priorities.pop()]
            level = self._levels[self._priorities[-1]]
        if len(level) == self.size:
            self._passed = 0
        elif self._passed < PATIENCE:
            self._passed += 1
        else:
            self._passed = 0
            level = self._longest_waiting()
        self.size -= 1
        return level.popitem(last=False)[0]

    def shrink(self) -> None:
        """Give back the room of the largest backlog there was; nothing may be in the order."""
        self._levels.clear()
        self._priorities.clear()

    def sizes(self) -> Counter[int]:
        """Return how many entries each priority has; may be called from any thread."""
        return Counter({priority: len(level) for priority, level in list(self._levels.items()) if level})

    def _longest_waiting(self) -> OrderedDict[Entry[K], None]:
        """Return the level below the top whose first entry came first; something must wait there."""
        for priority in [priority for priority, level in self._levels.items() if not level]:
            self._close(priority)
        below = [self._levels[priority] for priority in self._priorities[:-1]]
        return min(below, key=lambda level: next(iter(level)).position)

    def _close(self, priority: int) -> None:
        self._priorities.remove(priority)
        del self._levels[priority]
