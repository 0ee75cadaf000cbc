"""Keep the objects of one kind up to date and tell handlers what changes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields

from reconciler.cache.decoding import WireReader, read_answer
from reconciler.cache.errors import CacheNotSynced, Failure, Pacer
from reconciler.cache.handlers import Handler, HandlerRegistration, Handlers, Resync
from reconciler.cache.object import CacheEvent, EventType
from reconciler.cache.overlay import Overlay, OverlayStatistics
from reconciler.cache.reflector import Reflector, Source
from reconciler.cache.scope import HashRange, Scope
from reconciler.cache.sink import StoreSink
from reconciler.cache.store import Store, StoreStatistics, WritableStore, refuse_coroutine_function
from reconciler.cache.watch import ReflectorStatistics
from reconciler.clock import Clock, current_clock
from reconciler.meta import GroupVersionKind, Request, ResourceType, Version

__all__ = ["Informer", "InformerStatistics"]

_logger = logging.getLogger("reconciler.cache")


@dataclass(frozen=True, slots=True)
class InformerStatistics:
    """Count what one informer holds and did.

    Attributes:
        scope: what it watches, for people.
        synced: whether the initial list is complete.
        handlers: how many are registered.
        events: how many were told.
        handler_errors: how often a handler failed.
        restart_errors: how often a callback of `Informer.on_restart` failed.
        stale: objects and events left out because the store had a newer version.
        unexpected: objects left out because they are of another kind or cannot be read.
        transform_errors: objects kept as they came because the transform failed.
        reflectors: what the reflectors did, together.
        store: what is held.
        overlay: own writes that the watch has not confirmed.
        last_error: what went wrong last; None while all is well.
        elsewhere: objects and events left out because another replica answers for them.
        server_filters: whether the server leaves those out itself; None where nothing is shared out by hash, and until
            the server's answer says so.
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
    server_filters: bool | None = None


class Informer:
    """Mirror one kind; made by `Cache.informer`, which shares it.

    It promises: the store has a change before a handler hears of it; each handler hears the changes of an object in
    order, and replaying what it heard gives the store; a handler that fails hurts nobody else; nothing that the server
    or the network does ends it.

    Args:
        source: sends lists and watches.
        scope: what to watch.
        resolve: finds out how the kind is served; asked again, with back-off, until it knows.
        resource: how it is served, if that is known.
        resync: seconds between two RESYNC events of each object; None, the default, for never.
        list_in_pages: as in `Cache`.
        clock: the clock in force by default.
        rng: source of jitter.
    """

    def __init__(
        self,
        source: Source,
        scope: Scope,
        *,
        resolve: Callable[[], Awaitable[ResourceType]],
        resource: ResourceType | None = None,
        resync: float | None = None,
        list_in_pages: bool = False,
        clock: Clock | None = None,
        rng: random.Random,
    ) -> None:
        self._source = source
        self._scope = scope
        self._is_plain = not scope.leaves and scope.partition is None and scope.transform is None
        self._resolve = resolve
        self._clock = clock or current_clock()
        self._rng = rng
        self._list_in_pages = list_in_pages
        self._resource = resource
        self._store = WritableStore()
        self._overlay = Overlay(self._store, self._progress, clock=self._clock)
        self._handlers = Handlers()
        self._reader = self._new_reader()
        self._sinks: dict[str | None, StoreSink] = {}
        self._reflectors: list[Reflector] = []
        self._synced = asyncio.Event()
        self._unresolved: Failure | None = None
        self._restarted: list[Callable[[], None]] = []
        self._restart_errors = 0
        self._resync = Resync(self._store, self._handlers, rng=rng)
        self._resync.every(resync)

    @property
    def scope(self) -> Scope:
        """Return what is watched: the informer's identity."""
        return self._scope

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the kind."""
        return self._scope.gvk

    def covers(self, namespace: str | None) -> bool:
        """Say whether the objects of a namespace are watched; None for those of a cluster-scoped kind, or all."""
        clustered = self._resource is not None and not self._resource.namespaced
        return clustered or self._scope.covers(namespace)

    def version(self, namespace: str | None = None) -> str:
        """Return how far the watch has come in a namespace, or in all; ``""`` before the first list.

        Where several watches make up the answer it is the lowest, so that watching on from it misses nothing.
        """
        sinks = [sink for sink in self._sinks.values() if namespace is None or sink.namespace in (None, namespace)]
        versions = {sink.version for sink in sinks}
        numbers = [version for version in versions if isinstance(version, int)]
        if numbers and len(numbers) == len(versions):
            return str(min(numbers))
        return str(versions.pop()) if len(versions) == 1 and None not in versions else ""

    @property
    def resource(self) -> ResourceType:
        """Return how the kind is served.

        Raises:
            CacheNotSynced: the server did not serve it so far.
        """
        if self._resource is None:
            raise CacheNotSynced(f"{self._scope.gvk} is not known yet: {self.problem}")
        return self._resource

    @property
    def store(self) -> Store:
        """Return what the watch has told; own writes are not in it before that."""
        return self._store

    @property
    def overlay(self) -> Overlay:
        """Return the store with this process's own writes laid over it."""
        return self._overlay

    @property
    def synced(self) -> bool:
        """Say whether the initial list is in the store and delivered to all handlers."""
        return self._synced.is_set()

    async def wait_synced(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Wait until `synced`. Cancellation changes nothing.

        Args:
            timeout: seconds; None, the default, waits for ever.

        Raises:
            CacheNotSynced: it took longer.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._synced.wait()
        except TimeoutError:
            raise CacheNotSynced(f"not synced after {timeout:g} s: {self.problem}") from None

    async def refresh(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Bring the store to a state that is not older than this call, by a consistent list.

        For a moment after which another process has written for the last time, as on winning an election: a watch alone
        may lag behind, and says how far it has come only once a minute. Cancellation ends the waiting, not the list.

        Args:
            timeout: seconds; None, the default, waits for ever.

        Raises:
            CacheNotSynced: it took longer.
        """
        try:
            async with asyncio.timeout(timeout):
                if self._reflectors:
                    await asyncio.gather(*(reflector.refresh() for reflector in self._reflectors))
                else:
                    await self._synced.wait()
        except TimeoutError:
            raise CacheNotSynced(f"not refreshed after {timeout:g} s: {self.problem}") from None

    def restart_first_lists(self) -> None:
        """Restart the initial lists, unless the informer is synced.

        Afterwards `synced` means that everything was listed after this call. `refresh` does the same and waits, which
        may take forever where the kind is not served.
        """
        if self.synced:
            return
        for sink in self._sinks.values():
            sink.version = None
        for reflector in self._reflectors:
            reflector.relist()

    @property
    def last_error(self) -> Failure | None:
        """Return what went wrong last; None while all is well."""
        failures = [reflector.last_failure for reflector in self._reflectors if reflector.last_failure is not None]
        return max(failures, key=lambda failure: failure.at, default=self._unresolved)

    @property
    def problem(self) -> str:
        """Return why it is not synced, as far as that is known, for people."""
        failure = self.last_error
        return str(failure) if failure is not None else f"{self._scope}: no answer yet"

    def add_handler(self, handler: Handler) -> HandlerRegistration:
        """Let a handler hear of every change; first of what is there already, as ADDED with ``initial=True``.

        Handlers are called on the event loop and must be quick: compute keys, put them into a queue. What they raise is
        contained, counted and logged.

        Raises:
            TypeError: the handler is a coroutine function, which nobody would await.
        """
        refuse_coroutine_function(handler, "a handler of an informer")
        registration = HandlerRegistration(handler, self, self._handlers)
        for cached in self._store:
            registration.deliver(CacheEvent(EventType.ADDED, new=cached, initial=True))
        self._handlers.add(registration)
        return registration

    def on_restart(self, callback: Callable[[], None]) -> None:
        """Call back when the server's versions have begun anew, as after a restore of etcd.

        The store holds the new state by then; the events that lead to it follow. Whoever remembers versions must forget
        them.
        """
        self._restarted.append(callback)

    def resync_every(self, period: float | None) -> None:
        """Repeat all objects as RESYNC events; of several periods asked for the shortest counts.

        Args:
            period: seconds, spread by 10 %; None changes nothing.

        Raises:
            ValueError: the period is not positive.
        """
        self._resync.every(period)

    def wrote(self, verb: str, request: Request, answer: bytes) -> None:
        """Take the answer to a write of this process, for readers to see at once.

        Args:
            verb: ``"delete"`` for deletions, whose answer may be a Status.
            request: the object's key.
            answer: the body of the answer; what is not of this informer's kind, as a Scale, is ignored.
        """
        if not self.covers(request.namespace):
            return
        if verb != "delete" and self._is_plain:  # nearly always: read once what the other way reads twice
            cached = self._reader.read(answer, told=False)
            if cached is not None and not cached.deletion_timestamp:
                self._overlay.wrote(cached)
                return
        seen = read_answer(answer)
        if seen is None or seen.kind not in (self.gvk.kind, "Status"):
            return
        if seen.deletes(verb):
            self._overlay.deleted(request, seen.uid)
        elif seen.kind == self.gvk.kind:
            self._lay_over(answer)

    def _lay_over(self, answer: bytes) -> None:
        if self._scope.leaves:
            # The server selects by what is stored, not by what a transform has made of it.
            plain = WireReader(self._scope.gvk).read(answer)
            if plain is None:
                return
            if self._scope.has_left(plain):
                self._overlay.left(plain)
                return
            if not self._scope.selects(plain):
                return
        cached = self._reader.read(answer)
        if cached is not None:
            self._overlay.wrote(cached)

    def statistics(self) -> InformerStatistics:
        """Count what is held and was done."""
        done = [reflector.statistics() for reflector in self._reflectors]
        return InformerStatistics(
            scope=str(self._scope),
            synced=self.synced,
            handlers=len(self._handlers),
            events=self._handlers.events,
            handler_errors=self._handlers.errors,
            restart_errors=self._restart_errors,
            stale=sum(sink.stale for sink in self._sinks.values()),
            unexpected=self._reader.unexpected,
            elsewhere=self._reader.elsewhere,
            server_filters=self._reader.server_filters,
            transform_errors=self._reader.transform_errors,
            reflectors=ReflectorStatistics(
                **{name.name: sum(getattr(one, name.name) for one in done) for name in fields(ReflectorStatistics)}
            ),
            store=self._store.statistics(),
            overlay=self._overlay.statistics(),
            last_error=None if self.last_error is None else str(self.last_error),
        )

    async def run(self) -> None:
        """Mirror until cancelled, which closes the streams and leaves the store as it is."""
        self._resource = self._resource or await self._resolved()
        namespaces: tuple[str | None, ...] = (None,)
        if self._resource.namespaced and self._scope.namespaces is not None:
            namespaces = self._scope.namespaces
        self._sinks = {namespace: self._sink(namespace) for namespace in namespaces}
        self._reflectors = [
            Reflector(
                self._source,
                self._resource,
                namespace,
                sink=sink,
                reader=self._reader,
                selectors=self._scope.selectors(),
                metadata_only=self._scope.metadata_only,
                sharded=self._hashes is not None,
                in_pages=self._list_in_pages,
                clock=self._clock,
                rng=self._rng,
            )
            for namespace, sink in self._sinks.items()
        ]
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            group.create_task(self._resync.run())

    async def _resolved(self) -> ResourceType:
        pacer = Pacer(clock=self._clock, rng=self._rng)
        while True:
            try:
                resource = await self._resolve()
            except Exception as error:  # noqa: BLE001 - a kind may be installed later, a server may come back
                self._unresolved = Failure(f"find out how {self._scope.gvk} is served", error, self._clock.now())
                delay = pacer.delay(error)
                pacer.log(self._unresolved, delay)
                await asyncio.sleep(delay)
            else:
                self._unresolved = None
                return resource

    def _new_reader(self) -> WireReader:
        scope = self._scope
        return WireReader(
            scope.gvk,
            metadata_only=scope.metadata_only,
            managed_fields=scope.managed_fields,
            transform=scope.transform,
            hashes=self._hashes,
        )

    @property
    def _hashes(self) -> HashRange | None:
        return self._scope.partition.hashes if self._scope.partition is not None else None

    def _sink(self, namespace: str | None) -> StoreSink:
        return StoreSink(
            namespace,
            store=self._store,
            overlay=self._overlay,
            handlers=self._handlers,
            selective=self._scope.leaves,
            on_filled=self._filled,
            on_restart=self._restart,
        )

    def _filled(self) -> None:
        if all(sink.version is not None for sink in self._sinks.values()):
            self._synced.set()

    def _restart(self) -> None:
        self._overlay.clear()
        for callback in tuple(self._restarted):
            try:
                callback()
            except Exception:
                self._restart_errors += 1
                _logger.exception("%s: a callback of on_restart failed", self._scope)

    def _progress(self, request: Request) -> Version | None:
        sink = self._sinks.get(request.namespace) or self._sinks.get(None)
        return sink.version if sink is not None else None
