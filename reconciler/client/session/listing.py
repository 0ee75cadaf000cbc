"""Hold the result of a list."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from reconciler.meta import GroupVersionKind, Request
from reconciler.objects import InvalidObject

__all__ = ["InvalidItem", "InvalidLog", "ListResult"]

_logger = logging.getLogger("reconciler.client")

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class InvalidItem:
    """An object that a list left out because it could not be read.

    Attributes:
        name: its name; ``""`` where that could not be read either.
        namespace: its namespace; None for a cluster-scoped object.
        resource_version: its version; ``""`` for none.
        error: what is wrong with it, with the paths of the fields.
    """

    name: str
    namespace: str | None
    resource_version: str
    error: InvalidObject

    @property
    def key(self) -> Request:
        """Return name and namespace."""
        return Request(self.name, self.namespace)


class ListResult(Sequence[T_co], Generic[T_co]):
    """Be the objects of a list, and the version of the collection that they show.

    Args:
        items: the objects, in the server's order.
        resource_version: the version to watch from in order to miss nothing.
        invalid: the objects that exist and are not among the items, because they cannot be decoded or do not fit the
            class that was asked for. Empty in nearly every list; look at it before you take an object for deleted.
    """

    __slots__ = ("_items", "invalid", "resource_version")

    def __init__(self, items: Iterable[T_co], resource_version: str = "", invalid: Iterable[InvalidItem] = ()) -> None:
        self._items = tuple(items)
        self.resource_version = resource_version
        self.invalid = tuple(invalid)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ListResult):
            return self._items == other._items
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # of mutable objects

    def __repr__(self) -> str:
        invalid = f", {len(self.invalid)} invalid" if self.invalid else ""
        return f"<ListResult of {len(self)}{invalid} at {self.resource_version!r}>"


class InvalidLog:
    """A log of the objects that lists leave out: one warning for each version of an object.

    Args:
        most: how many versions are remembered; beyond it the oldest is forgotten and would be logged again.
    """

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[GroupVersionKind, Request, str], None] = OrderedDict()

    def take(self, gvk: GroupVersionKind, items: Iterable[InvalidItem]) -> None:
        """Log the objects that were not logged before at their version."""
        for item in items:
            key = (gvk, item.key, item.resource_version)
            if key not in self._seen:
                _logger.warning("a list leaves out %s %s: %s", gvk, item.key, item.error)
            self._seen[key] = None
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
