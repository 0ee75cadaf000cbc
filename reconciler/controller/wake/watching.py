"""Connect a controller's sources to the informers of the kinds it watches, and wait until those are listed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.cache import CachedObject, CacheEvent, CacheNotSynced, EventType
from reconciler.clock import Clock
from reconciler.controller.errors import CacheSyncTimeout
from reconciler.controller.metrics import ControllerMetrics
from reconciler.controller.wake import reasons
from reconciler.controller.wake.echo import EchoTracker
from reconciler.controller.wake.mapping import MapperQueue
from reconciler.controller.wake.sources import LOW_PRIORITY, MappedSource, PrimarySource
from reconciler.controller.wake.watches import OwnerMapper, Watch
from reconciler.meta import GroupVersionKind, Request, ResourceType
from reconciler.objects import KindLike, gvk_from
from reconciler.workqueue import WorkQueue

if TYPE_CHECKING:
    from reconciler.cache import Cache, HandlerRegistration, Informer

__all__ = ["Watching"]

_log = logging.getLogger("reconciler.controller")


@dataclass(slots=True)
class _Watched:
    kind: KindLike
    informer: Informer
    registration: HandlerRegistration


class Watching:
    """Be the watches of one controller.

    Args:
        name: the controller's name.
        kind: the primary kind.
        watches: the other kinds.
        cache: where the informers come from.
        queue: the controller's queue.
        source: takes the events of the primary kind.
        tracker: the controller's echo tracker; forgets everything when the server's history went back.
        clock: source of time.
        timeout: seconds for each kind, from the beginning until its list is delivered.
        metrics: told of failures of mappers.
        shared: other processes answer for some primary objects; what concerns objects that are not in the cache wakes
            nobody then. Their appearing does.
        debounce: seconds that a change of another kind waits for more to join its run; None for none.
        warn: records a Warning Event about an object, with a reason and a message.

    Attributes:
        mappings: the queues of the mappers, from `begin` on.
        tasks: their workers.
    """

    def __init__(
        self,
        name: str,
        kind: KindLike,
        watches: Sequence[Watch],
        *,
        cache: Cache,
        queue: WorkQueue[Request],
        source: PrimarySource,
        tracker: EchoTracker[Request],
        clock: Clock,
        timeout: float,
        metrics: ControllerMetrics,
        shared: bool = False,
        debounce: float | None = None,
        warn: Callable[[Mapping[str, Any], str, str], None] = lambda *_: None,
    ) -> None:
        self._name = name
        self._kind = kind
        self._watches = watches
        self._cache = cache
        self._queue = queue
        self._source = source
        self._tracker = tracker
        self._clock = clock
        self._timeout = timeout
        self._metrics = metrics
        self._shared = shared
        self._debounce = debounce
        self._warn = warn
        self._watched: list[_Watched] = []
        self._primary: Informer | None = None
        self.mappings: list[MapperQueue] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._deadline = 0.0

    def stored(self, request: Request) -> CachedObject | None:
        """Return the primary object of a key as the informer's store holds it, or None."""
        return None if self._primary is None else self._primary.store.get(request)

    async def begin(self) -> ResourceType:
        """Declare the informers and connect the handlers; return how the primary kind is served.

        Handlers of other kinds are connected when the primary kind is known and listed: what they compute are its keys.
        Cancellation leaves some connected; `end` disconnects them.

        Raises:
            CacheSyncTimeout: the primary kind was not served or could not be listed in time.
        """
        self._deadline = self._clock.monotonic() + self._timeout
        primary = self._primary = await self._cache.informer(self._kind)
        primary.on_restart(self._start_anew)
        self._connect(self._kind, primary, self._source.handle)
        others = [
            (watch, await self._cache.informer(watch.kind, metadata_only=watch.metadata_only))
            for watch in self._watches
        ]
        await self._listed(self._watched[0])
        for watch, informer in others:
            self._connect(watch.kind, informer, self._mapped(watch, primary.resource).handle)
        return primary.resource

    async def synced(self) -> None:
        """Wait until every handler has heard of everything that was there. Cancellation changes nothing.

        Raises:
            CacheSyncTimeout: a kind was not served or could not be listed in time.
        """
        for watched in self._watched:
            await self._listed(watched)
        for mapping in self.mappings:
            if not await mapping.settled(max(0.0, self._deadline - self._clock.monotonic())):
                _log.warning(
                    "%s starts before its mappers have ended: %d objects are still to be mapped within the first %g s",
                    self._name,
                    mapping.untried,
                    self._timeout,
                )

    async def end(self) -> None:
        """Disconnect everything. Cancellation leaves mappers running, which then end by themselves."""
        for watched in self._watched:
            watched.registration.remove()
        for mapping in self.mappings:
            await mapping.stop()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    def _mapped(self, watch: Watch, primary: ResourceType) -> MappedSource:
        word = reasons.OWNED if isinstance(watch.mapper, OwnerMapper) else reasons.WATCHED
        source = MappedSource(
            gvk_from(watch.kind) if watch.metadata_only else watch.kind,
            watch.mapper,
            watch.predicates,
            queue=self._queue,
            primary=primary,
            reason=reasons.detailed(word, gvk_from(watch.kind).kind),
            timeout=watch.mapper_timeout,
            clock=self._clock,
            metrics=self._metrics,
            concerns=(lambda request: self.stored(request) is not None) if self._shared else _any,
            debounce=self._debounce,
        )
        self.mappings.append(source.mapping)
        self.tasks += source.mapping.start(f"{self._name} mapper of {watch.kind}")
        return source

    def _connect(self, kind: KindLike, informer: Informer, handle: Callable[[CacheEvent], None]) -> None:
        gvk = gvk_from(kind)

        def heard(event: CacheEvent) -> None:
            if event.new is not None and event.new.problem is not None and event.type is not EventType.RESYNC:
                self._warn(_reference(gvk, event.new), "Unreadable", f"cannot be decoded: {event.new.problem}")
            handle(event)

        self._watched.append(_Watched(kind, informer, informer.add_handler(heard)))

    async def _listed(self, watched: _Watched) -> None:
        try:
            await watched.informer.wait_synced(max(0.0, self._deadline - self._clock.monotonic()))
        except CacheNotSynced as error:
            raise CacheSyncTimeout(
                f"controller {self._name!r}: {gvk_from(watched.kind)} could not be listed within {self._timeout:g} s. "
                f"{watched.informer.problem}. Is the kind installed, is the cache started, and may this identity list "
                "and watch it?"
            ) from error

    def _start_anew(self) -> None:
        """Consider nothing as seen: versions that were known belong to a history that is gone."""
        self._tracker.forget_all()
        if self._primary is not None:
            for obj in self._primary.store:
                self._queue.add(obj.request, priority=LOW_PRIORITY, reason=reasons.RESTART)


def _reference(gvk: GroupVersionKind, cached: CachedObject) -> dict[str, Any]:
    metadata = {"name": cached.name, "namespace": cached.namespace, "uid": cached.uid}
    return {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata}


def _any(request: Request) -> bool:  # noqa: ARG001 - every key
    return True
