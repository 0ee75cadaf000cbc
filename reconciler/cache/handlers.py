"""The event handlers of an informer, and the sink of a reflector: it updates the store, then notifies them."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

import msgspec

from reconciler._core.user_code import FAILURES
from reconciler.cache.overlay import Overlay
from reconciler.cache.store import CachedObject, CacheEvent, EventType, Store, WritableStore
from reconciler.errors import RepeatedFailures
from reconciler.meta.documents import Version, is_older
from reconciler.objects import InvalidObject

Handler = Callable[[CacheEvent], None]
"""Called on the event loop for each change. It must be quick: compute keys and add them to a queue."""

_logger = logging.getLogger("reconciler.cache")


class HandlerRegistration:
    """One handler registered with an informer; returned by `Informer.add_handler`.

    Attributes:
        errors: how often the handler failed.
    """

    def __init__(self, handler: Handler, handlers: Handlers, synced: asyncio.Event) -> None:
        self.errors = 0
        self._failures = RepeatedFailures(_logger, logging.ERROR, "handler failed on %s of %r")
        self._handler = handler
        self._handlers = handlers
        self._synced = synced

    @property
    def synced(self) -> bool:
        """Return whether the initial list was delivered to this handler."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait until `synced`. Cancellation changes nothing."""
        await self._synced.wait()

    def remove(self) -> None:
        """Stop notifying the handler; does nothing if it was already removed."""
        self._handlers.remove(self)

    def deliver(self, event: CacheEvent) -> None:
        """Call the handler; its exceptions are logged and counted."""
        try:
            self._handler(event)
        except FAILURES as error:
            self.errors += 1
            self._handlers.errors += 1
            self._failures.log(error, event.type.value, event.object)


class Handlers:
    """The handlers of one informer, notified in the order of registration.

    Attributes:
        errors: how often a handler failed, including removed handlers.
        events: number of delivered events.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.events = 0
        self._registrations: tuple[HandlerRegistration, ...] = ()  # replaced, never mutated: `notify` may be iterating

    def add(self, registration: HandlerRegistration) -> None:
        """Add a handler for all future events."""
        self._registrations = (*self._registrations, registration)

    def remove(self, registration: HandlerRegistration) -> None:
        """Remove a handler."""
        self._registrations = tuple(held for held in self._registrations if held is not registration)

    def notify(self, event: CacheEvent) -> None:
        """Deliver an event to every handler."""
        self.events += 1
        for registration in self._registrations:
            registration.deliver(event)

    def __len__(self) -> int:
        """Return the number of handlers."""
        return len(self._registrations)


JITTER = 0.1
"""Relative jitter of each resync period, so that informers do not resync together; controller-runtime's value."""

_EVENTS_BETWEEN_YIELDS = 100


class Resync:
    """Periodic RESYNC events for all stored objects; they cost no request.

    Args:
        store: contains the objects.
        handlers: the handlers to notify.
        rng: source of the jitter.
    """

    def __init__(self, store: Store, handlers: Handlers, *, rng: random.Random) -> None:
        self._store = store
        self._handlers = handlers
        self._rng = rng
        self._period: float | None = None
        self._changed = asyncio.Event()

    def every(self, period: float | None) -> None:
        """Set the period in seconds; the shortest of several requested periods applies, and None changes nothing.

        Raises:
            ValueError: the period is not positive.
        """
        if period is None:
            return
        if not period > 0:
            raise ValueError(f"resync must be more than 0 seconds, not {period!r}; None disables it")
        if self._period is None or period < self._period:
            self._period = period
            self._changed.set()

    async def run(self) -> None:
        """Resync until cancelled."""
        while True:
            period = self._period
            if period is not None:
                period *= self._rng.uniform(1 - JITTER, 1 + JITTER)
            try:
                async with asyncio.timeout(period):
                    await self._changed.wait()
                self._changed.clear()
            except TimeoutError:
                await self._repeat_all()

    async def _repeat_all(self) -> None:
        async for cached in unchanged(self._store):
            self._handlers.notify(CacheEvent(EventType.RESYNC, old=cached, new=cached))


async def unchanged(store: Store) -> AsyncIterator[CachedObject]:
    """Yield the objects of a store that are still the same when it is their turn, with pauses for the event loop."""
    for number, cached in enumerate(store, 1):
        current = store.peek(cached.request)  # another copy if it is compressed
        if current is not None and (current.uid, current.version) == (cached.uid, cached.version):
            yield cached
        if number % _EVENTS_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)


_CHANGES_BETWEEN_YIELDS = 500


class Sink:
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
        before = self._store.peek(cached.request)
        events = self._delete(before, cached) if type == "DELETED" else self._put(before, cached, received)
        self.version = cached.version
        for event in events:
            self._handlers.notify(event)

    def advance(self, version: Version) -> None:
        """Record a bookmark."""
        self.version = version

    def newest(self, most: int) -> Sequence[CachedObject]:
        """Return the most recently changed objects, at most `most`, the newest first."""
        return heapq.nlargest(most, self._store.iterate(self.namespace), key=_order)

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
            yield self._put(self._store.peek(cached.request), cached, force=restarted)
        for request in self._store.requests(self.namespace):
            gone = None if request in listed else self._store.peek(request)
            yield () if gone is None else self._remove_unlisted(gone)

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
        if (cached.request.namespace is not None) != self._namespaced:
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
