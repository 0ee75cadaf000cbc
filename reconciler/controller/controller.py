"""`Controller`: connects informers to handlers, handlers to the queue, and the queue to workers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.user_code import cancel_and_wait
from reconciler.cache import CachedClient, CachedObject
from reconciler.clock import Clock, current_clock
from reconciler.controller.observers import ControllerMetrics, Observers, additional_observers
from reconciler.controller.options import ControllerOptions, checked_options, required_permissions
from reconciler.controller.permissions import AccessRule, PermissionCheck, access_rules
from reconciler.controller.reconcile.cycle import UnsavedStatistics, UnsavedStore
from reconciler.controller.reconcile.explanation import (
    EndedReconcile,
    KeyExplanation,
    ObjectHealth,
    RunHistory,
    explain_key,
)
from reconciler.controller.reconcile.reports import FailureEvents, FailureLog, Outcomes, Spans
from reconciler.controller.reconcile.threads import ReconcileThreads
from reconciler.controller.reconcile.watchdogs import RunningReconciles, TightLoops
from reconciler.controller.reconcile.worker import AgainLimiter, Worker, WorkerPool
from reconciler.controller.reconcile.writes import LatencyObserver, OwnChanges, Ownership, OwnershipGate
from reconciler.controller.reconciler import ControllerBinding, Reconciler, bind
from reconciler.controller.result import ControllerError
from reconciler.controller.wake import reasons
from reconciler.controller.wake.change import ChangeLog
from reconciler.controller.wake.echo import EchoStatistics, EchoTracker
from reconciler.controller.wake.handlers import ControllerState, PrimaryHandler, WatchedInformers, reference_to
from reconciler.controller.wake.predicates import ShardFilter, Unsharded
from reconciler.controller.wake.watches import Watch, start_sources
from reconciler.errors import describe_error
from reconciler.events import EventRecorder
from reconciler.meta import Request
from reconciler.meta.metadata import ResourceType
from reconciler.objects.kinds import gvk_from
from reconciler.status.recording import StatusMetrics
from reconciler.status.strategies import STRATEGIES, FlushPolicy
from reconciler.telemetry.tracing import tracer
from reconciler.workqueue import QueueMetrics, QueueStatistics, WorkQueue
from reconciler.workqueue.concurrency_limit import ConcurrencyLimit

if TYPE_CHECKING:
    from reconciler.cache import Cache

_log = logging.getLogger("reconciler.controller")

_WAITING_EVENTS = 10_000
"""Events that may wait. They are sent one after the other, so a burst of changes fills the queue: client-go's 1000
lose most Events of a burst of a few thousand objects."""


@dataclass(frozen=True, slots=True)
class ControllerStatistics:
    """The counters of a controller since it was created.

    Attributes:
        name: the controller's name.
        workers: the highest number of concurrent reconciles.
        active: reconciles in progress.
        reconciles: reconciles that ended; one that a shutdown cancelled counts in `cancelled` only.
        results: how many ended with each of ``success``, ``error``, ``requeue``, ``requeue_after``.
        reasons: how many had each reason, without its detail; one with several reasons counts for each.
        terminal_errors: how many ended with a `TerminalError`.
        timeouts: how many did not end in time.
        panics: how many ended with a cancellation that did not come from the controller.
        cancelled: how many a shutdown cancelled.
        storms: how many tight loops were found.
        echo: the counters of the echo rule.
        unsaved: the counters of status mutations that wait for a later reconcile.
        mapper_errors: calls of mappers that failed or took too long.
        mapper_pending: versions of watched objects that wait for their mapper, or for a retry.
        unmapped: versions of watched objects that were given up, so that their keys were not enqueued: the mapper
            failed for ten minutes on a deleted object, or too many waited for it.
        queue: the statistics of the queue.
    """

    name: str
    workers: int
    active: int
    reconciles: int
    results: Counter[str]
    reasons: Counter[str]
    terminal_errors: int
    timeouts: int
    panics: int
    cancelled: int
    storms: int
    echo: EchoStatistics
    unsaved: UnsavedStatistics
    mapper_errors: int
    mapper_pending: int
    unmapped: int
    queue: QueueStatistics

    @property
    def low_priority_workers(self) -> int:
        """The highest number of concurrent reconciles of low priority: `workers`, or fewer for a slow API server."""
        return self.workers if self.queue.low_limit is None else self.queue.low_limit


class Controller:
    """A controller: runs a reconciler for the objects of one kind, and for changes that concern them.

    ``Manager.add_controller`` creates it; you can also use it alone, with a started `Cache`. It can be started once.

    Args:
        reconciler: the reconciler; it belongs to this controller from now on.
        cache: provides the informers; its creator starts it.
        client: reads from `cache`; the reconciler's ``self.client``.
        clock: source of time. Default: the current clock.
        metrics: receives the duration of each reconcile. Default: none; `statistics` works anyway.
        queue_metrics: receives the durations of the queue. Default: none.
        status_metrics: receives each flush of the reconciles' batchers. Default: none.
        events: records Kubernetes events; its creator runs it. Default: a recorder of the controller.
        check_leader: raises unless this process may act, for `Reconciler.check_leader`. Default: it always may.
        shard_filter: decides which keys this process reconciles. Default: all.
        options: see `ControllerOptions`.

    Attributes:
        name: the controller's name.
        kind: the kind of the primary objects.
        kinds: that kind and the other kinds that are watched, as they were given.
        reconciler: the reconciler.
        queue: the queue, for ``explain`` and ``statistics``.
        access: the permissions that it needs; the manager makes roles of them.
        history: the latest reconciles of the keys.
        tight_loops: the keys that are reconciled again and again.
        health: which objects are not healthy.

    Raises:
        ConfigurationError: an option is invalid; the message says which, and why.
        ControllerError: the reconciler belongs to another running controller.
        TypeError: a keyword is not an option.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        cache: Cache,
        client: CachedClient,
        clock: Clock | None = None,
        metrics: ControllerMetrics | None = None,
        queue_metrics: QueueMetrics | None = None,
        status_metrics: StatusMetrics | None = None,
        events: EventRecorder | None = None,
        check_leader: Callable[[], None] | None = None,
        shard_filter: ShardFilter | None = None,
        **options: Unpack[ControllerOptions],
    ) -> None:
        checked = checked_options(reconciler, options)
        clock = clock or current_clock()
        self.name = checked.name
        self.kinds = (checked.kind, *(watch.kind for watch in checked.watches))
        self.reconciler = reconciler
        self._shard_filter = shard_filter or Unsharded()
        self._metrics = metrics
        limiter = AgainLimiter(checked.rate_limiter)
        low_limit = ConcurrencyLimit(checked.workers, clock=clock) if checked.adaptive_concurrency else None
        self.queue: WorkQueue[Request] = WorkQueue(
            name=self.name,
            rate_limiter=limiter,
            clock=clock,
            metrics=queue_metrics,
            fair_by=None if type(reconciler).fair_by is Reconciler.fair_by else reconciler.fair_by,
            low_limit=low_limit,
        )
        gvk = self.kind = gvk_from(checked.kind)
        self.access: Sequence[AccessRule] = access_rules(
            [*required_permissions(reconciler, checked), *self._shard_filter.permissions]
        )
        self._ownership = Ownership(gvk, client, self._shard_filter.matches)
        client = self._checked_client(client, cache, checked.watches)
        if low_limit is not None:
            client = client.through(lambda transport: LatencyObserver(transport, low_limit, clock))
        rng = client.live.session.connection.rng
        events_to = events or EventRecorder(
            client.live, source=self.name, clock=clock, rng=rng, queue_size=_WAITING_EVENTS
        )
        self._event_recorder = events_to if events is None else None  # the controller runs its own only
        for observer in additional_observers():
            client = observer.client(client)
        self._binding = ControllerBinding(
            name=self.name,
            kind=checked.kind,
            client=client,
            events=events_to,
            clock=clock,
            workers=checked.workers,
            threads=ReconcileThreads(checked.workers, f"{self.name}-reconcile"),
            enqueue=self.enqueue,
            policy=FlushPolicy(
                strategy=STRATEGIES[checked.strategy],
                subresource=checked.subresource,
                clock=clock,
                rng=rng,
                typed=checked.kind if isinstance(checked.kind, type) else dict,
                on_error=getattr(reconciler, "status_on_error", "flush"),
            ),
            check_leader=check_leader,
        )
        self._unsaved = UnsavedStore()
        self._outcomes = Outcomes(metrics)
        self.history = RunHistory(self.queue.__contains__, clock)
        changes = ChangeLog(gvk, clock)
        self.tight_loops = TightLoops(clock)
        warn = self._warn_of if checked.failure_events else None
        self._running = RunningReconciles(warn, clock, checked.stuck_after)
        observers = Observers(
            [
                FailureLog(clock=clock, blocked=self._unsaved.blocks),
                *([FailureEvents(gvk, events=events_to, stored=self._stored, clock=clock)] * checked.failure_events),
                *(() if (found := tracer()) is None else [Spans(found)]),
                self._outcomes,
                changes,
                self.tight_loops,
                self._running,
                self.history,
                *additional_observers(),
            ]
        )
        self._tracker: EchoTracker[Request] = EchoTracker(
            own_writes=not checked.wake_on_own_status, on_echo=observers.echo
        )
        self._state = ControllerState(
            gvk=gvk,
            options=checked,
            cache=cache,
            queue=self.queue,
            limiter=limiter,
            tracker=self._tracker,
            unsaved=self._unsaved,
            observers=observers,
            shard_filter=self._shard_filter,
            clock=clock,
            events=events_to,
            status_metrics=status_metrics,
            threads=self._binding.threads,
            history=self.history,
            changes=changes,
            running=self._running,
        )
        handler = PrimaryHandler(self._state, checked.predicates)
        self._informers = WatchedInformers(self._state, checked.watches, handler)
        ready_condition = getattr(reconciler, "ready_condition", None)
        self.health = ObjectHealth(self._stored, self._informers.objects, ready_condition)
        self._sources: list[asyncio.Task[None]] = []  # of the running sources
        self._pool = WorkerPool(self.name, self.queue)
        bind(reconciler, self._binding)
        if metrics is not None:
            metrics.watch(self.statistics)
        self._recording: asyncio.Task[None] | None = None
        self._warming_up: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._started = False
        self._stopping = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @property
    def resource(self) -> ResourceType | None:
        """Return how the kind is served; None until the primary objects are listed."""
        return self._binding.resource

    @property
    def field_manager(self) -> str:
        """Return the field manager of its reconciles' writes, unless a call or a client names another."""
        return self._binding.client.session.field_manager(self.name)

    async def warm_up(self) -> None:
        """Watch and enqueue without reconciling, for a replica that waits to be elected; part of `start` otherwise.

        Returns when the primary objects are listed; other kinds may still be listing. Called again, it waits for the
        first call. Cancellation leaves the watches running until `stop`.

        Raises:
            CacheSyncTimeout: the primary kind was not served or could not be listed in time.
        """
        if self._warming_up is None:
            self._warming_up = asyncio.create_task(self._warm_up(), name=f"{self.name} warm-up")
        await _result_of(self._warming_up)

    async def start(self) -> None:
        """Start: watch, wait until every handler has received all existing objects, then start the workers.

        Returns without workers if `stop` is called in between. Cancellation leaves it without workers; call `stop` to
        clean up, after a failure as well.

        Raises:
            ControllerError: it was started before, or the reconciler now belongs to another running controller.
            CacheSyncTimeout: a kind was not served or could not be listed in time.
        """
        if self._started or self._stopping.is_set():
            raise ControllerError(f"controller {self.name!r} was already started; create a new one")
        self._started = True
        bind(self.reconciler, self._binding)  # again: another controller may have been created with it since
        self._binding.loop = asyncio.get_running_loop()
        if self._event_recorder is not None:
            self._recording = asyncio.create_task(self._event_recorder.run(), name=f"{self.name} events")
        await self.warm_up()
        if not self._stopping.is_set():
            self._syncing = asyncio.create_task(self._informers.wait_synced(), name=f"{self.name} sync")
            await _result_of(self._syncing)
        if self._stopping.is_set():
            return
        override = self.reconciler.reconcile
        self._pool.start([Worker(self._state, override, self._ownership) for _ in range(self._state.options.workers)])

    async def stop(self, *, grace: DurationLike = 30.0) -> None:
        """Stop: ignore new events, process what is ready or in progress for the grace period, cancel the rest.

        Returns when every reconcile, thread and flush has ended, however long that takes. Without effect if the
        controller was not started; called again, it waits for the first call. Cancellation of any call ends the grace
        period at once, and is raised when the reconciles have ended. A second cancellation is raised at once: threads
        that have not ended are abandoned (see `abandon`), and the stop continues by itself.

        A reconcile of this controller must not await it, since it waits for the reconcile; call `Manager.stop` there.

        Args:
            grace: a duration: seconds, a timedelta or ``"30s"``; 0 cancels at once. Default 30 s.
        """
        if self._ending is None:
            self._stopping.set()
            self._ending = asyncio.create_task(
                self._end(seconds_of("grace", grace, zero=True)), name=f"{self.name} stop"
            )
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
        """Make `stop` no longer wait for threads that do not end, and log their keys.

        A thread cannot be killed: it continues until it, or the process, ends. It is a daemon, so Python does not join
        it. Its next `Reconciler.wait` raises `ReconcileCancelled`.
        """
        if self._binding.threads.abandon():
            _log.error(
                "%s gave up waiting for the threads of the reconciles of %s: they hang, and end with the process",
                self.name,
                self._pool.in_progress(),
            )

    async def run(self, *, grace: DurationLike = 30.0) -> None:
        """Start, and work until `stop` is called or a worker fails.

        Cancellation stops the controller, with the grace period, and is raised afterwards.

        Args:
            grace: the duration that reconciles have to end, when it is cancelled or fails.

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
            BaseException: what ended a worker: a BaseException of a reconcile or a mapper that is not an Exception,
                such as `SystemExit` or the outcome of ``pytest.fail``; any exception of a source.
        """
        await self._pool.finished([*self._sources, *self._informers.tasks])

    def enqueue(
        self, request: Request, reason: str = "", *, after: DurationLike | None = None, priority: int = 0
    ) -> None:
        """Enqueue a key, whatever versions were observed. Thread-safe.

        Args:
            request: the key.
            reason: shown in logs and metrics, after the word ``enqueue``. Default: the word alone.
            after: seconds; None is now.
            priority: keys with a higher one come first. Default 0.

        Raises:
            TypeError: it is not a Request, the delay is not a number, or the priority is not an integer.
            ValueError: the delay is not finite.
        """
        if not isinstance(request, Request):
            raise TypeError(f"enqueue takes a Request(name, namespace), not {request!r}")
        self.queue.add(request, after=after, priority=priority, reason=reasons.detailed(reasons.ENQUEUE, reason))

    def statistics(self) -> ControllerStatistics:
        """Return the current counters. Thread-safe."""
        outcomes, mapper_queues = self._outcomes, self._informers.mapper_queues
        queue = self.queue.statistics()
        return ControllerStatistics(
            name=self.name,
            workers=self._state.options.workers,
            active=queue.in_progress,
            reconciles=outcomes.reconciles,
            results=Counter(outcomes.results),
            reasons=Counter(outcomes.reasons),
            terminal_errors=outcomes.terminal,
            timeouts=outcomes.timed_out,
            panics=outcomes.panicked,
            cancelled=outcomes.cancelled,
            storms=self.tight_loops.storms,
            echo=self._tracker.statistics(),
            unsaved=self._unsaved.statistics(),
            mapper_errors=sum(each.errors for each in mapper_queues),
            mapper_pending=sum(each.pending for each in mapper_queues),
            unmapped=sum(each.dropped for each in mapper_queues),
            queue=queue,
        )

    def explain(self, request: Request, *, rows: Sequence[EndedReconcile] | None = None) -> KeyExplanation:
        """Return the explanation of a key: its state, its latest reconciles, and what it waits for.

        The latest ten reconciles of each key are remembered, up to 10,000 of all keys; those of idle keys are dropped
        first. The changes that enqueued a key are remembered for its latest three reconciles, up to 1 MiB of documents
        of all keys. Error messages are without the values that the API server or a model rejected.

        Call it on the controller's event loop.

        Args:
            request: the key.
            rows: the reconciles of `history` to explain. Default: all of the key, which reads the history.
        """
        started = self._pool.started
        return explain_key(self._state, request, waits_of=self._waits_of, started=started, rows=rows)

    @property
    def stuck_after(self) -> float | None:
        """Return the seconds after which a reconcile in progress counts as stuck; None for never."""
        return self._running.stuck_after

    def _checked_client(self, client: CachedClient, cache: Cache, watches: Sequence[Watch]) -> CachedClient:
        """Return the client of the reconciler and of the controller's Events."""
        name = type(self.reconciler).__name__
        if self._shard_filter.sharded:
            client = client.through(lambda transport: OwnershipGate(transport, self._ownership))
        if self.reconciler.permissions is not None:
            client = client.through(lambda transport: PermissionCheck(transport, name=name, rules=self.access))
        if watches:
            client = CachedClient(client.live, cache)
            client.session = client.session.observed_by(OwnChanges(cache))
        return client

    def _warn_of(self, request: Request, reason: str, message: str) -> None:
        if (stored := self._stored(request)) is not None:
            self._binding.events.warning(reference_to(self.kind, stored), reason, message)

    def _waits_of(self, request: Request) -> str | None:
        try:
            return self.reconciler.waits_for(request)
        except Exception as error:  # noqa: BLE001 - of an override; the rest of the explanation is right
            return f"{type(self.reconciler).__name__}.waits_for failed: {describe_error(error)}"

    def _stored(self, request: Request) -> CachedObject | None:
        return self._state.stored(request)

    async def _warm_up(self) -> None:
        primary = self._binding.resource = await self._informers.connect()
        self._sources = start_sources(self.name, self._state.options.sources, self.queue, primary)

    async def _end(self, grace: float) -> None:
        # A source or mapper that does not end must not keep the workers working, so nothing is awaited before the pool.
        disconnecting = asyncio.create_task(self._disconnect(), name=f"{self.name} disconnect")
        try:
            await self._pool.stop(grace)
            await disconnecting
        finally:
            self._binding.close()
            self._running.stop()
            if self._metrics is not None:  # they outlive the controller and must not keep it
                last = self.statistics()
                self._metrics.watch(lambda: last)
            if self._event_recorder is not None:
                await self._event_recorder.close()
            if self._recording is not None:
                await asyncio.wait({self._recording})

    async def _disconnect(self) -> None:
        await cancel_and_wait([self._warming_up])
        await cancel_and_wait([self._syncing])
        await cancel_and_wait(self._sources)
        await self._informers.disconnect()


async def _result_of(task: asyncio.Task[None]) -> None:
    """Wait for a task and raise its error. If `stop` cancelled the task, the caller is not cancelled."""
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
