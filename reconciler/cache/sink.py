"""The sink of a reflector: updates the store, then notifies the handlers."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from reconciler.cache.handlers import Handlers
from reconciler.cache.object import CachedObject, CacheEvent, EventType
from reconciler.cache.overlay import Overlay
from reconciler.cache.store import WritableStore
from reconciler.meta.scalars import Version, is_older
from reconciler.objects import InvalidObject

__all__ = ["Sink", "StoreSink", "same_content"]


_CHANGES_BETWEEN_YIELDS = 500

_logger = logging.getLogger("reconciler.cache")


class Sink(Protocol):
    """The receiver of the results of a reflector, in order.

    Attributes:
        deleted: the object that was deleted last since the list, at the version of its deletion; None if there is none.
    """

    deleted: CachedObject | None

    async def replace(self, objects: Sequence[CachedObject], version: Version, *, restarted: bool) -> bool:
        """Replace the contents with a complete list; return whether the server's history was rewritten.

        It was if `restarted` is True (the list's version is lower than a known one), or if the list contains an older
        version of an object than the one stored: etcd was restored, and its versions have increased since.
        """
        ...

    def apply(self, type: str, cached: CachedObject, received: msgspec.Raw | None = None) -> None:
        """Apply an event: ADDED, MODIFIED or DELETED, with the object as it was received."""
        ...

    def advance(self, version: Version) -> None:
        """Record a bookmark: nothing else happened up to this version."""
        ...

    def newest(self, most: int) -> Sequence[CachedObject]:
        """Return the most recently changed objects, at most `most`, the newest first."""
        ...

    def written(self) -> Version | None:
        """Return the highest version in the responses to this process's writes; None before the first write."""
        ...


class StoreSink:
    """The sink of the reflector that watches one namespace, or all, for an informer.

    Args:
        namespace: the watched namespace; None for all.
        store: receives the objects.
        overlay: contains this process's own writes.
        handlers: notified of the changes.
        filtered: the watch has a selector, so an object reported as deleted may still be alive.
        namespaced: whether the kind is.
        on_other_scope: called for an object that has no namespace, although the kind is namespaced, or vice versa.
        on_listed: called after each complete list.
        on_restart: called when the server's versions have started again, before handlers are notified of the new state.

    Attributes:
        namespace: as given.
        version: how far the watch has read; None before the first list. The store contains every change up to it.
        stale: number of objects and events ignored because the store had a newer version.
        deleted: the object that was deleted last since the list, at the version of its deletion; None if there is none.
    """

    def __init__(
        self,
        namespace: str | None,
        *,
        store: WritableStore,
        overlay: Overlay,
        handlers: Handlers,
        filtered: bool,
        namespaced: bool,
        on_other_scope: Callable[[], None],
        on_listed: Callable[[], None],
        on_restart: Callable[[], None],
    ) -> None:
        self.version: Version | None = None
        self.stale = 0
        self.deleted: CachedObject | None = None
        self.namespace = namespace
        self._store = store
        self._overlay = overlay
        self._handlers = handlers
        self._filtered = filtered
        self._namespaced = namespaced
        self._on_other_scope = on_other_scope
        self._on_listed = on_listed
        self._on_restart = on_restart

    async def replace(self, objects: Sequence[CachedObject], version: Version, *, restarted: bool) -> bool:
        """Make the store equal to a list; objects missing from the list were deleted without an event.

        Return whether the server's history was rewritten. Cancellation stops between two objects; each of them is
        either as before or as in the list.
        """
        restarted = restarted or await self._contradicts(objects, version)
        if restarted:
            self._replace_all(objects, version)
        else:
            for number, change in enumerate(self._changes(objects), 1):
                for event in change:
                    self._handlers.notify(event)
                if number % _CHANGES_BETWEEN_YIELDS == 0:
                    await asyncio.sleep(0)
        self.version, self.deleted = version, None  # a deletion in a lost history is none
        self._on_listed()
        return restarted

    def apply(self, type: str, cached: CachedObject, received: msgspec.Raw | None = None) -> None:
        """Apply an event of the watch."""
        before = self._store.get(cached.request)
        events = self._delete(before, cached) if type == "DELETED" else self._put(before, cached, received)
        self.version = cached.version
        for event in events:
            self._handlers.notify(event)

    def advance(self, version: Version) -> None:
        """Record a bookmark."""
        self.version = version

    def newest(self, most: int) -> Sequence[CachedObject]:
        """Return the most recently changed objects, at most `most`, the newest first."""
        return heapq.nlargest(most, self._store.list(self.namespace), key=_order)

    def written(self) -> Version | None:
        """Return the highest version in the responses to this process's writes; None before the first write."""
        return self._overlay.newest

    async def _contradicts(self, objects: Sequence[CachedObject], version: Version) -> bool:
        """Return whether a list that is not older than what is known contains an older version of a known object."""
        for number, cached in enumerate(objects, 1):
            known = self._overlay.peek(cached.request)
            if (
                known is not None
                and known.uid == cached.uid
                and is_older(cached.version, known.version)
                and not is_older(version, known.version)
            ):
                return True
            if number % _CHANGES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
        return False

    def _replace_all(self, objects: Sequence[CachedObject], version: Version) -> None:
        """Replace everything before notifying anyone, so that a handler cannot find a version from the lost history."""
        events = [event for change in self._changes(objects, restarted=True) for event in change]
        self.version = version
        self._on_restart()
        for event in events:
            self._handlers.notify(event)

    def _changes(self, objects: Sequence[CachedObject], *, restarted: bool = False) -> Iterator[Iterable[CacheEvent]]:
        """Update the store to a list step by step, and yield the events of each step after it."""
        listed = set()  # filled step by step: the event loop would wait for the set of 100,000 keys
        for cached in objects:
            listed.add(cached.request)
            yield self._put(self._store.get(cached.request), cached, force=restarted)
        for known in self._store.list(self.namespace):
            yield () if known.request in listed else self._remove_unlisted(known)

    def _put(
        self,
        before: CachedObject | None,
        cached: CachedObject,
        received: msgspec.Raw | None = None,
        *,
        force: bool = False,
    ) -> tuple[CacheEvent, ...]:
        if before is None:
            self._store_object(cached)
            return (CacheEvent(EventType.ADDED, new=cached, initial=self.version is None, received=received),)
        if before.uid != cached.uid:
            self._store_object(cached)
            return (
                CacheEvent(EventType.DELETED, old=before, final=False),
                CacheEvent(EventType.ADDED, new=cached, received=received),
            )
        if not force and is_older(cached.version, before.version):
            self.stale += 1
            return ()
        if cached.version == before.version and same_content(cached, before):
            return ()
        self._store_object(cached)
        rewritten = cached.version == before.version
        return (CacheEvent(EventType.UPDATED, old=before, new=cached, rewritten=rewritten, received=received),)

    def _remove_unlisted(self, gone: CachedObject) -> tuple[CacheEvent]:
        self._store.discard(gone.request)
        return (CacheEvent(EventType.DELETED, old=gone, final=False),)

    def _store_object(self, cached: CachedObject) -> None:
        self._store.put(cached)
        if (cached.namespace is not None) != self._namespaced:
            self._on_other_scope()
        if cached.problem is not None:
            _logger.warning("%r cannot be decoded, reading it will raise InvalidObject: %s", cached, cached.problem)

    def _delete(self, before: CachedObject | None, cached: CachedObject) -> tuple[CacheEvent, ...]:
        if before is None:
            return ()
        if before.uid != cached.uid or is_older(cached.version, before.version):
            self.stale += 1
            return ()
        self._store.discard(cached.request)
        self.deleted = cached
        return (CacheEvent(EventType.DELETED, old=cached, final=not self._filtered),)


def _order(cached: CachedObject) -> int:
    return cached.version if isinstance(cached.version, int) else 0


def same_content(one: CachedObject, other: CachedObject) -> bool:
    """Return whether two documents mean the same; a watch and a list may encode one object differently.

    Two documents that cannot be compared count as equal: no reader could tell them apart.
    """
    if one.data == other.data:
        return True
    try:
        return one.decode() == other.decode()
    except (InvalidObject, RecursionError):
        return True
