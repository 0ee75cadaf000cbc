"""The event handlers of an informer, and the sink of a reflector: it updates the store, then notifies them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import msgspec

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.user_code import FAILURES
from reconciler.cache.overlay import Overlay
from reconciler.cache.store import CachedObject, CacheEvent, EventType, Store, WritableStore, same_content
from reconciler.errors import RepeatedFailures
from reconciler.meta import Request
from reconciler.meta.documents import Version, is_older

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

    def every(self, period: DurationLike | None) -> None:
        """Set the period; the shortest of several requested periods applies, and None changes nothing.

        Raises:
            ValueError: the period is not a duration above 0.
        """
        if period is None:
            return
        seconds = seconds_of("resync", period)
        if self._period is None or seconds < self._period:
            self._period = seconds
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
    number = 0
    for namespace, names, held in store.snapshot():
        for name, before in zip(names, held, strict=True):
            number += 1
            cached = store.peek_same(Request(name, namespace), before)
            if cached is not None:
                yield cached
            if number % _EVENTS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)


_CHANGES_BETWEEN_YIELDS = 500

_LATEST = 64
"""Objects that changed last, by which a reflector recognizes the server's history."""

_numbers = itertools.count()


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
        self._latest: dict[Request, None] = {}  # the keys that changed last, the newest last

    async def begin_list(self, *, at_once: bool) -> Listing:
        """Begin to receive a list.

        Args:
            at_once: whether each object goes to the store when it is added, because no version is known that the list
                could contradict. Otherwise nothing changes before the list is complete.
        """
        missing: dict[str | None, dict[str, None]] = {}  # not sets, which take twice the memory
        for namespace, names in self._store.names(self.namespace):
            missing[namespace] = dict.fromkeys(names)
            await asyncio.sleep(0)
        return Listing(self, self._store, self._overlay, missing, at_once=at_once)

    def apply(self, type: str, cached: CachedObject, received: msgspec.Raw | None = None) -> None:
        """Apply an event of the watch."""
        events = self._delete(cached) if type == "DELETED" else self._put(cached, received)
        self.version = cached.version
        self._latest.pop(cached.request, None)
        if type != "DELETED":
            self._latest[cached.request] = None
            if len(self._latest) > _LATEST:
                del self._latest[next(iter(self._latest))]
        self._notify(events)

    def advance(self, version: Version) -> None:
        """Record a bookmark."""
        self.version = version

    def newest(self, most: int) -> Sequence[CachedObject]:
        """Return the most recently changed objects, at most `most`, the newest first.

        There may be none although there are objects, if all that changed recently were deleted.
        """
        found = map(self._store.peek, reversed(self._latest))
        return list(itertools.islice((cached for cached in found if cached is not None), most))

    def written(self) -> Version | None:
        """Return the highest version in the responses to this process's writes; None before the first write."""
        return self._overlay.newest

    async def replace(
        self,
        changed: Iterable[CachedObject],
        missing: Mapping[str | None, Iterable[str]],
        latest: Iterable[Request],
        version: Version,
        *,
        restarted: bool,
    ) -> None:
        """Update the store to a complete list; called by its `Listing`.

        Cancellation stops between two objects; each of them is either as before or as in the list.

        Args:
            changed: the objects that differ from the stored ones.
            missing: names of the objects that are not in the list, by namespace: they were deleted without an event.
            latest: keys of the newest objects, the newest last.
            version: of the list.
            restarted: whether the server's history was rewritten.
        """
        gone = (Request(name, namespace) for namespace, names in missing.items() for name in names)
        changes = itertools.chain(
            (self._put(cached, force=restarted) for cached in changed), map(self._remove_unlisted, gone)
        )
        lost: list[CacheEvent] = []
        for number, events in enumerate(changes, 1):
            if restarted:
                lost += events  # a handler must not find a version from the lost history, so all is replaced before
                continue
            self._notify(events)
            if number % _CHANGES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
        self.version, self.deleted = version, None  # a deletion in a lost history is none
        self._latest = dict.fromkeys(latest)
        if restarted:
            self._on_restart()
            self._notify(lost)
        self._on_listed()

    def put_listed(self, cached: CachedObject) -> None:
        """Store an object of a list that is not complete yet."""
        self._notify(self._put(cached, bare=True))

    def _notify(self, events: Iterable[CacheEvent]) -> None:
        for event in events:
            self._handlers.notify(event)

    def _put(
        self, cached: CachedObject, received: msgspec.Raw | None = None, *, force: bool = False, bare: bool = False
    ) -> tuple[CacheEvent, ...]:
        is_stored, before = self._store.put(cached, force=force, bare=bare)
        rewritten = before is not None and cached.version == before.version
        if not is_stored:
            self.stale += not rewritten
            return ()
        if (cached.request.namespace is not None) != self._namespaced:
            self._on_other_scope()
        if cached.problem is not None:
            _logger.warning("%r cannot be decoded, reading it will raise InvalidObject: %s", cached, cached.problem)
        if before is None:
            return (CacheEvent(EventType.ADDED, new=cached, initial=self.version is None, received=received),)
        if before.uid != cached.uid:
            return (
                CacheEvent(EventType.DELETED, old=before, final=False),
                CacheEvent(EventType.ADDED, new=cached, received=received),
            )
        return (CacheEvent(EventType.UPDATED, old=before, new=cached, rewritten=rewritten, received=received),)

    def _remove_unlisted(self, request: Request) -> tuple[CacheEvent, ...]:
        gone = self._store.discard(request)
        return () if gone is None else (CacheEvent(EventType.DELETED, old=gone, final=False),)

    def _delete(self, cached: CachedObject) -> tuple[CacheEvent, ...]:
        before = self._store.peek(cached.request)
        if before is None:
            return ()
        if before.uid != cached.uid or is_older(cached.version, before.version):
            self.stale += 1
            return ()
        self._store.discard(cached.request)
        self.deleted = cached
        return (CacheEvent(EventType.DELETED, old=cached, final=not self._filtered),)


class Listing:
    """A list in progress, compared with the store as its objects come, so that only what differs takes memory.

    Args:
        sink: receives the differences.
        store: contains the objects of before.
        overlay: contains this process's own writes.
        missing: the names in the store, by namespace; this removes those that are in the list.
        at_once: see `Sink.begin_list`.
    """

    def __init__(
        self, sink: Sink, store: Store, overlay: Overlay, missing: dict[str | None, dict[str, None]], *, at_once: bool
    ) -> None:
        self._sink = sink
        self._store = store
        self._overlay = overlay
        self._missing = missing
        self._at_once = at_once
        self._changed: dict[Request, CachedObject] = {}
        self._doubts: dict[Request, Version] = {}  # the known versions of objects of which the list has older ones
        self._latest: list[tuple[int, int, Request]] = []  # a heap of version, number and key

    def __len__(self) -> int:
        """Return the number of objects that wait for the end of the list."""
        return len(self._changed)

    def add(self, cached: CachedObject) -> None:
        """Receive an object, or a newer version of it."""
        request = cached.request
        self._missing.get(request.namespace, {}).pop(request.name, None)
        self._doubts.pop(request, None)
        self._changed.pop(request, None)
        entry = (cached.version if isinstance(cached.version, int) else 0, next(_numbers), request)
        if len(self._latest) < _LATEST:
            heapq.heappush(self._latest, entry)
        elif entry > self._latest[0]:
            heapq.heapreplace(self._latest, entry)
        same = self._store.has_document(cached)
        stored = self._store.peek(request) if same is False else None
        known = self._overlay.written(request) or stored
        if known is not None and known.uid == cached.uid and is_older(cached.version, known.version):
            self._doubts[request] = known.version
        if same or (stored is not None and _is_same(cached, stored)):
            return
        if self._at_once and request not in self._doubts:
            self._sink.put_listed(cached)
        else:
            self._changed[request] = cached

    def discard(self, request: Request) -> None:
        """Receive the deletion of an object that was in the list."""
        self._doubts.pop(request, None)
        self._changed.pop(request, None)
        if request in self._store:
            self._missing.setdefault(request.namespace, {})[request.name] = None

    async def finish(self, version: Version, *, restarted: bool, exact: bool = False) -> bool:
        """Make the store equal to the list; return whether the server's history was rewritten.

        Args:
            version: of the list.
            restarted: whether the version already shows that. Otherwise the list does, if it is not older than what is
                known but contains an older version of a known object.
            exact: whether the list is consistent, so that it is not older than what the store contained before. A
                list that broke off may have stored objects that are newer than every version that is known.
        """
        restarted = restarted or any(
            not is_older(version, known) or (exact and self._is_older_than_stored(request))
            for request, known in self._doubts.items()
        )
        latest = [request for _, _, request in sorted(self._latest)]
        await self._sink.replace(self._changed.values(), self._missing, latest, version, restarted=restarted)
        return restarted

    def _is_older_than_stored(self, request: Request) -> bool:
        listed, stored = self._changed.get(request), self._store.peek(request)
        return listed is not None and stored is not None and is_older(listed.version, stored.version)


def _is_same(cached: CachedObject, before: CachedObject) -> bool:
    return (cached.uid, cached.version) == (before.uid, before.version) and same_content(cached, before)
