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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler._core.user_code import FAILURES, cancel_and_wait
from reconciler._core.wire import JSONObject
from reconciler.cache import CachedObject, CacheEvent, CacheNotSynced, EventType
from reconciler.cache.informer import while_listing
from reconciler.clock import Clock
from reconciler.controller.observers import Observers
from reconciler.controller.result import CacheSyncTimeout
from reconciler.controller.wake import reasons
from reconciler.controller.wake.change import ChangeLog
from reconciler.controller.wake.echo import EchoTracker, Wake
from reconciler.controller.wake.mapper_queue import CONCURRENT_CALLS, MapperQueue
from reconciler.controller.wake.predicates import EventFilter, ShardFilter
from reconciler.controller.wake.watches import OwnerMapper, Watch, check_requests, discard
from reconciler.errors import describe_error
from reconciler.events import EventRecorder
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
    from reconciler.controller.options import CheckedOptions
    from reconciler.controller.reconcile.cycle import UnsavedStore
    from reconciler.controller.reconcile.explanation import RunHistory
    from reconciler.controller.reconcile.threads import ReconcileThreads
    from reconciler.controller.reconcile.watchdogs import RunningReconciles
    from reconciler.controller.reconcile.worker import AgainLimiter
    from reconciler.status.recording import StatusMetrics

LOW_PRIORITY = -100
"""The priority of what is not urgent: the initial list, resyncs, everything after a restored backup, and one change
that enqueues more keys than `FAN_OUT_THRESHOLD`. The number is controller-runtime's."""

FAN_OUT_THRESHOLD = 10
"""If one object is mapped to more keys than this, they get `LOW_PRIORITY`, so that one change does not delay others."""

_log = logging.getLogger("reconciler.controller")


def _no_object(_: Request) -> None:
    """Return None: until the primary kind is connected, its store has no object."""


@dataclass(slots=True)
class ControllerState:
    """What the parts of one controller share.

    Attributes:
        gvk: the primary kind.
        options: the controller's options.
        cache: provides the informers.
        queue: the controller's queue.
        limiter: the queue's rate limiter.
        tracker: its echo tracker, which holds the events of keys in progress.
        unsaved: its store of unsaved mutations.
        observers: notified of events that enqueue keys, and of every reconcile.
        shard_filter: decides which keys this process reconciles.
        clock: source of time.
        events: records Kubernetes events.
        status_metrics: receives each flush of a reconcile's batchers, or None.
        threads: run plain functions.
        history: the latest reconciles of each key.
        changes: the changes that enqueued each key.
        running: the reconciles in progress.
        deadlines: for each key the monotonic second of the latest `requeue_after`.
        stored: returns the primary object of a key in the informer's store; None if it has none.
    """

    gvk: GroupVersionKind
    options: CheckedOptions
    cache: Cache
    queue: WorkQueue[Request]
    limiter: AgainLimiter
    tracker: EchoTracker[Request]
    unsaved: UnsavedStore
    observers: Observers
    shard_filter: ShardFilter
    clock: Clock
    events: EventRecorder
    status_metrics: StatusMetrics | None
    threads: ReconcileThreads
    history: RunHistory
    changes: ChangeLog
    running: RunningReconciles
    deadlines: dict[Request, float] = field(default_factory=dict)
    stored: Callable[[Request], CachedObject | None] = _no_object

    def notify_of(self, key: Request, gvk: GroupVersionKind, event: CacheEvent) -> None:
        """Notify the observers of an event of an object of this kind, which enqueues a key."""
        for notify in self.observers.event:
            notify(key, gvk, event)

    def warn_unreadable(self, gvk: GroupVersionKind, event: CacheEvent) -> None:
        """Record a Warning Event for the object of an event, if it is a new one that cannot be decoded."""
        new = event.new
        if new is not None and new.problem is not None and event.type is not EventType.RESYNC:
            self.events.warning(reference_to(gvk, new), "Unreadable", f"cannot be decoded: {new.problem}")

    def forget(self, key: Request) -> None:
        """Forget a key whose object is gone, or belongs to another process."""
        self.tracker.forget(key)
        self.unsaved.forget(key)
        for notify in self.observers.forgotten:
            notify(key)


class PrimaryHandler:
    """The handler for events of the controller's own objects; enqueues their keys, except for echoes.

    Args:
        state: the controller's.
        predicates: each returns whether an event matters; all must.
    """

    def __init__(self, state: ControllerState, predicates: Sequence[EventFilter]) -> None:
        self._state = state
        self._predicates = predicates

    def handle(self, event: CacheEvent) -> None:
        """Handle one event of the informer."""
        state, obj, old = self._state, event.new or event.object, event.old
        key, debounce, add = obj.request, state.options.debounce, state.queue.add
        if obj.problem is not None:
            state.warn_unreadable(state.gvk, event)
        gone = event.type is EventType.DELETED or (old is not None and old.uid != obj.uid)
        if gone:
            state.forget(key)
            state.queue.forget(key)
        if state.shard_filter.sharded and _is_of_drain(event, state.shard_filter.must_drain):
            state.notify_of(key, state.gvk, event)
            add(key, reason=reasons.DRAIN)
            return
        if self._predicates and not matters(self._predicates, event):
            return
        if gone:
            state.notify_of(key, state.gvk, event)
            add(key, after=debounce, reason=reasons.DELETED)
        elif event.type is EventType.RESYNC:
            add(key, priority=LOW_PRIORITY, reason=reasons.RESYNC)
        elif event.rewritten:
            state.notify_of(key, state.gvk, event)
            add(key, priority=LOW_PRIORITY, reason=reasons.REWRITTEN)
        else:
            delay = None if event.initial else debounce
            due = None if delay is None else state.clock.monotonic() + delay
            wake = Wake(LOW_PRIORITY if event.initial else 0, due, (event,))
            if state.tracker.must_enqueue(key, obj.version, wake):
                state.notify_of(key, state.gvk, event)
                add(key, after=delay, priority=wake.priority, reason=reasons.EVENT)


class MappedHandler:
    """The handler for events of another kind; enqueues the keys that the watch's mapper returns.

    If other processes reconcile some primary objects, it enqueues only keys of objects in the cache: an object that
    appears is enqueued by its own event.

    Args:
        watch: the kind, its mapper and its predicates.
        state: the controller's.
        primary: the kind of the keys.

    Attributes:
        mapper_queue: the objects that wait for the mapper.
    """

    def __init__(self, watch: Watch, state: ControllerState, primary: ResourceType) -> None:
        gvk = self._gvk = gvk_from(watch.kind)
        self._kind: KindLike = gvk if watch.metadata_only else watch.kind
        self._mapper = watch.mapper
        self._predicates = watch.predicates
        self._state = state
        self._primary = primary
        word = reasons.OWNED if isinstance(watch.mapper, OwnerMapper) else reasons.WATCHED
        self._reason = reasons.detailed(word, gvk.kind)
        self._is_async = _is_async(watch.mapper)
        self.mapper_queue = MapperQueue(
            f"{getattr(watch.mapper, '__qualname__', watch.mapper)} of {gvk}",
            self._map_and_enqueue,
            timeout=watch.mapper_timeout,
            workers=CONCURRENT_CALLS if self._is_async else 1,
            retry_priority=LOW_PRIORITY,
            clock=state.clock,
        )

    def handle(self, event: CacheEvent) -> None:
        """Handle one event of the informer."""
        if event.new is None:
            self.mapper_queue.record_deletion(event.object.request)
        elif event.new.problem is not None:
            self._state.warn_unreadable(self._gvk, event)
        if not matters(self._predicates, event):
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
        state = self._state
        requests = check_requests(mapped, self._primary)
        if state.shard_filter.sharded:
            requests = [request for request in requests if state.stored(request) is not None]
        after = state.options.debounce if priority > LOW_PRIORITY else None
        if len(requests) > FAN_OUT_THRESHOLD:
            priority = min(priority, LOW_PRIORITY)
        for request in requests:
            state.notify_of(request, self._gvk, event)
            state.queue.add(request, after=after, priority=priority, reason=self._reason)


def matters(predicates: Sequence[EventFilter], event: CacheEvent) -> bool:
    """Return whether an event passes every predicate; without predicates every event passes."""
    try:
        return all(predicate(event) for predicate in predicates)
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
        document = _document(
            gvk_from(kind),
            name=obj.name,
            namespace=obj.namespace,
            uid=obj.uid,
            resourceVersion=str(obj.version),
            labels=dict(obj.labels),
            annotations=dict(obj.annotations),
            ownerReferences=msgspec.to_builtins(obj.owner_references),
        )
        return Unstructured(document)
    return from_document(kind, document, lenient=True)


def _objects(event: CacheEvent) -> list[CachedObject]:
    objects = (event.new,) if event.type is EventType.RESYNC else (event.old, event.new)
    return [obj for obj in objects if obj is not None]


def _is_async(mapper: object) -> bool:
    return inspect.iscoroutinefunction(mapper) or inspect.iscoroutinefunction(getattr(mapper, "__call__", None))  # noqa: B004 - objects with an async __call__


class WatchedInformers:
    """The informers of the kinds that one controller watches, connected to its handlers.

    Args:
        state: the controller's; its `stored` is set when the primary kind is connected.
        watches: the other kinds.
        handler: handles the events of the primary kind.

    Attributes:
        mapper_queues: the queues of the mappers, from `connect` on.
        tasks: the workers of these queues.
    """

    def __init__(self, state: ControllerState, watches: Sequence[Watch], handler: PrimaryHandler) -> None:
        self._state = state
        self._watches = watches
        self._handler = handler
        self._watched: list[tuple[Informer, HandlerRegistration]] = []
        self._store: Store | None = None  # of the primary kind, once it is connected
        self._remove_restart_callback: Callable[[], None] | None = None  # the same
        self.mapper_queues: list[MapperQueue] = []
        self.tasks: list[asyncio.Task[None]] = []

    def objects(self) -> Sequence[CachedObject]:
        """Return all primary objects in the informer's store."""
        return () if self._store is None else self._store.list()

    async def connect(self) -> ResourceType:
        """Declare the informers and connect the handlers; return how the primary kind is served.

        Handlers of other kinds are connected after the primary kind is listed, because they compute its keys.
        Cancellation leaves some connected; `disconnect` removes them.

        Raises:
            CacheSyncTimeout: the primary kind was not served or could not be listed in time.
        """
        state = self._state
        primary = await state.cache.informer(state.options.kind)
        self._store, state.stored = primary.store, primary.store.get
        self._remove_restart_callback = primary.on_restart(self._forget_versions)
        await self._add_handler(primary, self._handler.handle)
        others = [
            (watch, await state.cache.informer(watch.kind, metadata_only=watch.metadata_only))
            for watch in self._watches
        ]
        await self._wait_listed(primary)
        for watch, informer in others:
            handler = MappedHandler(watch, state, primary.resource)
            self.mapper_queues.append(handler.mapper_queue)
            self.tasks += handler.mapper_queue.start(f"{state.options.name} mapper of {watch.kind}")
            await self._add_handler(informer, handler.handle)
        return primary.resource

    async def wait_synced(self) -> None:
        """Wait until every handler has received all existing objects. Cancellation changes nothing.

        Raises:
            CacheSyncTimeout: a kind was not served or could not be listed in time.
        """
        for informer, _ in self._watched:
            await self._wait_listed(informer)
        deadline = self._state.clock.monotonic() + self._state.options.sync_timeout
        for mapper_queue in self.mapper_queues:
            if not await mapper_queue.settled(max(0.0, deadline - self._state.clock.monotonic())):
                _log.warning(
                    "%s starts before its mappers have finished: %d objects are not mapped after %g s and will be "
                    "mapped later",
                    self._state.options.name,
                    mapper_queue.untried,
                    self._state.options.sync_timeout,
                )

    async def disconnect(self) -> None:
        """Disconnect all handlers. If this is cancelled, mappers that are running end by themselves."""
        if self._remove_restart_callback is not None:
            self._remove_restart_callback()
        for _, registration in self._watched:
            registration.remove()
        for mapper_queue in self.mapper_queues:
            await mapper_queue.stop()
        await cancel_and_wait(self.tasks)

    async def _add_handler(self, informer: Informer, handle: Callable[[CacheEvent], None]) -> None:
        registration = informer.add_handler(handle, existing=False)
        self._watched.append((informer, registration))
        await informer.deliver_existing(registration)

    async def _wait_listed(self, informer: Informer) -> None:
        timeout = self._state.options.sync_timeout
        try:
            await while_listing([informer], lambda: informer.wait_synced(timeout))
        except CacheNotSynced as error:
            raise CacheSyncTimeout(
                f"controller {self._state.options.name!r}: {informer.gvk} could not be listed within {timeout:g} s. "
                "Check that the kind is installed, that the cache is started, and that this identity may list and "
                f"watch the kind. The last problem: {informer.problem}"
            ) from error

    def _forget_versions(self) -> None:
        """Forget every observed version and enqueue all keys: the history of the versions no longer exists."""
        self._state.tracker.forget_all()
        if self._store is not None:
            for obj in self._store:
                self._state.queue.add(obj.request, priority=LOW_PRIORITY, reason=reasons.RESTART)


def reference_to(gvk: GroupVersionKind, cached: CachedObject) -> JSONObject:
    """Return what an Event about an object must contain of it."""
    return _document(
        gvk, name=cached.name, namespace=cached.namespace, uid=cached.uid, resourceVersion=str(cached.version)
    )


def _document(gvk: GroupVersionKind, **metadata: Any) -> JSONObject:
    present = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": present}
