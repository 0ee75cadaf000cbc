"""The informer: one kind mirrored into a store, with handlers that are notified of every change."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields

import msgspec

from reconciler._core.durations import DurationLike
from reconciler._core.user_code import FAILURES
from reconciler.cache.decoding import WireReader, read_answer
from reconciler.cache.handlers import Handler, HandlerRegistration, Handlers, Resync, Sink, unchanged
from reconciler.cache.overlay import Baseline, ListBaseline, Overlay, OverlayStatistics
from reconciler.cache.reflector import Reflector
from reconciler.cache.scope import Scope
from reconciler.cache.store import (
    CacheEvent,
    EventType,
    Store,
    StoreStatistics,
    WritableStore,
    refuse_coroutine_function,
)
from reconciler.cache.watch import BackoffManager, CacheNotSynced, ReflectorStatistics, WatchFailure, in_time
from reconciler.client import ListResult
from reconciler.client.session import ClientSession
from reconciler.clock import Clock, current_clock
from reconciler.errors import describe_error
from reconciler.meta import Request
from reconciler.meta.documents import Version, parse_version
from reconciler.meta.metadata import ResourceType
from reconciler.objects import Unstructured

_logger = logging.getLogger("reconciler.cache")


@dataclass(frozen=True, slots=True)
class InformerStatistics:
    """Counters of one informer.

    Attributes:
        scope: what it watches, as text.
        synced: whether the initial list is complete.
        handlers: number of registered handlers.
        events: number of delivered events.
        handler_errors: how often a handler failed.
        restart_errors: how often a callback of `Informer.on_restart` failed.
        stale: objects and events ignored because the store had a newer version.
        unexpected: objects ignored because they are of another kind or unreadable, or their event has an unknown type.
        transform_errors: objects stored as received because the transform failed.
        reflectors: the counters of all its reflectors together.
        store: what is stored.
        overlay: own writes that the watch has not confirmed.
        last_error: the last failure; None while all is well.
        elsewhere: objects and events ignored because another replica is responsible for them.
    """

    scope: str
    synced: bool
    handlers: int
    events: int
    handler_errors: int
    restart_errors: int
    stale: int
    unexpected: int
    transform_errors: int
    reflectors: ReflectorStatistics
    store: StoreStatistics
    overlay: OverlayStatistics
    last_error: str | None
    elsewhere: int = 0


class Informer:
    """A mirror of one kind; created by `Cache.informer`, which shares it.

    Guarantees: the store is updated before handlers are notified. Each handler receives an object's changes in order,
    and replaying them reproduces the store. A failing handler affects no other. No failure of the server or the network
    ends the informer.

    Args:
        source: sends lists and watches.
        scope: what to watch.
        resolve: returns how the kind is served; called again, with backoff, until it succeeds.
        resource: how the kind is served, if known.
        resync: the duration between two RESYNC events of each object; None, the default, for never.
        list_in_pages: as in `Cache`.
        clock: default: the current clock.
        rng: source of jitter.

    Attributes:
        scope: what is watched: the informer's identity.
        gvk: the kind.
        store: the objects as the watch delivered them; own writes appear when the watch delivers them.
        overlay: the store with this process's own writes laid over it.
    """

    def __init__(
        self,
        source: ClientSession,
        scope: Scope,
        *,
        resolve: Callable[[], Awaitable[ResourceType]],
        resource: ResourceType | None = None,
        resync: DurationLike | None = None,
        list_in_pages: bool | None = None,
        clock: Clock | None = None,
        rng: random.Random,
    ) -> None:
        self._source = source
        self.scope = scope
        self.gvk = scope.gvk
        self._stores_answers_unchanged = not scope.is_filtered and scope.partition is None and scope.transform is None
        self._resource_type = resolve
        self._clock = clock or current_clock()
        self._rng = rng
        self._list_in_pages = list_in_pages
        self._resource = resource
        self._in_doubt = asyncio.Event()  # whether the kind is still served like that
        self._reader = WireReader(
            scope.gvk,
            metadata_only=scope.metadata_only,
            managed_fields=scope.managed_fields,
            transform=scope.transform,
            hashes=scope.hashes,
        )
        self._store = WritableStore(self._reader.restore)
        self.store: Store = self._store
        self.overlay = Overlay(self._store, self._progress, clock=self._clock)
        self._handlers = Handlers()
        self._sinks: dict[str | None, Sink] = {}
        self._reflectors: list[Reflector] = []
        self._synced = asyncio.Event()
        self._discovery_failure: WatchFailure | None = None
        self._restart_callbacks: list[Callable[[], None]] = []
        self._restart_errors = 0
        self._refreshing: asyncio.Task[None] | None = None
        self._resync = Resync(self._store, self._handlers, rng=rng)
        self._resync.every(resync)

    def covers(self, namespace: str | None) -> bool:
        """Return whether a namespace's objects are watched.

        None asks for a cluster-scoped kind, or for all namespaces.
        """
        watched = self.scope.namespaces
        return watched is None or namespace in watched or not (self._resource is None or self._resource.namespaced)

    def version(self, namespace: str | None = None) -> str:
        """Return the version that the watch has reached in a namespace, or in all; ``""`` before the first list.

        If several watches contribute, it is the lowest, so that a watch from there misses nothing.
        """
        sinks = [sink for sink in self._sinks.values() if namespace is None or sink.namespace in (None, namespace)]
        versions = {sink.version for sink in sinks}
        numbers = [version for version in versions if isinstance(version, int)]
        if numbers and len(numbers) == len(versions):
            return str(min(numbers))
        return str(versions.pop()) if len(versions) == 1 and None not in versions else ""

    @property
    def served_as(self) -> ResourceType | None:
        """Return how the kind is served; None if it is not known yet."""
        return self._resource

    @property
    def resource(self) -> ResourceType:
        """Return how the kind is served.

        Raises:
            CacheNotSynced: the server has not served it so far.
        """
        if self._resource is None:
            raise CacheNotSynced(f"{self.gvk} was not discovered yet: {self.problem}")
        return self._resource

    @property
    def synced(self) -> bool:
        """Return whether the initial list is in the store and was delivered to all handlers."""
        return self._synced.is_set()

    @property
    def listed(self) -> int:
        """Return the number of objects that the first lists have returned so far."""
        return self._store.statistics().objects + sum(len(each.listing) for each in self._reflectors)

    async def wait_synced(self, timeout: DurationLike | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Wait until `synced`. Cancellation changes nothing.

        Args:
            timeout: a duration: seconds, a timedelta or ``"30s"``. None, the default, waits indefinitely.

        Raises:
            CacheNotSynced: the timeout expired.
        """
        async with in_time(timeout, "not synced", lambda: self.problem):
            await self._synced.wait()

    async def refresh(self, timeout: DurationLike | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Bring the store to a state not older than this call, with a consistent list.

        Use it after a moment from which on another process no longer writes, such as winning an election: a watch alone
        may lag, and reports its progress only once a minute. Cancellation ends the waiting, not the list.

        Args:
            timeout: a duration: seconds, a timedelta or ``"30s"``. None, the default, waits indefinitely.

        Raises:
            CacheNotSynced: the timeout expired.
        """
        baseline = self.overlay.list_baseline()
        async with in_time(timeout, "not refreshed", lambda: self.problem):
            if self._reflectors:
                await asyncio.gather(*(reflector.refresh() for reflector in self._reflectors))
            else:
                await self._synced.wait()
        self.overlay.record_refresh(baseline)

    async def catch_up(self, timeout: float) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Join the `refresh` in progress, or start one: each call of `refresh` itself starts the list again.

        Cancellation ends the waiting, not the list.

        Args:
            timeout: seconds, for the one who starts it.

        Raises:
            CacheNotSynced: the timeout expired.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self.refresh(timeout), name=f"refresh of {self.scope}")
        await asyncio.shield(self._refreshing)

    def restart_first_lists(self) -> None:
        """Restart the initial lists, unless the informer is synced.

        Afterwards, `synced` means that everything was listed after this call. `refresh` does the same and waits, which
        may take forever if the kind is not served.
        """
        if self.synced:
            return
        for sink in self._sinks.values():
            sink.version = None
        for reflector in self._reflectors:
            reflector.relist()

    @property
    def last_error(self) -> WatchFailure | None:
        """Return the last failure; None while all is well."""
        failures = [reflector.last_failure for reflector in self._reflectors if reflector.last_failure is not None]
        return max(failures, key=lambda failure: failure.at, default=self._discovery_failure)

    @property
    def problem(self) -> str:
        """Return why the informer is not synced, as far as known, as text."""
        failure = self.last_error
        return str(failure) if failure is not None else f"{self.scope}: no response yet"

    def add_handler(self, handler: Handler, *, existing: bool = True) -> HandlerRegistration:
        """Add a handler for all changes; it first receives the existing objects as ADDED with ``initial=True``.

        Handlers are called on the event loop and must be quick: compute keys and add them to a queue. Their exceptions
        are contained, counted and logged.

        Args:
            handler: the handler.
            existing: whether to deliver the existing objects now. False leaves that to `deliver_existing`, which does
                not block the event loop however many there are. Default True.

        Raises:
            TypeError: the handler is a coroutine function, which nothing would await.
        """
        refuse_coroutine_function(handler, "a handler of an informer")
        registration = HandlerRegistration(handler, self._handlers, self._synced)
        for cached in self._store if existing else ():
            registration.deliver(CacheEvent(EventType.ADDED, new=cached, initial=True))
        self._handlers.add(registration)
        return registration

    async def deliver_existing(self, registration: HandlerRegistration) -> None:
        """Deliver the existing objects to a new handler as ADDED, in turns with the other work of the event loop.

        An object that changes before its turn is not delivered again: the handler has received the event of the change.
        Cancellation leaves out the rest.
        """
        async for cached in unchanged(self._store):
            registration.deliver(CacheEvent(EventType.ADDED, new=cached, initial=True))

    def on_restart(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Register a callback for when the server's versions have started again, as after a restore of etcd.

        When it is called, the store already contains the new state; the events leading to it follow. Code that
        remembers versions must forget them.

        Returns:
            A function that removes the callback; to be called once.
        """
        self._restart_callbacks.append(callback)
        return lambda: self._restart_callbacks.remove(callback)

    def resync_every(self, period: DurationLike | None) -> None:
        """Repeat all objects as RESYNC events; the shortest of several requested periods applies.

        Args:
            period: a duration, with a jitter of 10 %; None changes nothing.

        Raises:
            ValueError: the period is not a duration above 0.
        """
        self._resync.every(period)

    def record_write(self, verb: str, request: Request, answer: bytes, baseline: Baseline | None = None) -> None:
        """Record the response to a write of this process, visible to readers immediately.

        Args:
            verb: ``"delete"`` for deletions, whose response may be a Status.
            request: the object's key.
            answer: the body of the response; ignored if it is of another kind, such as a Scale.
            baseline: what was known when the write was sent; see `Overlay.record_write`.
        """
        if not self.covers(request.namespace):
            return
        if verb != "delete" and self._stores_answers_unchanged:  # the common case: decode the response once, not twice
            cached = self._reader.read(answer, report=False)
            if cached is not None and not cached.deletion_timestamp:
                self.overlay.record_write(cached, baseline)
                return
        seen = read_answer(answer)
        if seen is None or seen.kind not in (self.gvk.kind, "Status"):
            return
        if seen.deletes(verb):
            version = seen.metadata.resource_version if seen.kind == self.gvk.kind else ""
            self.overlay.record_deletion(request, seen.uid, parse_version(version) if version else None, baseline)
        elif seen.kind == self.gvk.kind:
            self._lay_over(answer, baseline)

    def _lay_over(self, answer: bytes, baseline: Baseline | None) -> None:
        if self.scope.is_filtered:
            # The server's selector sees the stored object, not the transformed one.
            plain = WireReader(self.gvk).read(answer)
            if plain is None:
                return
            if self.scope.excludes(plain):
                self.overlay.record_departure(plain, baseline)
                return
            if not self.scope.selects(plain):
                return
        cached = self._reader.read(answer)
        if cached is not None:
            self.overlay.record_write(cached, baseline)

    def record_list(self, found: ListResult[Unstructured], baseline: ListBaseline) -> None:
        """Record what the server has in a namespace, or under one name; see `Overlay.record_list`."""
        read = [self._reader.read(msgspec.json.encode(dict(one)), report=False) for one in found]
        self.overlay.record_list(
            parse_version(found.resource_version),
            [cached for cached in read if cached is not None],
            {one.key for one in found} | {one.key for one in found.invalid},
            baseline,
        )

    def statistics(self) -> InformerStatistics:
        """Return the informer's counters."""
        done = [reflector.statistics() for reflector in self._reflectors]
        return InformerStatistics(
            scope=str(self.scope),
            synced=self.synced,
            handlers=len(self._handlers),
            events=self._handlers.events,
            handler_errors=self._handlers.errors,
            restart_errors=self._restart_errors,
            stale=sum(sink.stale for sink in self._sinks.values()),
            unexpected=self._reader.unexpected,
            elsewhere=self._reader.elsewhere,
            transform_errors=self._reader.transform_errors,
            reflectors=ReflectorStatistics(
                **{name.name: sum(getattr(one, name.name) for one in done) for name in fields(ReflectorStatistics)}
            ),
            store=self._store.statistics(),
            overlay=self.overlay.statistics(),
            last_error=None if self.last_error is None else str(self.last_error),
        )

    async def run(self) -> None:
        """Mirror until cancelled, which closes the streams and leaves the store as it is."""
        self._resource = self._resource or await self._discover()
        while True:
            self._prepare(self._resource)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(reflector.run()) for reflector in self._reflectors]
                tasks += [group.create_task(self._resync.run()), group.create_task(self._store.compress_idle())]
                self._resource = await self._served_differently(self._resource)
                for task in tasks:
                    task.cancel()
            for namespace, sink in self._sinks.items():  # what the next list cannot contain
                listing = await sink.begin_list(at_once=False)
                for each in self._store.iterate(namespace):
                    if bool(each.namespace) == self._resource.namespaced:
                        listing.add(each)
                await listing.finish(sink.version or 0, restarted=False)

    async def _served_differently(self, resource: ResourceType) -> ResourceType:
        """Return how the kind is served once its definition was replaced by one with another plural or scope."""
        while True:
            await self._in_doubt.wait()
            self._in_doubt.clear()
            self._source.forget(resource)
            found = await self._discover()
            if (found.plural, found.namespaced) != (resource.plural, resource.namespaced):
                _logger.warning("%s: the kind is served as %s now; starting again", self.scope, found.plural)
                return found

    def _prepare(self, resource: ResourceType) -> None:
        namespaces: tuple[str | None, ...] = (None,)
        if resource.namespaced and self.scope.namespaces is not None:
            namespaces = self.scope.namespaces
        self._sinks = {
            namespace: Sink(
                namespace,
                store=self._store,
                overlay=self.overlay,
                handlers=self._handlers,
                filtered=self.scope.is_filtered,
                namespaced=resource.namespaced,
                on_other_scope=self._in_doubt.set,
                on_listed=self._check_synced,
                on_restart=self._notify_restart,
            )
            for namespace in namespaces
        }
        self._reflectors = [
            Reflector(
                self._source,
                resource,
                namespace,
                sink=sink,
                reader=self._reader,
                selectors=self.scope.selectors(),
                metadata_only=self.scope.metadata_only,
                in_pages=self._list_in_pages,
                on_not_served=self._in_doubt.set,
                clock=self._clock,
                rng=self._rng,
            )
            for namespace, sink in self._sinks.items()
        ]

    async def _discover(self) -> ResourceType:
        backoff = BackoffManager(clock=self._clock, rng=self._rng)
        while True:
            try:
                resource = await self._resource_type()
            except Exception as error:  # noqa: BLE001 - the kind may be installed later, the server may come back
                self._discovery_failure = WatchFailure(f"discover {self.gvk}", error, self._clock.now())
                delay = backoff.delay(error)
                backoff.log(self._discovery_failure, delay)
                await asyncio.sleep(delay)
            else:
                self._discovery_failure = None
                return resource

    def _check_synced(self) -> None:
        if all(sink.version is not None for sink in self._sinks.values()):
            self._synced.set()

    def _notify_restart(self) -> None:
        self.overlay.clear()
        for callback in tuple(self._restart_callbacks):
            try:
                callback()
            except FAILURES as error:
                self._restart_errors += 1
                text = describe_error(error)
                _logger.exception("%s: an on_restart callback failed: %s", self.scope, text)

    def _progress(self, request: Request) -> Version | None:
        sink = self._sinks.get(None) or self._sinks.get(request.namespace)  # nearly always one watch of all namespaces
        return sink.version if sink is not None else None


async def while_listing(informers: Sequence[Informer], wait: Callable[[], Awaitable[None]]) -> None:
    """Wait for first lists, and again when the timeout expires, if objects have arrived meanwhile.

    Ended by a fixed timeout, a program with many objects would list them from the beginning after each restart.

    Args:
        informers: whose objects count, unless they are synced: then objects arrive from watches at any time.
        wait: waits until they are synced.

    Raises:
        CacheNotSynced: the timeout of `wait` expired, and no object arrived within it.
    """
    listed: dict[Informer, int] = {}
    while True:
        try:
            return await wait()
        except CacheNotSynced:
            before, listed = listed, {informer: informer.listed for informer in informers if not informer.synced}
            if all(number <= before.get(informer, 0) for informer, number in listed.items()):
                raise
