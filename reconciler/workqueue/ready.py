"""The order of ready entries: by priority, first in first out within one, without starvation; optionally in groups."""

from __future__ import annotations

import inspect
import logging
import operator
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic

from reconciler.errors import RepeatedFailures
from reconciler.workqueue.entry import Entry, K

__all__ = ["STARVATION_LIMIT", "FairOrder", "ReadyOrder", "as_priority"]

_log = logging.getLogger("reconciler.workqueue")

STARVATION_LIMIT = 100
"""How many keys in a row come from the highest priority while a lower one waits.

The next key is then the one that has been ready longest in any lower priority. So the low priorities together get one
key in 101, oldest first, and the wait of a key is bounded by the number of keys that were ready before it.
"""


class ReadyOrder(Generic[K]):
    """Ready entries, in one insertion-ordered level per priority.

    Removing an entry from the middle is O(1), so nothing stale is ever left behind. Opening a level is linear in the
    number of levels, which is the number of priorities in use.

    Attributes:
        size: the number of entries.
    """

    __slots__ = ("_levels", "_passed", "_position", "_priorities", "size")

    def __init__(self) -> None:
        self.size = 0
        self._levels: dict[int, OrderedDict[Entry[K], int]] = {}  # with the position of each entry among all
        self._position = 0
        self._priorities: list[int] = []  # of all levels, ascending; a level that `pop` emptied is removed later
        self._passed = 0  # keys in a row from the highest priority while a lower one waited

    def push(self, entry: Entry[K]) -> None:
        """Add an entry at the end of the level of its priority."""
        self.size += 1
        self._position += 1
        try:
            self._levels[entry.priority][entry] = self._position
        except KeyError:
            self._levels[entry.priority] = OrderedDict({entry: self._position})
            insort(self._priorities, entry.priority)

    def remove(self, entry: Entry[K]) -> None:
        """Remove an entry, wherever it is."""
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
        """Remove and return the next entry; there must be one."""
        level = self._levels[self._priorities[-1]]
        while not level:
            del self._levels[self._priorities.pop()]
            level = self._levels[self._priorities[-1]]
        if len(level) == self.size:
            self._passed = 0
        elif self._passed < STARVATION_LIMIT:
            self._passed += 1
        else:
            self._passed = 0
            level = self._longest_waiting()
        self.size -= 1
        return level.popitem(False)[0]  # not last=False, which costs half as much again

    def shrink(self) -> None:
        """Release the memory of the largest backlog so far; there must be no entries."""
        self._levels.clear()
        self._priorities.clear()

    def sizes(self) -> Counter[int]:
        """Return the number of entries of each priority. Thread-safe."""
        return Counter({priority: len(level) for priority, level in list(self._levels.items()) if level})

    def _longest_waiting(self) -> OrderedDict[Entry[K], int]:
        """Return the level below the highest one whose first entry came first; one of them must have an entry."""
        for priority in [priority for priority, level in self._levels.items() if not level]:
            self._close(priority)
        below = [self._levels[priority] for priority in self._priorities[:-1]]
        return min(below, key=lambda level: next(iter(level.values())))

    def _close(self, priority: int) -> None:
        self._priorities.remove(priority)
        del self._levels[priority]


class FairOrder(Generic[K]):
    """Ready entries in groups that take turns, round-robin: one key per group and turn.

    Within a group the order is that of `ReadyOrder`; priorities are not compared across groups. With n groups that have
    ready entries, each of them gets every nth key. A group without ready entries costs no memory.

    Args:
        group_of: returns the group of a key.

    Raises:
        TypeError: `group_of` is a coroutine function.

    Attributes:
        size: the number of entries.
    """

    __slots__ = ("_failures", "_group_of", "_groups", "size")

    def __init__(self, group_of: Callable[[K], Hashable]) -> None:
        if inspect.iscoroutinefunction(group_of):
            raise TypeError(f"fair_by must be a plain function, since nothing awaits its result; {group_of!r} is async")
        self.size = 0
        self._group_of = group_of
        self._failures = RepeatedFailures(_log, logging.ERROR, "fair_by failed on %s, which is in the group None now")
        self._groups: OrderedDict[Hashable, ReadyOrder[K]] = OrderedDict()

    def push(self, entry: Entry[K]) -> None:
        """Add an entry at the end of the level of its priority in its group; a new group takes its turn last."""
        name = entry.group = self._name_group(entry.key)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = ReadyOrder()
        group.push(entry)
        self.size += 1

    def remove(self, entry: Entry[K]) -> None:
        """Remove an entry, wherever it is."""
        group = self._groups[entry.group]
        group.remove(entry)
        self.size -= 1
        if not group.size:
            del self._groups[entry.group]

    def reprioritize(self, entry: Entry[K], priority: int) -> None:
        """Move an entry to the end of the level of another priority in its group. The group keeps its turn."""
        self._groups[entry.group].reprioritize(entry, priority)

    def pop(self) -> Entry[K]:
        """Remove and return the next entry; there must be one."""
        name, group = self._groups.popitem(last=False)
        if group.size > 1:
            self._groups[name] = group
        self.size -= 1
        return group.pop()

    def shrink(self) -> None:
        """Release the memory of the largest backlog so far; there must be no entries."""
        self._groups.clear()

    def sizes(self) -> Counter[int]:
        """Return the number of entries of each priority. Thread-safe."""
        found: Counter[int] = Counter()
        for group in list(self._groups.values()):
            found.update(group.sizes())
        return found

    def _name_group(self, key: K) -> Hashable:
        """Return the group of a key; None if the function fails, since an error here would lose the key."""
        try:
            name = self._group_of(key)
            hash(name)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - user code
            self._failures.log(error, key)
            return None
        return name


def as_priority(priority: int) -> int:
    """Return a priority as an int.

    Raises:
        TypeError: it is not an integer, so it could not be compared with other priorities.
    """
    try:
        return operator.index(priority)
    except TypeError:
        raise TypeError(f"priority must be an integer, not {priority!r}") from None
