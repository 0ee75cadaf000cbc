"""Turn what one reflector learns into changes of the store and events: the store first, the handlers second."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from reconciler.cache.handlers import Handlers
from reconciler.cache.object import CachedObject, CacheEvent, EventType
from reconciler.cache.overlay import Overlay
from reconciler.cache.store import WritableStore
from reconciler.meta import Version, is_older
from reconciler.objects import InvalidObject

__all__ = ["Sink", "StoreSink"]


_CHANGES_BETWEEN_YIELDS = 500

_logger = logging.getLogger("reconciler.cache")


class Sink(Protocol):
    """Take what a reflector learns, in order."""

    async def replace(self, objects: Sequence[CachedObject], version: Version, *, restarted: bool) -> bool:
        """Take a complete list; return whether the server's history was rewritten.

        It was if `restarted` says so (the list's version is below what was known), and also if the list has an object
        that is older than the one which was taken before: etcd was restored, and its versions have risen since.
        """
        ...

    def apply(self, type: str, cached: CachedObject) -> None:
        """Take an event: ADDED, MODIFIED or DELETED."""
        ...

    def advance(self, version: Version) -> None:
        """Take a bookmark: nothing else happened up to this version."""
        ...

    def newest(self, most: int) -> Sequence[CachedObject]:
        """Return the objects that were changed last, at most so many."""
        ...

    def written(self) -> Version | None:
        """Return the highest version that the server answered to a write of this process; None for no write."""
        ...


class StoreSink:
    """Be the sink of the reflector that watches one namespace, or all of them, for an informer.

    Args:
        namespace: what the reflector watches; None for all.
        store: takes the objects.
        overlay: holds this process's own writes to them.
        handlers: hear of the changes.
        selective: the watch has a selector, so an object that is reported as deleted may have left it alive.
        on_filled: called after each complete list.
        on_restart: called when versions have begun anew, before the handlers hear of the new state.

    Attributes:
        namespace: as given.
        version: how far the watch has come; None before the first list. Every change up to it is in the store.
        stale: how many objects and events were left out because the store had a newer version.
    """

    def __init__(
        self,
        namespace: str | None,
        *,
        store: WritableStore,
        overlay: Overlay,
        handlers: Handlers,
        selective: bool,
        on_filled: Callable[[], None],
        on_restart: Callable[[], None],
    ) -> None:
        self.version: Version | None = None
        self.stale = 0
        self.namespace = namespace
        self._store = store
        self._overlay = overlay
        self._handlers = handlers
        self._selective = selective
        self._on_filled = on_filled
        self._on_restart = on_restart

    async def replace(self, objects: Sequence[CachedObject], version: Version, *, restarted: bool) -> bool:
        """Make the store equal to a list; what the list lacks has been deleted, unseen.

        Return whether the server's history was rewritten. Cancellation stops between two objects; each of them is
        either as before or as in the list.
        """
        restarted = restarted or await self._contradicts(objects, version)
        if restarted:
            self._start_anew(objects, version)
        else:
            for number, change in enumerate(self._changes(objects), 1):
                for event in change:
                    self._handlers.tell(event)
                if number % _CHANGES_BETWEEN_YIELDS == 0:
                    await asyncio.sleep(0)
        self.version = version
        self._on_filled()
        return restarted

    def apply(self, type: str, cached: CachedObject) -> None:
        """Take an event of the watch."""
        before = self._store.get(cached.request)
        events = self._delete(before, cached) if type == "DELETED" else self._put(before, cached)
        self.version = cached.version
        for event in events:
            self._handlers.tell(event)

    def advance(self, version: Version) -> None:
        """Take a bookmark."""
        self.version = version

    def newest(self, most: int) -> Sequence[CachedObject]:
        """Return the objects that were changed last, at most so many."""
        return heapq.nlargest(most, self._store.list(self.namespace), key=_order)

    def written(self) -> Version | None:
        """Return the highest version that the server answered to a write of this process; None for no write."""
        return self._overlay.newest

    async def _contradicts(self, objects: Sequence[CachedObject], version: Version) -> bool:
        """Return whether a list has an object that is older than what is known of it, although the list is not."""
        for number, cached in enumerate(objects, 1):
            known = self._overlay.seen(cached.request)
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

    def _start_anew(self, objects: Sequence[CachedObject], version: Version) -> None:
        """Replace everything before anybody hears of it: whoever is told must not find a version of the past."""
        events = [event for change in self._changes(objects, restarted=True) for event in change]
        self.version = version
        self._on_restart()
        for event in events:
            self._handlers.tell(event)

    def _changes(self, objects: Sequence[CachedObject], *, restarted: bool = False) -> Iterator[Iterable[CacheEvent]]:
        """Bring the store to a list step by step, and yield the events of each step after it."""
        for gone in self._store.missing(self.namespace, [cached.request for cached in objects]):
            self._store.discard(gone.request)
            yield (CacheEvent(EventType.DELETED, old=gone, final=False),)
        for cached in objects:
            yield self._put(self._store.get(cached.request), cached, force=restarted)

    def _put(self, before: CachedObject | None, cached: CachedObject, *, force: bool = False) -> tuple[CacheEvent, ...]:
        if before is None:
            self._store_object(cached)
            return (CacheEvent(EventType.ADDED, new=cached, initial=self.version is None),)
        if before.uid != cached.uid:
            self._store_object(cached)
            return (
                CacheEvent(EventType.DELETED, old=before, final=False),
                CacheEvent(EventType.ADDED, new=cached),
            )
        if not force and is_older(cached.version, before.version):
            self.stale += 1
            return ()
        if cached.version == before.version and _same_content(cached, before):
            return ()
        self._store_object(cached)
        rewritten = cached.version == before.version
        return (CacheEvent(EventType.UPDATED, old=before, new=cached, rewritten=rewritten),)

    def _store_object(self, cached: CachedObject) -> None:
        self._store.put(cached)
        if cached.problem is not None:
            _logger.warning("%s cannot be decoded: %s; reading it is an error", cached, cached.problem)

    def _delete(self, before: CachedObject | None, cached: CachedObject) -> tuple[CacheEvent, ...]:
        if before is None:
            return ()
        if before.uid != cached.uid or is_older(cached.version, before.version):
            self.stale += 1
            return ()
        self._store.discard(cached.request)
        return (CacheEvent(EventType.DELETED, old=cached, final=not self._selective),)


def _order(cached: CachedObject) -> int:
    return cached.version if isinstance(cached.version, int) else 0


def _same_content(one: CachedObject, other: CachedObject) -> bool:
    """Return whether two documents say the same; a watch and a list may encode one object differently.

    Two that cannot be compared are taken to be the same: nobody could read the difference.
    """
    if one.data == other.data:
        return True
    try:
        return one.decode() == other.decode()
    except (InvalidObject, RecursionError):
        return True
