"""Hold the objects of one informer, as the watch last told them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.cache.store.index import (
    DocumentValues,
    Index,
    ObjectValues,
    from_document_values,
    refuse_coroutine_function,
)
from reconciler.cache.store.object import CachedObject
from reconciler.meta import Request

__all__ = ["Store", "StoreStatistics", "WritableStore"]


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Count what a store holds.

    Attributes:
        objects: how many.
        bytes: the length of all their documents together.
        unreadable: how many of them a decoder refused, in whole or in part; see `CachedObject.problem`.
        indexes: the distinct values of each index.
        index_errors: how often an index function failed.
    """

    objects: int
    bytes: int
    unreadable: int
    indexes: dict[str, int]
    index_errors: int


class Store:
    """Read objects by name, namespace and index: what the watch has told, in memory, without waiting.

    Every answer is a snapshot: it does not change with later events. Own writes are not laid over it; `CachedClient`
    does that.
    """

    def __init__(self) -> None:
        # Invariant: no namespace maps to an empty dict, so that a deleted namespace costs nothing.
        self._namespaces: dict[str | None, dict[str, CachedObject]] = {}
        self._indexes: dict[str, Index] = {}
        self._count = 0
        self._bytes = 0
        self._unreadable = 0

    def get(self, request: Request) -> CachedObject | None:
        """Return the object of a name and namespace, or None."""
        objects = self._namespaces.get(request.namespace)
        return objects.get(request.name) if objects is not None else None

    def list(self, namespace: str | None = None) -> Sequence[CachedObject]:
        """Return the objects of a namespace, or of all when it is None."""
        if namespace is not None:
            return list(self._namespaces.get(namespace, {}).values())
        return [cached for objects in self._namespaces.values() for cached in objects.values()]

    def by_index(self, name: str, value: str) -> Sequence[CachedObject]:
        """Return the objects that have a value in an index.

        Raises:
            ValueError: there is no index of this name.
        """
        return self.index(name).find(value)

    def index(self, name: str) -> Index:
        """Return an index.

        Raises:
            ValueError: there is none of this name.
        """
        index = self._indexes.get(name)
        if index is None:
            known = ", ".join(sorted(self._indexes)) or "none"
            raise ValueError(f"no index {name!r}: declare it with add_index (there are: {known})")
        return index

    def has_index(self, name: str) -> bool:
        """Say whether there is an index of this name."""
        return name in self._indexes

    def add_index(self, name: str, values: DocumentValues) -> None:
        """Index all objects, present and future, by what a function gives for the decoded document.

        Costs a decode an object and event (about 4 µs for 1.5 KB). `add_object_index` avoids it.

        Args:
            name: what `by_index` is asked with; where it is the path of a field (``"spec.nodeName"``), field selectors
                of cached reads use it.
            values: gives the values of one document; an object that it fails on has none, which is counted.

        Raises:
            ValueError: the name is taken.
            TypeError: `values` is a coroutine function.
        """
        self.add_object_index(name, from_document_values(values))

    def add_object_index(self, name: str, values: ObjectValues) -> None:
        """Index all objects by what a function gives for the cached object, which is not decoded.

        Raises:
            ValueError: the name is taken.
            TypeError: `values` is a coroutine function.
        """
        refuse_coroutine_function(values, "an index")
        if name in self._indexes:
            raise ValueError(f"there is an index {name!r} already")
        index = self._indexes[name] = Index(name, values)
        for cached in self:
            index.put(cached)

    @property
    def unreadable(self) -> int:
        """Return how many objects cannot be decoded, in whole or in part; may be read from any thread."""
        return self._unreadable

    def statistics(self) -> StoreStatistics:
        """Count what is held."""
        return StoreStatistics(
            objects=self._count,
            bytes=self._bytes,
            unreadable=self._unreadable,
            indexes={name: len(index) for name, index in self._indexes.items()},
            index_errors=sum(index.errors for index in self._indexes.values()),
        )

    def __len__(self) -> int:
        """Return the number of objects."""
        return self._count

    def __contains__(self, request: object) -> bool:
        """Say whether there is an object of a name and namespace."""
        return isinstance(request, Request) and self.get(request) is not None

    def __iter__(self) -> Iterator[CachedObject]:
        """Go through a snapshot of all objects."""
        return iter(self.list())


class WritableStore(Store):
    """Be the side of a store that its informer writes to."""

    def put(self, cached: CachedObject) -> None:
        """Store an object in place of what its key held."""
        objects = self._namespaces.setdefault(cached.request.namespace, {})
        before = objects.get(cached.request.name)
        objects[cached.request.name] = cached
        self._count += before is None
        self._bytes += len(cached.data) - (len(before.data) if before is not None else 0)
        self._unreadable += (cached.problem is not None) - (before is not None and before.problem is not None)
        for index in self._indexes.values():
            index.put(cached)

    def discard(self, request: Request) -> None:
        """Forget what a key held."""
        objects = self._namespaces.get(request.namespace, {})
        before = objects.pop(request.name, None)
        if before is None:
            return
        if not objects:
            del self._namespaces[request.namespace]
        self._count -= 1
        self._bytes -= len(before.data)
        self._unreadable -= before.problem is not None
        for index in self._indexes.values():
            index.discard(request)

    def missing(self, namespace: str | None, present: Iterable[Request]) -> Sequence[CachedObject]:
        """Return the objects of a namespace, or of all when it is None, whose keys are not among those given."""
        kept = set(present)
        return [cached for cached in self.list(namespace) if cached.request not in kept]
