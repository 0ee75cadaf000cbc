"""Put a controller together: informers to sources, sources to the queue, the queue to workers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.cache import CachedClient, CacheEvent
from reconciler.clock import Clock, current_clock
from reconciler.controller.errors import ControllerError
from reconciler.controller.metrics import ControllerMetrics, NoMetrics
from reconciler.controller.options import check_numbers, check_status, kind_of, name_of, predicates_of, watches_of
from reconciler.controller.permissions.declared import Declared
from reconciler.controller.permissions.needs import needs_of
from reconciler.controller.permissions.permissions import AccessRule, access_rules
from reconciler.controller.reconcile.cycle import ReconcileCycle
from reconciler.controller.reconcile.pool import Pool
from reconciler.controller.reconcile.storm import StormAlarm
from reconciler.controller.reconcile.tracing import traced, traced_status
from reconciler.controller.reconcile.unsaved import UnsavedStore
from reconciler.controller.reconcile.worker import Counts, Workbench, Worker
from reconciler.controller.reconciler import Binding, Reconciler, bind, call
from reconciler.controller.statistics import ControllerStatistics
from reconciler.controller.wake import reasons
from reconciler.controller.wake.custom_sources import CustomSources, SourceLike, sources_of
from reconciler.controller.wake.echo import EchoTracker
from reconciler.controller.wake.responsibility import Everything, Responsibility
from reconciler.controller.wake.sources import PrimarySource
from reconciler.controller.wake.watches import Watch
from reconciler.controller.wake.watching import Watching
from reconciler.events import EventRecorder
from reconciler.meta import Request, current_cycle
from reconciler.objects import KindLike, gvk_from
from reconciler.status import StatusMetrics
from reconciler.telemetry import tracer
from reconciler.workqueue import QueueMetrics, RateLimiter, WorkQueue

if TYPE_CHECKING:
    from reconciler.cache import Cache

__all__ = ["Controller"]

_log = logging.getLogger("reconciler.controller")

SYNC_TIMEOUT = 120.0
"""Seconds for which a watched kind may take to be listed; controller-runtime's number."""


class Controller:
    """Run a reconciler for the objects of one kind, and for what concerns them.

    Made by ``Manager.add_controller``; with a started `Cache` it works alone as well. It starts once.

    Args:
        reconciler: what to run; it belongs to this controller from now on.
        cache: where the informers come from; whoever made it starts it.
        client: reads through `cache`; what the reconciler gets as ``self.client``.
        resource: the kind of the primary objects, which the keys name. Default: the kind of a `ResourceReconciler`.
        name: in metrics, logs and the default finalizer: letters, digits and ``-._``, at most 63. Default: the kind in
            lower case.
        owns: kinds whose objects the primary ones own: a change wakes the owner that is marked as controller. An entry
            may be a `Watch` with predicates, or with `every_owner` as its mapper.
        watches: other kinds, each with a mapper to keys.
        sources: what else wakes keys: a `ChannelSource`, or an async function that is given `Enqueue`.
        predicates: for events of the primary objects; all must say that an event matters. Default: everything matters.
        workers: keys that are reconciled side by side. Default 1.
        timeout: seconds per reconcile, after which it is cancelled, which counts as an error. Default: no limit.
        rate_limiter: the back-off after errors. Default: exponential per key, from 5 ms to 1000 s.
        debounce: seconds that a fresh change waits, so that those which follow join its run; a later change does not
            prolong it. Default: none.
        wake_on_own_status: let the cycle's own status and finalizer writes wake the controller, as in
            controller-runtime: for ported code that goes from step to step by its own events. Default False.
        sync_timeout: seconds for each watched kind to be installed and listed at the start. Default 120.
        clock: source of time. Default: the clock in force.
        metrics: counts. Default: nobody; `statistics` is there anyway.
        queue_metrics: counts what the queue does. Default: nobody.
        status_metrics: hears of each flush of the cycles' batchers. Default: nobody.
        events: records Kubernetes events; whoever made it runs it. Default: a recorder of the controller's own.
        check_leader: raises unless this process may act, for `Reconciler.check_leader`. Default: it always may.
        responsibility: which keys are this process's. Default: all.

    Raises:
        ConfigurationError: an option cannot be used; the message says which, and why.
        ControllerError: the reconciler belongs to another running controller.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        cache: Cache,
        client: CachedClient,
        resource: KindLike | None = None,
        name: str | None = None,
        owns: Sequence[KindLike | Watch] = (),
        watches: Sequence[Watch] = (),
        sources: Sequence[SourceLike] = (),
        predicates: Sequence[Callable[[CacheEvent], bool]] = (),
        workers: int = 1,
        timeout: float | None = None,
        rate_limiter: RateLimiter | None = None,
        debounce: float | None = None,
        wake_on_own_status: bool = False,
        sync_timeout: float = SYNC_TIMEOUT,
        clock: Clock | None = None,
        metrics: ControllerMetrics | None = None,
        queue_metrics: QueueMetrics | None = None,
        status_metrics: StatusMetrics | None = None,
        events: EventRecorder | None = None,
        check_leader: Callable[[], None] | None = None,
        responsibility: Responsibility | None = None,
    ) -> None:
        kind = kind_of(reconciler, resource)
        self._name = name_of(kind, name)
        check_numbers(self._name, workers=workers, timeout=timeout, debounce=debounce)
        self._workers = reconciler.pool_size(workers)
        check_status(self._name, reconciler)
        clock = clock or current_clock()
        self._reconciler = reconciler
        self._responsibility = responsibility or Everything()
        self._metrics = metrics or NoMetrics()
        self._queue: WorkQueue[Request] = WorkQueue(
            name=self._name,
            rate_limiter=rate_limiter,
            clock=clock,
            metrics=queue_metrics,
            fair_by=None if type(reconciler).fair_by is Reconciler.fair_by else reconciler.fair_by,
        )
        self._tracker: EchoTracker[Request] = EchoTracker(
            own_writes=not wake_on_own_status, on_echo=self._metrics.echo_dropped
        )
        self._unsaved = UnsavedStore()
        self._storm: StormAlarm[Request] = StormAlarm(clock=clock)
        source = PrimarySource(
            self._queue,
            self._tracker,
            self._unsaved,
            predicates_of(self._name, predicates),
            clock=clock,
            insists=self._responsibility.insists,
            debounce=debounce,
        )
        every_watch = watches_of(self._name, owns, watches)
        self._access = access_rules(
            [*needs_of(reconciler, kind, every_watch), *self._responsibility.permissions],
        )
        self._sources = CustomSources(self._name, sources_of(self._name, sources), self._queue)
        self._watching = Watching(
            self._name,
            kind,
            every_watch,
            cache=cache,
            queue=self._queue,
            source=source,
            tracker=self._tracker,
            clock=clock,
            timeout=sync_timeout,
            metrics=self._metrics,
            shared=self._responsibility.shared,
            debounce=debounce,
            warn=self._warn,
        )
        status_metrics = traced_status(status_metrics, tracer())
        self._bench = Workbench(
            name=self._name,
            gvk=gvk_from(kind),
            queue=self._queue,
            tracker=self._tracker,
            unsaved=self._unsaved,
            stored=self._watching.stored,
            storm=self._storm,
            metrics=self._metrics,
            clock=clock,
            timeout=timeout,
            counts=Counts(),
            owns=self._responsibility.owns,
            status_metrics=status_metrics,
        )
        self._pool = Pool(self._name, self._queue)
        self._recorder = EventRecorder(client.live, source=self._name, clock=clock) if events is None else None
        self._binding = Binding(
            name=self._name,
            kind=kind,
            client=client if reconciler.permissions is None else self._declared(client, cache),
            events=events or self._recorder or EventRecorder(client.live, source=self._name),
            clock=clock,
            workers=self._workers,
            enqueue=self.enqueue,
            status_metrics=status_metrics,
            check_leader=check_leader,
        )
        bind(reconciler, self._binding)
        self._recording: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._listing: asyncio.Task[None] | None = None
        self._started = False
        self._stopping = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Return the controller's name."""
        return self._name

    @property
    def field_manager(self) -> str:
        """Return the name that its reconciles' writes are recorded under, unless a call or a client names another."""
        return self._binding.client.session.field_manager(self._name)

    @property
    def reconciler(self) -> Reconciler:
        """Return what it runs."""
        return self._reconciler

    @property
    def queue(self) -> WorkQueue[Request]:
        """Return the queue, for ``explain`` and ``statistics``."""
        return self._queue

    @property
    def access(self) -> Sequence[AccessRule]:
        """Return what it must be allowed to do; the manager makes roles of it."""
        return self._access

    async def warm_up(self) -> None:
        """Watch and queue without reconciling: for a replica that waits to be elected. `start` does it otherwise.

        Returns when the primary objects are listed; lists of other kinds may still be on the way. Called again, it
        waits for the first call. Cancellation leaves the watches to `stop`.

        Raises:
            CacheSyncTimeout: the primary kind was not served or could not be listed in time.
        """
        if self._warming is None:
            self._warming = asyncio.create_task(self._warm_up(), name=f"{self._name} warm-up")
        await _outcome(self._warming)

    async def start(self) -> None:
        """Start: watch, wait until every handler has heard of all that is there, then let the workers go.

        Returns without workers when `stop` is called meanwhile. Cancellation leaves it without workers; `stop` cleans
        up, after a failure as well.

        Raises:
            ControllerError: it was started before, or the reconciler runs for another controller by now.
            CacheSyncTimeout: a kind was not served or could not be listed in time.
        """
        if self._started or self._stopping.is_set():
            raise ControllerError(f"controller {self._name!r} starts once; make another one")
        self._started = True
        bind(self._reconciler, self._binding)  # again: another controller may have taken it meanwhile
        self._binding.loop = asyncio.get_running_loop()
        if self._recorder is not None:
            self._recording = asyncio.create_task(self._recorder.run(), name=f"{self._name} events")
        await self.warm_up()
        if not self._stopping.is_set():
            self._listing = asyncio.create_task(self._watching.synced(), name=f"{self._name} listing")
            await _outcome(self._listing)
        if self._stopping.is_set():
            return
        self._metrics.set_max_concurrent_reconciles(self._workers)
        deadlines: dict[Request, float] = {}
        reconcile = traced(self._reconcile, tracer())
        self._pool.start([Worker(self._bench, reconcile, deadlines) for _ in range(self._workers)])

    async def stop(self, *, grace: float = 30.0) -> None:
        """Stop: accept no more events, finish what is ready or in progress during the grace period, cancel the rest.

        Returns when every reconcile, thread and flush has ended, however long that takes. It does nothing when the
        controller was not started; called again, it waits for the first call. Cancellation of any call ends the grace
        period at once, and is raised when the reconciles have ended. Cancelled a second time, it is raised at once,
        threads that have not ended are abandoned (see `abandon`), and the stop goes on by itself.

        Args:
            grace: seconds; 0 cancels at once. Default 30.
        """
        if self._ending is None:
            self._stopping.set()
            self._ending = asyncio.create_task(self._end(grace), name=f"{self._name} stop")
        try:
            await asyncio.shield(self._ending)
        except asyncio.CancelledError:
            self._pool.hurry()
            try:
                await asyncio.wait({self._ending})
            except asyncio.CancelledError:
                self.abandon()
                raise
            raise

    def abandon(self) -> None:
        """End the waiting of `stop` for threads that do not end, and log their keys.

        A thread cannot be killed: it goes on until it, or the process, ends. It is a daemon, so that Python does not
        join it. Its next `Reconciler.wait` raises `ReconcileCancelled`.
        """
        if self._binding.threads.abandon():
            _log.error(
                "%s gave up waiting for the threads of the reconciles of %s: they hang, and end with the process",
                self._name,
                self._pool.in_progress(),
            )

    async def run(self, *, grace: float = 30.0) -> None:
        """Start, and work until `stop` is called or a worker fails.

        Cancellation stops the controller, with the grace, and is raised afterwards.

        Args:
            grace: seconds that reconciles have to end, when it is cancelled or fails.

        Raises:
            ControllerError, CacheSyncTimeout: as `start`.
        """
        try:
            await self.start()
            await self.finished()
        finally:
            await self.stop(grace=grace)

    async def finished(self) -> None:
        """Wait until the workers have ended because of `stop`. Cancellation changes nothing.

        Raises:
            BaseException: what ended a worker otherwise: what a reconcile raised and is no exception, such as
                `SystemExit` or the outcome of ``pytest.fail``. What a source raised, and what a mapper raised that is
                no exception.
        """
        await self._pool.finished([*self._sources.tasks, *self._watching.tasks])

    def enqueue(self, request: Request, reason: str = "", *, after: float | None = None, priority: int = 0) -> None:
        """Enqueue a key for a reason of your own, whatever versions were observed. May be called from any thread.

        Args:
            request: the key.
            reason: what logs and metrics show, after the word ``enqueue``. Default: the word alone.
            after: seconds; None is now.
            priority: higher ones run first. Default 0.
        """
        told = reasons.detailed(reasons.ENQUEUE, reason)
        self._queue.add(request, after=after, priority=priority, reason=told)

    def statistics(self) -> ControllerStatistics:
        """Return the counts at this moment; may be called from any thread."""
        counts = self._bench.counts
        return ControllerStatistics(
            name=self._name,
            workers=self._workers,
            active=counts.active,
            reconciles=counts.reconciles,
            results=Counter(counts.results),
            terminal_errors=counts.terminal,
            timeouts=counts.timed_out,
            panics=counts.panicked,
            cancelled=counts.cancelled,
            storms=self._storm.storms,
            echo=self._tracker.statistics(),
            unsaved=self._unsaved.statistics(),
            mapper_errors=sum(mapping.errors for mapping in self._watching.mappings),
            mapper_pending=sum(mapping.pending for mapping in self._watching.mappings),
            unmapped=sum(mapping.dropped for mapping in self._watching.mappings),
            queue=self._queue.statistics(),
        )

    async def _end(self, grace: float) -> None:
        # A source or mapper that does not end must not keep the workers working, so nothing is awaited before the pool.
        quiet = asyncio.create_task(self._end_events(), name=f"{self._name} events end")
        try:
            await self._pool.stop(grace)
            await quiet
        finally:
            self._binding.close()
            if self._recorder is not None:
                await self._recorder.close()
            if self._recording is not None:
                await asyncio.wait({self._recording})

    async def _end_events(self) -> None:
        for task in (self._warming, self._listing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await self._sources.stop()
        await self._watching.end()

    async def _reconcile(self, request: Request) -> object:
        if not await self._responsibility.admits(request):
            self._tracker.forget(request)
            self._unsaved.forget(request)
            return None
        cycle, stored = current_cycle.get(), self._watching.stored(request)
        if isinstance(cycle, ReconcileCycle) and stored is not None:
            cycle.start(stored.uid, stored.version)
        return await call(self._reconciler, self._reconciler.reconcile, request)

    async def _warm_up(self) -> None:
        primary = self._binding.resource = await self._watching.begin()
        self._sources.start(primary)

    def _warn(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        self._binding.events.warning(obj, reason, message)

    def _declared(self, client: CachedClient, cache: Cache) -> CachedClient:
        name = type(self._reconciler).__name__
        return CachedClient(client.live.through(lambda sends: Declared(sends, name=name, rules=self._access)), cache)


async def _outcome(task: asyncio.Task[None]) -> None:
    """Wait for a task that `stop` may cancel, which is no cancellation of the caller."""
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
