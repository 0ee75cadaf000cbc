"""The connection of a controller's event handlers to the informers of the kinds it watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler._core.wire import JSONObject
from reconciler.cache import CachedObject, CacheEvent, CacheNotSynced, EventType
from reconciler.clock import Clock
from reconciler.controller.changes.log import ChangeLog
from reconciler.controller.errors import CacheSyncTimeout
from reconciler.controller.metrics import ControllerMetrics
from reconciler.controller.wake import reasons
from reconciler.controller.wake.echo import EchoTracker
from reconciler.controller.wake.handlers import LOW_PRIORITY, MappedHandler, PrimaryHandler
from reconciler.controller.wake.mapper_queue import MapperQueue
from reconciler.controller.wake.watches import Watch
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.reference import ResourceType
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.workqueue import WorkQueue

if TYPE_CHECKING:
    from reconciler.cache import Cache, HandlerRegistration, Informer, Store

__all__ = ["WatchedInformers"]

_log = logging.getLogger("reconciler.controller")


@dataclass(slots=True)
class _Watched:
    """An informer with one handler of the controller."""

    kind: KindLike
    informer: Informer
    registration: HandlerRegistration


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
        changes: remembers what enqueued a key.
        clock: source of time.
        timeout: seconds for each kind, from `connect` until its list is delivered.
        metrics: receives failures of mappers.
        sharded: whether other processes reconcile some primary objects. Then events of other kinds enqueue only keys of
            objects in the cache; an object that appears is enqueued by its own event.
        debounce: seconds that a change of another kind waits for others to be reconciled with it; None for none.
        warn: records a Warning Event for an object, with a reason and a message.

    Attributes:
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
        changes: ChangeLog,
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
        self._changes = changes
        self._clock = clock
        self._timeout = timeout
        self._metrics = metrics
        self._sharded = sharded
        self._debounce = debounce
        self._warn = warn
        self._watched: list[_Watched] = []
        self._store: Store | None = None  # of the primary kind, once it is connected
        self._remove_restart_callback: Callable[[], None] | None = None  # the same
        self.mapper_queues: list[MapperQueue] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._deadline: float  # for the first lists; set by `connect`

    def stored(self, request: Request) -> CachedObject | None:
        """Return the primary object of a key in the informer's store, or None."""
        return None if self._store is None else self._store.get(request)

    async def connect(self) -> ResourceType:
        """Declare the informers and connect the handlers; return how the primary kind is served.

        Handlers of other kinds are connected after the primary kind is listed, because they compute its keys.
        Cancellation leaves some connected; `disconnect` removes them.

        Raises:
            CacheSyncTimeout: the primary kind was not served or could not be listed in time.
        """
        self._deadline = self._clock.monotonic() + self._timeout
        primary = await self._cache.informer(self._kind)
        self._store = primary.store
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
            changes=self._changes,
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
