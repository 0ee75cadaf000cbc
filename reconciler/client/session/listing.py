"""The result of a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from reconciler.meta import Request
from reconciler.objects import InvalidObject

__all__ = ["InvalidItem", "ListResult"]

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class InvalidItem:
    """An object that a list left out because it could not be read.

    Attributes:
        name: its name; ``""`` if that is unreadable too.
        namespace: its namespace; None for a cluster-scoped object.
        resource_version: its version; ``""`` if there is none.
        error: what is wrong with the object, with the paths of the fields.
    """

    name: str
    namespace: str | None
    resource_version: str
    error: InvalidObject

    @property
    def key(self) -> Request:
        """Name and namespace."""
        return Request(self.name, self.namespace)


class ListResult(Sequence[T_co], Generic[T_co]):
    """The objects of a list, and the collection's version at which they were read.

    Args:
        items: the objects, in the server's order.
        resource_version: the version to watch from without missing an event.
        invalid: objects that exist but are not among the items, because they cannot be decoded or do not fit the
            requested class. Nearly always empty. Check it before you conclude that an object was deleted.
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
