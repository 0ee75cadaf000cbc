"""The order of ready entries in which groups of keys take turns."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic

from reconciler.workqueue.entry import Entry, K
from reconciler.workqueue.order import ReadyOrder

__all__ = ["FairOrder"]


class FairOrder(Generic[K]):
    """Ready entries in groups that take turns: one hand-out each, round and round.

    Within a group the order is that of `ReadyOrder`; across groups a priority counts nothing. With n groups that have
    ready entries, each of them gets every nth hand-out. A group without ready entries costs no memory.

    Args:
        group_of: returns the group of a key, always the same one.

    Attributes:
        size: how many entries there are.
    """

    __slots__ = ("_group_of", "_groups", "size")

    def __init__(self, group_of: Callable[[K], Hashable]) -> None:
        self.size = 0
        self._group_of = group_of
        self._groups: OrderedDict[Hashable, ReadyOrder[K]] = OrderedDict()

    def push(self, entry: Entry[K]) -> None:
        """Put an entry last in the level of its priority in its group; a new group takes its turn last."""
        name = self._group_of(entry.key)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = ReadyOrder()
        group.push(entry)
        self.size += 1

    def remove(self, entry: Entry[K]) -> None:
        """Take an entry out, wherever it stands."""
        name = self._group_of(entry.key)
        group = self._groups[name]
        group.remove(entry)
        self.size -= 1
        if not group.size:
            del self._groups[name]

    def reprioritize(self, entry: Entry[K], priority: int) -> None:
        """Move an entry to the end of the level of another priority in its group. The group keeps its turn."""
        self._groups[self._group_of(entry.key)].reprioritize(entry, priority)

    def pop(self) -> Entry[K]:
        """Take the next entry out; there must be one."""
        name, group = self._groups.popitem(last=False)
        if group.size > 1:
            self._groups[name] = group
        self.size -= 1
        return group.pop()

    def shrink(self) -> None:
        """Give back the room of the largest backlog there was; nothing may be in the order."""
        self._groups.clear()

    def sizes(self) -> Counter[int]:
        """Return how many entries each priority has; may be called from any thread."""
        return sum((group.sizes() for group in list(self._groups.values())), Counter())
