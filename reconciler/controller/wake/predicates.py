"""Predicates: functions that decide which events matter.

A predicate gets a `CacheEvent`; predicates combine with ``&``, ``|`` and ``~``. The ``…_changed`` predicates filter
updates only. Other events always pass: an object appeared, was deleted, was repeated by a resync, or was replaced by
another one of the same name. Predicates filter events, not memory or traffic; use selectors for those.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from reconciler.cache import CachedObject, CacheEvent, EventType, LabelSelector
from reconciler.controller.permissions import Permission
from reconciler.errors import ConfigurationError
from reconciler.meta import Request

EventFilter = Callable[[CacheEvent], bool]
"""A function that returns whether an event matters; a `Predicate` is one."""


class Predicate:
    """A function that returns whether an event matters, with operators to combine it.

    Args:
        matches: gets the event; must be quick and do no I/O.
        name: what ``repr`` shows. Default: the function's name.

    Raises:
        ConfigurationError: it is not a plain function.
    """

    def __init__(self, matches: EventFilter, *, name: str | None = None) -> None:
        check_predicate(matches)
        self._matches = matches
        self._name = name or _name(matches)

    @classmethod
    def of_object(cls, matches: Callable[[CachedObject], bool]) -> Predicate:
        """Return a predicate of the object: the new one of an update, the last one of a deletion."""
        check_predicate(matches)
        return cls(lambda event: matches(event.object), name=_name(matches))

    @classmethod
    def of_types(cls, *types: EventType) -> Predicate:
        """Return a predicate that passes events of these types: ``~Predicate.of_types(EventType.DELETED)``."""
        return cls(lambda event: event.type in types, name=f"of_types({', '.join(each.name for each in types)})")

    @classmethod
    def of_update(cls, matches: Callable[[CachedObject, CachedObject], bool], *, name: str | None = None) -> Predicate:
        """Return a predicate of the old and the new object of an update that passes every other event.

        An object with another uid has replaced the old one, so it does not count as an update. Nor does content that
        changed without a new version (`CacheEvent.rewritten`).
        """
        check_predicate(matches)

        def matches_update(event: CacheEvent) -> bool:
            old, new = event.old, event.new
            if event.type is not EventType.UPDATED or event.rewritten:
                return True
            if old is None or new is None or old.uid != new.uid:
                return True
            return matches(old, new)

        return cls(matches_update, name=name or _name(matches))

    def __call__(self, event: CacheEvent, /) -> bool:
        """Return whether the event matters."""
        return self._matches(event)

    def __and__(self, other: EventFilter) -> Predicate:
        return Predicate(lambda event: self(event) and other(event), name=f"({self!r} & {_name(other)})")

    def __or__(self, other: EventFilter) -> Predicate:
        return Predicate(lambda event: self(event) or other(event), name=f"({self!r} | {_name(other)})")

    def __invert__(self) -> Predicate:
        return Predicate(lambda event: not self(event), name=f"~{self!r}")

    def __repr__(self) -> str:
        return self._name


def check_predicate(matches: object, prefix: str = "") -> None:
    """Raise unless something is a plain function: an ``async`` one returns a coroutine, which is always true.

    Raises:
        ConfigurationError: it is not a function, or is an ``async`` one.
    """
    if not callable(matches):
        raise ConfigurationError(f"{prefix}predicates contains {matches!r}, which is not a function")
    if inspect.iscoroutinefunction(matches) or inspect.iscoroutinefunction(type(matches).__call__):
        raise ConfigurationError(
            f"{prefix}the predicate {_name(matches)} is async: predicates are plain functions of the event. Let the "
            "reconcile ask what it must wait for"
        )


def _name(matches: Callable[..., object]) -> str:
    return repr(matches) if isinstance(matches, Predicate) else str(getattr(matches, "__name__", "predicate"))


def labels_match(selector: str | Mapping[str, str]) -> Predicate:
    """Return a predicate that passes events of the objects which a label selector selects.

    An update also passes if the object was selected before it, so that an object which leaves the selection is noticed.

    Args:
        selector: in the API's syntax (``"app=web,tier in (a,b)"``), or a mapping of labels that must be equal.

    Raises:
        ValueError: the selector is invalid.
    """
    text = selector if isinstance(selector, str) else ",".join(f"{key}={value}" for key, value in selector.items())
    labels = LabelSelector(text)

    def matches(event: CacheEvent) -> bool:
        return any(obj is not None and labels.matches(obj.labels) for obj in (event.new, event.old))

    return Predicate(matches, name=f"labels_match({text!r})")


def _generation_changed(old: CachedObject, new: CachedObject) -> bool:
    if not old.generation and not new.generation:
        return True  # kinds without a generation (ConfigMap, Node) always pass
    return old.generation != new.generation or old.deletion_timestamp != new.deletion_timestamp


generation_changed = Predicate.of_update(_generation_changed, name="generation_changed")
"""Passes updates that changed ``metadata.generation`` or marked the object for deletion.

The generation changes with the spec or, for kinds without the status subresource, with any field. Kinds without a
generation always pass. A status that somebody else removed goes unnoticed."""

labels_changed = Predicate.of_update(lambda old, new: old.labels != new.labels, name="labels_changed")
"""Passes updates that changed a label."""

annotations_changed = Predicate.of_update(
    lambda old, new: old.annotations != new.annotations, name="annotations_changed"
)
"""Passes updates that changed an annotation."""

resource_version_changed = Predicate.of_update(
    lambda old, new: old.version != new.version, name="resource_version_changed"
)
"""Passes updates that changed anything."""


class ShardFilter(Protocol):
    """A filter of the keys that a controller of this process reconciles.

    Attributes:
        permissions: what it does to the objects itself.
        sharded: whether other processes reconcile some of the objects.
    """

    @property
    def permissions(self) -> Sequence[Permission]:
        """Return what it does to the objects itself."""
        ...

    @property
    def sharded(self) -> bool:
        """Return whether other processes reconcile some of the objects."""
        ...

    def matches(self, labels: Mapping[str, str], /) -> bool:
        """Return whether an object with these labels belongs to this process."""
        ...

    def must_drain(self, cached: CachedObject, /) -> bool:
        """Return whether the object must be handed over, so that its events ignore predicates and the echo rule."""
        ...

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether this process reconciles a key; called before each reconcile, while the key is in progress.

        If False, the key is dropped: no reconcile, no retry, no timer. If True, `ended` follows. Cancellation may leave
        a handover unfinished, which the next call for the key completes.

        Raises:
            Exception: it could not find out; the key is retried with backoff.
        """
        ...

    def ended(self, request: Request, /) -> None:
        """Called when a reconcile that `may_reconcile` allowed has ended, whatever its outcome."""


class Unsharded:
    """The filter of a process that reconciles every object."""

    permissions: Sequence[Permission] = ()
    sharded = False

    def matches(self, labels: Mapping[str, str], /) -> bool:  # noqa: ARG002 - every object belongs to it
        """Return True."""
        return True

    def must_drain(self, cached: CachedObject, /) -> bool:  # noqa: ARG002 - nothing is handed over
        """Return False."""
        return False

    async def may_reconcile(self, request: Request, /) -> bool:  # noqa: ARG002 - every key belongs to it
        """Return True."""
        return True

    def ended(self, request: Request, /) -> None:
        """Do nothing."""
