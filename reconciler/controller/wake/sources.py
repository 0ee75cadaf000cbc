"""Event handlers that enqueue keys.

`PrimarySource` handles the events of the controller's own objects. It applies the echo rule: an event of a version that
a reconcile has observed is dropped before the queue. `MappedSource` handles the events of other kinds. Handlers run
inside the cache's event delivery, so they only compute keys. A slow or failed mapper call goes to a `MapperQueue`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from reconciler.cache import CachedObject, CacheEvent, EventType
from reconciler.clock import Clock
from reconciler.controller.metrics import ControllerMetrics
from reconciler.controller.reconcile.threads import discard
from reconciler.controller.reconcile.unsaved import UnsavedStore
from reconciler.controller.wake import reasons
from reconciler.controller.wake.echo import EchoTracker, Wake
from reconciler.controller.wake.mapping import CONCURRENT_CALLS, MapperQueue
from reconciler.controller.wake.predicates import passes_all
from reconciler.controller.wake.watches import Mapper, OwnerMapper, check_requests
from reconciler.meta import GroupVersionKind, Request, ResourceType
from reconciler.objects import InvalidObject, KindLike, Unstructured, from_document, gvk_from
from reconciler.workqueue import WorkQueue

__all__ = ["FAN_OUT", "LOW_PRIORITY", "MappedSource", "PrimarySource"]

LOW_PRIORITY = -100
"""Of what is not urgent: the initial list, resyncs, everything after a restart, one change that wakes more keys than
`FAN_OUT`. The number is controller-runtime's."""

FAN_OUT = 10
"""More keys than these, named for one object at once, run at low priority: one change is to hold up nobody else."""

_log = logging.getLogger("reconciler.controller")

Predicates = Sequence[Callable[[CacheEvent], bool]]


class PrimarySource:
    """Queue the keys of the controller's own objects, except for echoes.

    Args:
        queue: the controller's queue.
        tracker: the controller's echo tracker, which holds the events of keys in progress.
        unsaved: the controller's store of unsaved mutations; forgets what is gone.
        predicates: each says whether an event matters; all must.
        clock: times the debounce of events that are held.
        insists: says whether an event of an object wakes its key whatever predicates and the echo rule say.
        debounce: seconds that a fresh change waits for others to join its run; None for none.
    """

    def __init__(
        self,
        queue: WorkQueue[Request],
        tracker: EchoTracker[Request],
        unsaved: UnsavedStore,
        predicates: Predicates,
        *,
        clock: Clock,
        insists: Callable[[CachedObject], bool] = lambda _: False,
        debounce: float | None = None,
    ) -> None:
        self._queue = queue
        self._tracker = tracker
        self._unsaved = unsaved
        self._predicates = predicates
        self._clock = clock
        self._insists = insists
        self._debounce = debounce

    def handle(self, event: CacheEvent) -> None:
        """Take one event of the informer."""
        key = event.object.request
        gone = event.type is EventType.DELETED or _is_other_object(event)
        if gone:
            self._tracker.forget(key)
            self._unsaved.forget(key)
            self._queue.forget(key)
        if event.new is not None and self._insists(event.new):
            self._queue.add(key, reason=reasons.DRAIN)
            return
        if not _matters(self._predicates, event):
            return
        if gone:
            self._queue.add(key, after=self._debounce, reason=reasons.DELETED)
        elif event.type is EventType.RESYNC:
            self._queue.add(key, priority=LOW_PRIORITY, reason=reasons.RESYNC)
        elif event.rewritten:
            self._queue.add(key, priority=LOW_PRIORITY, reason=reasons.REWRITTEN)
        else:
            delay = None if event.initial else self._debounce
            due = None if delay is None else self._clock.monotonic() + delay
            wake = Wake(_priority(event), due)
            if self._tracker.admits(key, event.object.version, wake):
                self._queue.add(key, after=delay, priority=wake.priority, reason=reasons.EVENT)


class MappedSource:
    """Queue the keys that a mapper names for the objects of another kind.

    Args:
        kind: what is watched, as the watch names it: decides what a mapper gets.
        mapper: see `Watch`.
        predicates: each says whether an event matters; all must.
        queue: the controller's queue.
        primary: the kind that the keys are of.
        reason: why the keys run (``"owned: Deployment"``).
        timeout: seconds for a call of an ``async`` mapper.
        clock: times the retries of a mapper.
        metrics: told of failures of the mapper.
        concerns: says whether a key is this process's; others are not queued.
        debounce: seconds that a fresh change waits for others to join its run; None for none.
    """

    def __init__(
        self,
        kind: KindLike,
        mapper: Mapper | OwnerMapper | None,
        predicates: Predicates,
        *,
        queue: WorkQueue[Request],
        primary: ResourceType,
        reason: str,
        timeout: float,
        clock: Clock,
        metrics: ControllerMetrics,
        concerns: Callable[[Request], bool] = lambda _: True,
        debounce: float | None = None,
    ) -> None:
        self._kind = kind
        self._mapper = mapper
        self._predicates = predicates
        self._queue = queue
        self._primary = primary
        self._reason = reason
        self._concerns = concerns
        self._debounce = debounce
        self._is_async = _is_async(mapper)
        self.mapping = MapperQueue(
            f"{mapper!r} of {kind}",
            self._map_apart,
            timeout=timeout,
            workers=CONCURRENT_CALLS if self._is_async else 1,
            retry_priority=LOW_PRIORITY,
            clock=clock,
            metrics=metrics,
        )

    def handle(self, event: CacheEvent) -> None:
        """Take one event of the informer."""
        if not _matters(self._predicates, event):
            return
        priority, gone = _priority(event), event.new is None
        for obj in _objects(event):
            if self._is_async:
                self.mapping.submit(obj, priority, gone=gone)
                continue
            try:
                mapped = self._map(obj)
                if inspect.isawaitable(mapped):  # a plain function that returns what an async one gave it
                    discard(mapped)
                    self.mapping.submit(obj, priority, gone=gone)
                else:
                    self._wake(mapped, priority)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - what is no exception is raised again by a worker
                self.mapping.retry(obj, priority, error, gone=gone)

    def _map(self, obj: CachedObject) -> object:
        if self._mapper is None:
            return [obj.request]
        if isinstance(self._mapper, OwnerMapper):
            return self._mapper.map(obj, self._primary)
        return self._mapper(_readable(self._kind, obj))

    async def _map_apart(self, obj: CachedObject, priority: int) -> None:
        mapped = self._map(obj)
        self._wake(await mapped if inspect.isawaitable(mapped) else mapped, priority)

    def _wake(self, mapped: object, priority: int) -> None:
        requests = [request for request in check_requests(mapped, self._primary) if self._concerns(request)]
        after = self._debounce if priority > LOW_PRIORITY else None
        if len(requests) > FAN_OUT:
            priority = min(priority, LOW_PRIORITY)
        for request in requests:
            self._queue.add(request, after=after, priority=priority, reason=self._reason)


def _matters(predicates: Predicates, event: CacheEvent) -> bool:
    try:
        return passes_all(predicates, event)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - dropping the event could lose work
        _log.exception("a predicate failed on %s; the event is taken to matter", event.object)
        return True


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


def _metadata_document(gvk: GroupVersionKind, obj: CachedObject) -> dict[str, Any]:
    metadata = {
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
