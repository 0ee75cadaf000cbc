"""The workers of a controller: each takes a key from the queue, reconciles it, and acts on the outcome.

The echo rule depends on the order at the end of a reconcile, and nothing comes between its steps. First the observed
version rises, and the key is enqueued if an event that was held is newer. Then the outcome sets the key's timer or
backoff. Then the key is done.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from reconciler._core.backoff import longest_retry_after, retry_after_delay
from reconciler._core.cancellation import FAILURES, is_cancelled
from reconciler._core.cycle import current_cycle
from reconciler._core.hooks import log_metrics_failure, report
from reconciler.cache import CachedObject
from reconciler.clock import Clock
from reconciler.controller.changes.log import ChangeLog
from reconciler.controller.errors import ControllerError
from reconciler.controller.metrics import ControllerMetrics
from reconciler.controller.reconcile.again import AgainLimiter
from reconciler.controller.reconcile.cycle import CycleContext, ReconcileCycle, ReconcileRun
from reconciler.controller.reconcile.failure_events import FailureEvents
from reconciler.controller.reconcile.failure_log import FailureLog
from reconciler.controller.reconcile.history import RunHistory
from reconciler.controller.reconcile.outcome import Completion, run_to_completion
from reconciler.controller.reconcile.storm import Storm, StormAlarm
from reconciler.controller.reconcile.unsaved import UnsavedStore
from reconciler.controller.wake import reasons
from reconciler.controller.wake.echo import EchoTracker
from reconciler.meta import GroupVersionKind, Request
from reconciler.status import StatusMetrics
from reconciler.workqueue import QueueShutDown, WorkQueue

__all__ = ["Reconcile", "Worker", "WorkerCounters", "WorkerState"]

_log = logging.getLogger("reconciler.controller")

Reconcile = Callable[[ReconcileCycle], Awaitable[object]]
"""Runs one reconcile and returns its outcome."""


class WorkerCounters:
    """Counters of the workers since the start: plain integers, read by `Controller.statistics`."""

    def __init__(self) -> None:
        self.reconciles = 0
        self.results: Counter[str] = Counter()
        self.terminal = 0
        self.timed_out = 0
        self.panicked = 0
        self.cancelled = 0

    def add(self, completion: Completion) -> None:
        """Count a reconcile that ended."""
        self.reconciles += 1
        self.results[completion.result] += 1
        self.terminal += completion.terminal
        self.timed_out += completion.timed_out
        self.panicked += completion.panicked


class WorkerState(NamedTuple):
    """State shared by a controller's workers.

    Attributes:
        name: the controller's name.
        gvk: the primary kind.
        queue: the controller's queue.
        limiter: the queue's rate limiter.
        tracker: its echo tracker.
        unsaved: its store of unsaved mutations.
        stored: returns the primary object of a key in the informer's store, or None.
        history: the latest reconciles of each key.
        changes: the changes that enqueued each key.
        storm: detects tight loops.
        failures: records Events about failures.
        metrics: receives every reconcile.
        clock: source of time.
        timeout: seconds per reconcile, or None.
        counters: for the controller's statistics.
        deadlines: for each key the monotonic second of the latest `requeue_after`.
        status_metrics: receives each flush of a reconcile's batchers, or None.
        matches: returns whether an object with these labels belongs to this process; see `ShardFilter`.
        failure_log: logs failed reconciles.
    """

    name: str
    gvk: GroupVersionKind
    queue: WorkQueue[Request]
    limiter: AgainLimiter
    tracker: EchoTracker[Request]
    unsaved: UnsavedStore
    stored: Callable[[Request], CachedObject | None]
    history: RunHistory
    changes: ChangeLog
    storm: StormAlarm[Request]
    failures: FailureEvents
    metrics: ControllerMetrics
    clock: Clock
    timeout: float | None
    counters: WorkerCounters
    deadlines: dict[Request, float]
    status_metrics: StatusMetrics | None
    matches: Callable[[Mapping[str, str]], bool]
    failure_log: FailureLog


class Worker:
    """A worker, which reconciles one key after the other.

    Args:
        state: shared with the controller's other workers.
        reconcile: runs one reconcile.
    """

    def __init__(self, state: WorkerState, reconcile: Reconcile) -> None:
        self._state = state
        self._reconcile = reconcile
        queue = state.queue
        self._context = CycleContext(
            state.gvk,
            state.tracker,
            state.unsaved,
            asyncio.get_running_loop(),
            stopping=lambda: queue.shutting_down,
            matches=state.matches,
            status_metrics=state.status_metrics,
        )

    async def work(self) -> None:
        """Work until the queue is shut down.

        Cancellation cancels the reconcile in progress and is raised when that has ended and its key is done.
        """
        queue = self._state.queue
        while True:
            try:
                key = await queue.get()
            except QueueShutDown:
                return
            try:
                await self._process(key)
            finally:
                queue.done(key)

    async def _process(self, key: Request) -> None:
        cycle = self._begin(key)
        completion: Completion | None = None
        try:
            completion = await self._run(cycle)
        except asyncio.CancelledError:
            self._state.counters.cancelled += 1  # by the shutdown, which is not an error and requeues nothing
            raise
        finally:
            self._end(cycle, completion)

    def _begin(self, key: Request) -> ReconcileCycle:
        state = self._state
        queued = state.queue.in_progress(key)
        assert queued is not None  # noqa: S101 - `get` has just returned it
        state.tracker.begin(key)
        run = ReconcileRun(
            controller=state.name,
            request=key,
            reasons=queued.reasons,
            attempt=state.limiter.retries(key),
            priority=queued.priority,
            since=queued.since,
        )
        caused = state.storm.changing.pop(key, None) is not None
        self._report_storm(run, state.storm.note(key, run.reasons, by_timer=queued.by_timer, caused=caused))
        return ReconcileCycle(self._context, run, state.changes.begin(key))

    async def _run(self, cycle: ReconcileCycle) -> Completion:
        # A task and a context per reconcile: changes of context variables, or of the task's cancellation, cannot reach
        # the next key.
        context = contextvars.copy_context()
        context.run(current_cycle.set, cycle)
        task = asyncio.get_running_loop().create_task(
            run_to_completion(self._reconcile, cycle, timeout=self._state.timeout),
            name=f"reconcile {self._state.name} {cycle.request}",
            context=context,
        )
        try:
            return await task
        except asyncio.CancelledError as cancellation:
            if is_cancelled():
                raise
            error = ControllerError(
                "the reconcile was cancelled, but not by the controller: something that it awaited was cancelled"
            )
            error.__cause__ = cancellation
            return Completion(error=error, panicked=True)

    def _end(self, cycle: ReconcileCycle, completion: Completion | None) -> None:
        cycle.end()
        if cycle.changed_others:
            self._state.storm.record_change(cycle.request)
        seconds = self._state.clock.monotonic() - cycle.run.since
        self._state.history.record(cycle, seconds, completion)
        if cycle.changes is not None:
            self._state.changes.end(cycle.request)
        self._finish_echo(cycle.request)
        if completion is not None:
            self._report(cycle.run, completion, seconds)
            if completion.error is not None or self._state.failures.failing:
                self._state.failures.note(cycle.request, completion, uid=cycle.uid)
            self._requeue(cycle.run, completion)

    def _finish_echo(self, key: Request) -> None:
        state = self._state
        wake = state.tracker.finish(key)
        if wake is not None:
            state.history.record_overtaken()
            for event in wake.events:
                state.changes.note(key, state.gvk, event)
            after = None if wake.due is None else wake.due - state.clock.monotonic()
            state.queue.add(key, after=after, priority=wake.priority, reason=reasons.EVENT)
        stored = state.stored(key)
        if stored is None:  # no event would remove what is known of it
            state.tracker.forget(key)
        state.unsaved.retain(key, None if stored is None else stored.uid)

    def _requeue(self, run: ReconcileRun, completion: Completion) -> None:
        queue, key, outcome = self._state.queue, run.request, completion.outcome
        priority = run.priority if outcome is None or outcome.priority is None else outcome.priority
        if completion.error is not None and not completion.terminal:
            at_least = retry_after_delay(longest_retry_after(completion.error))
            queue.add_rate_limited(key, priority=priority, reason=reasons.RETRY, at_least=at_least)
            self._restore_timer(key, priority)
            return
        self._state.deadlines.pop(key, None)
        if outcome is not None and outcome.again:
            if not queue.shutting_down:  # like a delay, it is left to the next process, which reconciles every key
                after = self._state.limiter.again(key, duplicate=bool(queue.reasons(key)))
                queue.add(key, after=after, priority=priority, reason=reasons.AGAIN)
                self._report_storm(run, self._state.storm.note_steps(key, self._state.limiter.steps(key)))
            return
        queue.forget(key)
        if outcome is not None and outcome.requeue_after is not None:
            self._state.deadlines[key] = self._state.clock.monotonic() + outcome.requeue_after
            queue.add(key, after=outcome.requeue_after, priority=priority, reason=reasons.REQUEUE_AFTER)

    def _restore_timer(self, key: Request, priority: int) -> None:
        """Set the timer of an earlier outcome again, which this failed reconcile cleared and did not replace."""
        remaining = self._state.deadlines.get(key, 0.0) - self._state.clock.monotonic()
        if remaining > 0:
            self._state.queue.add(key, after=remaining, priority=priority, reason=reasons.REQUEUE_AFTER)
        else:
            self._state.deadlines.pop(key, None)

    def _report_storm(self, run: ReconcileRun, storm: Storm[Request] | None) -> None:
        if storm is None:
            return
        report(self._state.metrics.storm)
        if storm.logged:
            _log.warning("%s reconciles in a tight loop: %s", run.controller, storm, extra=run.log_fields())

    def _report(self, run: ReconcileRun, completion: Completion, seconds: float) -> None:
        state = self._state
        state.counters.add(completion)
        try:
            state.metrics.reconciled(
                completion.result,
                seconds,
                reasons.words(run.reasons),
                terminal=completion.terminal,
                timed_out=completion.timed_out,
                panicked=completion.panicked,
            )
        except FAILURES:
            log_metrics_failure(state.metrics.reconciled)
        if completion.error is not None:
            state.failure_log.report(run, completion)
            return
        state.failure_log.forget(run.request)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("reconciled in %.3f s: %s", seconds, completion.outcome, extra=run.log_fields())
