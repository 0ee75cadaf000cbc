"""Find objects by values computed from them; an object may have any number of values.

---

Hold the objects of one informer, as the watch last told them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.cache.object import CachedObject
from reconciler.meta import Request

__all__ = [
    "DocumentValues",
    "Index",
    "ObjectValues",
    "Store",
    "StoreStatistics",
    "WritableStore",
    "from_document_values",
    "owner_uids",
    "refuse_coroutine_function",
]


DocumentValues = Callable[[dict[str, Any]], Iterable[str]]
"""Compute index values from a decoded document."""

ObjectValues = Callable[[CachedObject], Iterable[str]]
"""Compute index values from the fields of a cached object, without decoding it."""

_logger = logging.getLogger("reconciler.cache")


def refuse_coroutine_function(function: object, what: str) -> None:
    """Raise for a function whose result would have to be awaited: the stream waits for nothing.

    Raises:
        TypeError: it is a coroutine function.
    """
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{what} is a plain function, which adds to a queue what has to wait; {function!r} is async")


def from_document_values(values: DocumentValues) -> ObjectValues:
    """Let a function of the decoded document serve as one of the cached object; costs a decode an object."""
    refuse_coroutine_function(values, "an index")
    return lambda cached: values(cached.decode())


def owner_uids(cached: CachedObject) -> Iterable[str]:
    """Give the uids of all owners: the values of an index that answers "what does this object own"."""
    return [reference.uid for reference in cached.owner_references]


class Index:
    """Map values to the objects that have them.

    Args:
        name: what readers ask for.
        values: gives an object's values. Its failures are contained: the object then has none.

    Attributes:
        errors: how often `values` failed.
    """

    def __init__(self, name: str, values: ObjectValues) -> None:
        self.name = name
        self.errors = 0
        self._values = values
        # Both sides hold only what is in the store: a value without objects is removed with its last object.
        self._objects: dict[str, dict[Request, CachedObject]] = {}
        self._held: dict[Request, tuple[str, ...]] = {}

    def put(self, cached: CachedObject) -> None:
        """Index an object in place of what its key held before."""
        self.discard(cached.request)
        values = self.values_of(cached)
        if not values:
            return
        self._held[cached.request] = values
        for value in values:
            self._objects.setdefault(value, {})[cached.request] = cached

    def discard(self, request: Request) -> None:
        """Forget what a key held."""
        for value in self._held.pop(request, ()):
            objects = self._objects[value]
            del objects[request]
            if not objects:
                del self._objects[value]

    def find(self, value: str) -> list[CachedObject]:
        """Return the objects that have a value."""
        return list(self._objects.get(value, {}).values())

    def values_of(self, cached: CachedObject) -> tuple[str, ...]:
        """Compute an object's values, each once."""
        try:
            values = self._values(cached)
            return (values,) if isinstance(values, str) else tuple(dict.fromkeys(values))
        except Exception:  # user code; an object that cannot be indexed must still be cached
            self.errors += 1
            level = logging.WARNING if self.errors == 1 else logging.DEBUG
            _logger.log(level, "index %r failed on %r; it has no values there", self.name, cached, exc_info=True)
            return ()

    def __len__(self) -> int:
        """Return the number of distinct values."""
        return len(self._objects)


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
