"""Event handlers that enqueue keys, and their connection to the informers of the kinds that a controller watches.

`PrimaryHandler` handles the events of the controller's own objects. It applies the echo rule: an event of a version
that a reconcile has observed is dropped before the queue. `MappedHandler` handles the events of other kinds. Handlers
run inside the cache's event delivery, so they only compute keys. A slow or failed mapper call goes to a `MapperQueue`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler._core.cancellation import FAILURES
from reconciler._core.wire import JSONObject
from reconciler.cache import CachedObject, CacheEvent, CacheNotSynced, EventType
from reconciler.clock import Clock
from reconciler.controller.observers import ControllerMetrics, Observers
from reconciler.controller.result import CacheSyncTimeout
from reconciler.controller.wake import reasons
from reconciler.controller.wake.echo import EchoTracker, Wake
from reconciler.controller.wake.mapper_queue import CONCURRENT_CALLS, MapperQueue
from reconciler.controller.wake.predicates import EventFilter, passes_all
from reconciler.controller.wake.watches import OwnerMapper, Watch, check_requests, discard
from reconciler.errors import describe_error
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.metadata import ResourceType
from reconciler.objects import InvalidObject, Unstructured
from reconciler.objects.kinds import KindLike, from_document, gvk_from
from reconciler.workqueue import WorkQueue

if TYPE_CHECKING:
    from reconciler.cache import Cache
    from reconciler.cache.handlers import HandlerRegistration
    from reconciler.cache.informer import Informer
    from reconciler.cache.store import Store

LOW_PRIORITY = -100
"""The priority of what is not urgent: the initial list, resyncs, everything after a restored backup, and one change
that enqueues more keys than `FAN_OUT_THRESHOLD`. The number is controller-runtime's."""

FAN_OUT_THRESHOLD = 10
"""If one object is mapped to more keys than this, they get `LOW_PRIORITY`, so that one change does not delay others."""

_log = logging.getLogger("reconciler.controller")


class PrimaryHandler:
    """The handler for events of the controller's own objects; enqueues their keys, except for echoes.

    Args:
        queue: the controller's queue.
        tracker: the controller's echo tracker, which holds the events of keys in progress.
        observers: notified of the events that enqueue keys.
        gvk: the kind.
        predicates: each returns whether an event matters; all must.
        clock: times the debounce of events that are held.
        on_gone: called with the key of an object that was deleted or replaced by another one of the same name.
        must_drain: returns whether events of an object ignore predicates and the echo rule; see `ShardFilter`. None
            without shards.
        debounce: seconds that a fresh change waits for others to be reconciled with it; None for none.
    """

    def __init__(
        self,
        queue: WorkQueue[Request],
        tracker: EchoTracker[Request],
        predicates: Sequence[EventFilter],
        *,
        observers: Observers,
        gvk: GroupVersionKind,
        clock: Clock,
        on_gone: Callable[[Request], None],
        must_drain: Callable[[CachedObject], bool] | None,
        debounce: float | None = None,
    ) -> None:
        self._queue = queue
        self._tracker = tracker
        self._predicates = predicates
        self._observers = observers
        self._gvk = gvk
        self._clock = clock
        self._on_gone = on_gone
        self._must_drain = must_drain
        self._debounce = debounce

    def handle(self, event: CacheEvent) -> None:
        """Handle one event of the informer."""
        obj = event.object
        key = obj.request
        gone = event.type is EventType.DELETED or _is_other_object(event)
        if gone:
            self._on_gone(key)
            self._queue.forget(key)
        if self._must_drain is not None and _is_of_drain(event, self._must_drain):
            self._observers.event(key, self._gvk, event)
            self._queue.add(key, reason=reasons.DRAIN)
            return
        if self._predicates and not _matters(self._predicates, event):
            return
        if gone:
            self._observers.event(key, self._gvk, event)
            self._queue.add(key, after=self._debounce, reason=reasons.DELETED)
        elif event.type is EventType.RESYNC:
            self._queue.add(key, priority=LOW_PRIORITY, reason=reasons.RESYNC)
        elif event.rewritten:
            self._observers.event(key, self._gvk, event)
            self._queue.add(key, priority=LOW_PRIORITY, reason=reasons.REWRITTEN)
        else:
            delay = None if event.initial else self._debounce
            due = None if delay is None else self._clock.monotonic() + delay
            wake = Wake(LOW_PRIORITY if event.initial else 0, due, (event,))
            if self._tracker.must_enqueue(key, obj.version, wake):
                self._observers.event(key, self._gvk, event)
                self._queue.add(key, after=delay, priority=wake.priority, reason=reasons.EVENT)


class MappedHandler:
    """The handler for events of another kind; enqueues the keys that the watch's mapper returns.

    Args:
        watch: the kind, its mapper and its predicates.
        queue: the controller's queue.
        primary: the kind of the keys.
        observers: notified of the events that enqueue keys.
        clock: times the retries of the mapper.
        metrics: receives failures of the mapper.
        concerns: returns whether this process reconciles a key; other keys are not enqueued.
        debounce: seconds that a fresh change waits for others to be reconciled with it; None for none.

    Attributes:
        mapper_queue: the objects that wait for the mapper.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        queue: WorkQueue[Request],
        primary: ResourceType,
        observers: Observers,
        clock: Clock,
        metrics: ControllerMetrics,
        concerns: Callable[[Request], bool],
        debounce: float | None = None,
    ) -> None:
        gvk = self._gvk = gvk_from(watch.kind)
        self._kind: KindLike = gvk if watch.metadata_only else watch.kind
        self._mapper = watch.mapper
        self._predicates = watch.predicates
        self._queue = queue
        self._primary = primary
        self._observers = observers
        word = reasons.OWNED if isinstance(watch.mapper, OwnerMapper) else reasons.WATCHED
        self._reason = reasons.detailed(word, gvk.kind)
        self._concerns = concerns
        self._debounce = debounce
        self._is_async = _is_async(watch.mapper)
        self.mapper_queue = MapperQueue(
            f"{getattr(watch.mapper, '__qualname__', watch.mapper)} of {gvk}",
            self._map_and_enqueue,
            timeout=watch.mapper_timeout,
            workers=CONCURRENT_CALLS if self._is_async else 1,
            retry_priority=LOW_PRIORITY,
            clock=clock,
            metrics=metrics,
        )

    def handle(self, event: CacheEvent) -> None:
        """Handle one event of the informer."""
        if event.new is None:
            self.mapper_queue.record_deletion(event.object.request)
        if not _matters(self._predicates, event):
            return
        priority = _priority(event)
        for obj in _objects(event):
            if self._is_async:
                self.mapper_queue.submit(obj, priority, event)
                continue
            try:
                mapped = self._map(obj)
                if inspect.isawaitable(mapped):  # a plain function that returned a coroutine
                    discard(mapped)
                    self.mapper_queue.submit(obj, priority, event)
                else:
                    self._enqueue(mapped, priority, event)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - a worker of the mapper queue raises other BaseExceptions again
                self.mapper_queue.retry(obj, priority, event, error)

    def _map(self, obj: CachedObject) -> object:
        if self._mapper is None:
            return [obj.request]
        if isinstance(self._mapper, OwnerMapper):
            return self._mapper.map(obj, self._primary)
        return self._mapper(_readable(self._kind, obj))

    async def _map_and_enqueue(self, obj: CachedObject, priority: int, event: CacheEvent) -> None:
        mapped = self._map(obj)
        self._enqueue(await mapped if inspect.isawaitable(mapped) else mapped, priority, event)

    def _enqueue(self, mapped: object, priority: int, event: CacheEvent) -> None:
        requests = [request for request in check_requests(mapped, self._primary) if self._concerns(request)]
        after = self._debounce if priority > LOW_PRIORITY else None
        if len(requests) > FAN_OUT_THRESHOLD:
            priority = min(priority, LOW_PRIORITY)
        for request in requests:
            self._observers.event(request, self._gvk, event)
            self._queue.add(request, after=after, priority=priority, reason=self._reason)


def _matters(predicates: Sequence[EventFilter], event: CacheEvent) -> bool:
    try:
        return passes_all(predicates, event)
    except FAILURES as error:  # dropping the event could lose work
        _log.exception(
            "a predicate failed on %s, so the event is not filtered: %s", event.object, describe_error(error)
        )
        return True


def _is_of_drain(event: CacheEvent, must_drain: Callable[[CachedObject], bool]) -> bool:
    """Return whether an event belongs to a drain; its withdrawal does, since the drain may have dropped a timer."""
    return event.new is not None and any(obj is not None and must_drain(obj) for obj in (event.new, event.old))


def _priority(event: CacheEvent) -> int:
    return LOW_PRIORITY if event.initial or event.rewritten or event.type is EventType.RESYNC else 0


def _readable(kind: KindLike, obj: CachedObject) -> Any:
    """Return what a mapper gets: the object, read leniently, or an `Unstructured` of its metadata if it is undecodable.

    A mapper names keys, mostly by name, labels or owners, which an invalid object has too.
    """
    try:
        document = obj.decode()
    except InvalidObject:
        return Unstructured(_metadata_document(gvk_from(kind), obj))
    return from_document(kind, document, lenient=True)


def _metadata_document(gvk: GroupVersionKind, obj: CachedObject) -> JSONObject:
    metadata: JSONObject = {
        "name": obj.name,
        "namespace": obj.namespace,
        "uid": obj.uid,
        "resourceVersion": str(obj.version),
        "labels": dict(obj.labels),
        "annotations": dict(obj.annotations),
        "ownerReferences": msgspec.to_builtins(obj.owner_references),
    }
    present = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": present}


def _is_other_object(event: CacheEvent) -> bool:
    return event.old is not None and event.new is not None and event.old.uid != event.new.uid


def _objects(event: CacheEvent) -> list[CachedObject]:
    objects = (event.new,) if event.type is EventType.RESYNC else (event.old, event.new)
    return [obj for obj in objects if obj is not None]


def _is_async(mapper: object) -> bool:
    return inspect.iscoroutinefunction(mapper) or inspect.iscoroutinefunction(getattr(mapper, "__call__", None))  # noqa: B004 - objects with an async __call__


@dataclass(slots=True)
class _Watched:
    """An informer with one handler of the controller."""

    kind: KindLike
    informer: Informer
    registration: HandlerRegistration


def _no_object(_: Request) -> None:
    """Return None: until the primary kind is connected, its store has no object."""


class WatchedInformers:
    """The informers of the kinds that one controller watches, connected to its handlers.

    Args:
        name: the controller's name.
        kind: the primary kind.
        watches: the other kinds.
        cache: provides the informers.
        queue: the controller's queue.
        handler: handles the events of the primary kind.
        tracker: the controller's echo tracker; forgets everything when the server's history went back.
        observers: notified of the events that enqueue keys.
        clock: source of time.
        timeout: seconds for each kind, from `connect` until its list is delivered.
        metrics: receives failures of mappers.
        sharded: whether other processes reconcile some primary objects. Then events of other kinds enqueue only keys of
            objects in the cache; an object that appears is enqueued by its own event.
        debounce: seconds that a change of another kind waits for others to be reconciled with it; None for none.
        warn: records a Warning Event for an object, with a reason and a message.

    Attributes:
        stored: returns the primary object of a key in the informer's store; None if it has none.
        mapper_queues: the queues of the mappers, from `connect` on.
        tasks: the workers of these queues.
    """

    def __init__(
        self,
        name: str,
        kind: KindLike,
        watches: Sequence[Watch],
        *,
        cache: Cache,
        queue: WorkQueue[Request],
        handler: PrimaryHandler,
        tracker: EchoTracker[Request],
        observers: Observers,
        clock: Clock,
        timeout: float,
        metrics: ControllerMetrics,
        sharded: bool,
        debounce: float | None,
        warn: Callable[[JSONObject, str, str], None],
    ) -> None:
        self._name = name
        self._kind = kind
        self._watches = watches
        self._cache = cache
        self._queue = queue
        self._handler = handler
        self._tracker = tracker
        self._observers = observers
        self._clock = clock
        self._timeout = timeout
        self._metrics = metrics
        self._sharded = sharded
        self._debounce = debounce
        self._warn = warn
        self._watched: list[_Watched] = []
        self._store: Store | None = None  # of the primary kind, once it is connected
        self.stored: Callable[[Request], CachedObject | None] = _no_object
        self._remove_restart_callback: Callable[[], None] | None = None  # the same
        self.mapper_queues: list[MapperQueue] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._deadline: float  # for the first lists; set by `connect`

    async def connect(self) -> ResourceType:
        """Declare the informers and connect the handlers; return how the primary kind is served.

        Handlers of other kinds are connected after the primary kind is listed, because they compute its keys.
        Cancellation leaves some connected; `disconnect` removes them.

        Raises:
            CacheSyncTimeout: the primary kind was not served or could not be listed in time.
        """
        self._deadline = self._clock.monotonic() + self._timeout
        primary = await self._cache.informer(self._kind)
        self._store, self.stored = primary.store, primary.store.get
        self._remove_restart_callback = primary.on_restart(self._forget_versions)
        await self._add_handler(self._kind, primary, self._handler.handle)
        others = [
            (watch, await self._cache.informer(watch.kind, metadata_only=watch.metadata_only))
            for watch in self._watches
        ]
        await self._wait_listed(self._watched[0])
        for watch, informer in others:
            await self._add_handler(watch.kind, informer, self._mapped_handler(watch, primary.resource).handle)
        return primary.resource

    async def wait_synced(self) -> None:
        """Wait until every handler has received all existing objects. Cancellation changes nothing.

        Raises:
            CacheSyncTimeout: a kind was not served or could not be listed in time.
        """
        for watched in self._watched:
            await self._wait_listed(watched)
        for mapper_queue in self.mapper_queues:
            if not await mapper_queue.settled(max(0.0, self._deadline - self._clock.monotonic())):
                _log.warning(
                    "%s starts before its mappers have finished: %d objects are not mapped after %g s and will be "
                    "mapped later",
                    self._name,
                    mapper_queue.untried,
                    self._timeout,
                )

    async def disconnect(self) -> None:
        """Disconnect all handlers. If this is cancelled, mappers that are running end by themselves."""
        if self._remove_restart_callback is not None:
            self._remove_restart_callback()
        for watched in self._watched:
            watched.registration.remove()
        for mapper_queue in self.mapper_queues:
            await mapper_queue.stop()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    def _mapped_handler(self, watch: Watch, primary: ResourceType) -> MappedHandler:
        handler = MappedHandler(
            watch,
            queue=self._queue,
            primary=primary,
            observers=self._observers,
            clock=self._clock,
            metrics=self._metrics,
            concerns=self._concerns,
            debounce=self._debounce,
        )
        self.mapper_queues.append(handler.mapper_queue)
        self.tasks += handler.mapper_queue.start(f"{self._name} mapper of {watch.kind}")
        return handler

    def _concerns(self, request: Request) -> bool:
        return not self._sharded or self.stored(request) is not None

    async def _add_handler(self, kind: KindLike, informer: Informer, handle: Callable[[CacheEvent], None]) -> None:
        gvk = gvk_from(kind)

        def handle_and_warn(event: CacheEvent) -> None:
            if event.new is not None and event.new.problem is not None and event.type is not EventType.RESYNC:
                self._warn(_reference(gvk, event.new), "Unreadable", f"cannot be decoded: {event.new.problem}")
            handle(event)

        registration = informer.add_handler(handle_and_warn, existing=False)
        self._watched.append(_Watched(kind, informer, registration))
        await informer.deliver_existing(registration)

    async def _wait_listed(self, watched: _Watched) -> None:
        try:
            await watched.informer.wait_synced(max(0.0, self._deadline - self._clock.monotonic()))
        except CacheNotSynced as error:
            raise CacheSyncTimeout(
                f"controller {self._name!r}: {gvk_from(watched.kind)} could not be listed within {self._timeout:g} s. "
                "Check that the kind is installed, that the cache is started, and that this identity may list and "
                f"watch the kind. The last problem: {watched.informer.problem}"
            ) from error

    def _forget_versions(self) -> None:
        """Forget every observed version and enqueue all keys: the history of the versions no longer exists."""
        self._tracker.forget_all()
        if self._store is not None:
            for obj in self._store:
                self._queue.add(obj.request, priority=LOW_PRIORITY, reason=reasons.RESTART)


def _reference(gvk: GroupVersionKind, cached: CachedObject) -> JSONObject:
    metadata: JSONObject = {"name": cached.name, "namespace": cached.namespace, "uid": cached.uid}
    return {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata}
