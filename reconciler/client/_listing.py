"""Hold the result of a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

__all__ = ["ListResult"]

T_co = TypeVar("T_co", covariant=True)


class ListResult(Sequence[T_co], Generic[T_co]):
    """Be the objects of a list, and the version of the collection that they show.

    Args:
        items: the objects, in the server's order.
        resource_version: the version to watch from in order to miss nothing.
    """

    __slots__ = ("_items", "resource_version")

    def __init__(self, items: Iterable[T_co], resource_version: str = "") -> None:
        self._items = tuple(items)
        self.resource_version = resource_version

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
        return f"<ListResult of {len(self)} at {self.resource_version!r}>"
