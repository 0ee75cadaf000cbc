"""Keyed lists: finding an item by its key without a search through the list.

Two keys are equal as `reconciler.meta.equal` compares JSON, so here they become hashable values that are equal exactly
then. The embedded server has its own code for this.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import islice
from typing import Any

from reconciler.meta.documents import is_object

__all__ = ["KeyIndex", "first_by_key", "item_key"]

Key = tuple[str, ...]

_PLAIN = frozenset({str, int, float, type(None)})
"""Types whose values are equal in Python exactly if they are equal as JSON."""


def item_key(item: Any, key: Key) -> Hashable:
    """Return the values of an item's key members, for comparison; None for an item that is not an object."""
    if type(item) is not dict and not is_object(item):
        return None
    values = tuple([item.get(member) for member in key])
    return values if _PLAIN.issuperset(map(type, values)) else tuple(map(_hashable, values))


def _hashable(value: Any) -> Hashable:
    if isinstance(value, bool):
        return bool, value  # in Python, True equals 1
    if isinstance(value, list):
        return list, tuple(map(_hashable, value))
    if is_object(value):
        return frozenset((name, _hashable(member)) for name, member in value.items() if member is not None)
    hashable: Hashable = value
    return hashable


class KeyIndex:
    """The position of each item of a list by its key, while the list is changed in place.

    Items that are added at the end are noticed. Everything else that changes the list replaces it by another one.

    Args:
        items: the list.
        key: the members that identify an item.
    """

    def __init__(self, items: list[Any], key: Key) -> None:
        self.items = items
        self.key = key
        self._positions: dict[Hashable, int] = {}  # of the first item with a key, plus `_dropped`
        self._indexed = self._dropped = 0
        self._is_unique = True

    def find(self, item: Any) -> int | None:
        """Return the position of the first item with the key of this one; None if there is none."""
        size = len(self.items)
        for index in range(self._indexed, size):
            position = index + self._dropped
            first = self._positions.setdefault(item_key(self.items[index], self.key), position)
            self._is_unique = self._is_unique and first == position
        self._indexed = size
        found = self._positions.get(item_key(item, self.key))
        return None if found is None else found - self._dropped

    def drop(self, count: int) -> None:
        """Remove items from the start of the list."""
        if self._is_unique and count <= self._indexed:
            for item in islice(self.items, count):
                del self._positions[item_key(item, self.key)]
            self._indexed -= count
            self._dropped += count
        else:
            self._positions, self._indexed, self._is_unique = {}, 0, True
        del self.items[:count]


def first_by_key(items: Sequence[Any], key: Key) -> dict[Hashable, Any]:
    """Return the first item for each key."""
    return {item_key(item, key): item for item in reversed(items)}
