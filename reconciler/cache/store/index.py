"""Find objects by values computed from them; an object may have any number of values."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

from reconciler.cache.store.object import CachedObject
from reconciler.meta import Request

__all__ = ["DocumentValues", "Index", "ObjectValues", "from_document_values", "owner_uids", "refuse_coroutine_function"]

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
