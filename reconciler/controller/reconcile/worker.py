"""Take keys in hand, reconcile them, and do with each what its outcome says.

The echo rule depends on the order at the end of a reconcile, and nothing comes between its steps. First the observed
version rises, and the key is enqueued if an event that was held is newer. Then the outcome sets the key's timer or
backoff. Then the key is given back.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from reconciler.backoff import longest_retry_after, retry_after_delay
from reconciler.cache import CachedObject
from reconciler.clock import Clock
from reconciler.controller.errors import ControllerError
from reconciler.controller.metrics import ControllerMetrics
from reconciler.controller.reconcile.cycle import ReconcileCycle, ReconcileRun
from reconciler.controller.reconcile.outcome import Verdict, judge
from reconciler.controller.reconcile.storm import StormAlarm
from reconciler.controller.reconcile.unsaved import UnsavedStore
from reconciler.controller.wake import reasons
from reconciler.controller.wake.echo import EchoTracker
from reconciler.errors import error_text
from reconciler.meta import GroupVersionKind, Request, current_cycle
from reconciler.status import StatusMetrics
from reconciler.workqueue import QueueShutDown, WorkQueue

__all__ = ["Counts", "Workbench", "Worker"]

_log = logging.getLogger("reconciler.controller")

_RNG = random.Random()  # noqa: S311 - ids for logs, which need not be hard to guess; the system is asked once, at import
if hasattr(os, "register_at_fork"):  # or each child would give the same ones
    os.register_at_fork(after_in_child=_RNG.seed)


class Counts:
    """Count what the workers did since the start. Plain integers, read by `Controller.statistics`."""

    def __init__(self) -> None:
        self.reconciles = 0
        self.results: Counter[str] = Counter()
        self.terminal = 0
        self.timed_out = 0
        self.panicked = 0
        self.cancelled = 0
        self.active = 0

    def add(self, verdict: Verdict) -> None:
        """Count a reconcile that ended."""
        self.reconciles += 1
        self.results[verdict.result] += 1
        self.terminal += verdict.terminal
        self.timed_out += verdict.timed_out
        self.panicked += verdict.panicked


class Workbench(NamedTuple):
    """Hold what the workers of a controller share.

    Attributes:
        name: the controller's name.
        gvk: the primary kind.
        queue: the controller's queue.
        tracker: its echo tracker.
        unsaved: its store of unsaved mutations.
        stored: returns the primary object of a key as the informer's store holds it, or None.
        storm: notices tight loops.
        metrics: hears of every reconcile.
        clock: source of time.
        timeout: seconds per reconcile, or None.
        counts: what statistics show.
        status_metrics: hears of each flush of a cycle's batchers, or None.
        owns: says of an object's labels whether it is this process's.
    """

    name: str
    gvk: GroupVersionKind
    queue: WorkQueue[Request]
    tracker: EchoTracker[Request]
    unsaved: UnsavedStore
    stored: Callable[[Request], CachedObject | None]
    storm: StormAlarm[Request]
    metrics: ControllerMetrics
    clock: Clock
    timeout: float | None
    counts: Counts
    status_metrics: StatusMetrics | None = None
    owns: Callable[[Mapping[str, str]], bool] = lambda _: True


class Worker:
    """Reconcile one key after the other.

    Args:
        bench: shared with the controller's other workers.
        reconcile: the reconciler's entry.
        deadlines: for each key the monotonic second that its latest outcome asked for; shared with the other workers.
    """

    def __init__(
        self, bench: Workbench, reconcile: Callable[[Request], Awaitable[object]], deadlines: dict[Request, float]
    ) -> None:
        self._bench = bench
        self._reconcile = reconcile
        self._deadlines = deadlines

    async def work(self) -> None:
        """Work until the queue is shut down.

        Cancellation cancels the reconcile in progress and is raised when that has ended, its key given back.
        """
        queue = self._bench.queue
        while True:
            try:
                key = await queue.get()
            except QueueShutDown:
                return
            await self._cycle(key)

    async def _cycle(self, key: Request) -> None:
        try:
            cycle = self._begin(key)
            verdict: Verdict | None = None
            try:
                verdict = await self._run(cycle)
            except asyncio.CancelledError:
                self._bench.counts.cancelled += 1  # by the shutdown, which is no error and asks for no other run
                raise
            finally:
                self._end(cycle, verdict)
        finally:
            self._bench.queue.done(key)

    def _begin(self, key: Request) -> ReconcileCycle:
        bench = self._bench
        handed = bench.queue.run_of(key)
        assert handed is not None  # noqa: S101 - it was handed out a moment ago
        bench.tracker.hand_out(key)
        run = ReconcileRun(
            controller=bench.name,
            request=key,
            reconcile_id=_new_id(),
            reasons=handed.reasons,
            attempt=bench.queue.retries(key),
            priority=handed.priority,
            since=handed.since,
        )
        self._watch_for_storm(run)
        self._set_active(+1)
        return ReconcileCycle(
            bench.gvk,
            run,
            tracker=bench.tracker,
            unsaved=bench.unsaved,
            stopping=lambda: bench.queue.shutting_down,
            owns=bench.owns,
            status_metrics=bench.status_metrics,
            loop=asyncio.get_running_loop(),
        )

    def _end(self, cycle: ReconcileCycle, verdict: Verdict | None) -> None:
        cycle.end()
        self._set_active(-1)
        self._settle_echo(cycle.request)
        if verdict is not None:
            self._report(cycle.run, verdict)
            self._settle_outcome(cycle.run, verdict)

    async def _run(self, cycle: ReconcileCycle) -> Verdict:
        # A task and a context of its own: what a reconcile does to context variables or to its task's cancellation
        # cannot reach the next key.
        context = contextvars.copy_context()
        context.run(current_cycle.set, cycle)
        task = asyncio.get_running_loop().create_task(
            judge(lambda: self._reconcile(cycle.request), timeout=self._bench.timeout),
            name=f"reconcile {self._bench.name} {cycle.request}",
            context=context,
        )
        try:
            return await task
        except asyncio.CancelledError as cancellation:
            worker = asyncio.current_task()
            if worker is not None and worker.cancelling():
                raise
            error = ControllerError("the reconcile was cancelled, and not by the controller: it awaited what was")
            error.__cause__ = cancellation
            return Verdict(error=error, panicked=True)

    def _settle_echo(self, key: Request) -> None:
        bench = self._bench
        wake = bench.tracker.finish(key)
        if wake is not None:
            after = None if wake.due is None else wake.due - bench.clock.monotonic()
            bench.queue.add(key, after=after, priority=wake.priority, reason=reasons.EVENT)
        stored = bench.stored(key)
        if stored is None:  # nothing else would remove what is known of it
            bench.tracker.forget(key)
        bench.unsaved.retain(key, None if stored is None else stored.uid)

    def _settle_outcome(self, run: ReconcileRun, verdict: Verdict) -> None:
        queue, key, outcome = self._bench.queue, run.request, verdict.outcome
        priority = run.priority if outcome is None or outcome.priority is None else outcome.priority
        if verdict.error is not None and not verdict.terminal:
            at_least = retry_after_delay(longest_retry_after(verdict.error))
            queue.add_rate_limited(key, priority=priority, reason=reasons.RETRY, at_least=at_least)
            self._keep_deadline(key, priority)
            return
        queue.forget(key)
        self._deadlines.pop(key, None)
        if outcome is None:
            return
        if outcome.again:
            if not queue.shutting_down:  # like a delay, it waits for the next process, which runs every key
                queue.add(key, priority=priority, reason=reasons.AGAIN)
        elif outcome.requeue_after is not None:
            self._deadlines[key] = self._bench.clock.monotonic() + outcome.requeue_after
            queue.add(key, after=outcome.requeue_after, priority=priority, reason=reasons.REQUEUE_AFTER)

    def _keep_deadline(self, key: Request, priority: int) -> None:
        """Set the timer of an earlier outcome again, which this run consumed and its error says nothing about."""
        remaining = self._deadlines.get(key, 0.0) - self._bench.clock.monotonic()
        if remaining > 0:
            self._bench.queue.add(key, after=remaining, priority=priority, reason=reasons.REQUEUE_AFTER)
        else:
            self._deadlines.pop(key, None)

    def _set_active(self, change: int) -> None:
        self._bench.counts.active += change
        self._bench.metrics.set_active_workers(self._bench.counts.active)

    def _watch_for_storm(self, run: ReconcileRun) -> None:
        storm = self._bench.storm.note(run.request, run.reasons)
        if storm is None:
            return
        self._bench.metrics.storm()
        if storm.told:
            _log.warning("%s reconciles in a tight loop: %s", run.controller, storm, extra=run.log_fields())

    def _report(self, run: ReconcileRun, verdict: Verdict) -> None:
        bench, seconds = self._bench, self._bench.clock.monotonic() - run.since
        bench.counts.add(verdict)
        bench.metrics.reconciled(
            verdict.result,
            seconds,
            {reasons.word(reason) for reason in run.reasons},
            terminal=verdict.terminal,
            timed_out=verdict.timed_out,
            panicked=verdict.panicked,
        )
        if verdict.error is not None:
            _log.error(
                "%s failed on %s: %s; %s",
                bench.name,
                run.request,
                error_text(verdict.error),
                "not retried" if verdict.terminal else "retried with back-off",
                exc_info=verdict.error if _is_worth_a_traceback(run.attempt) else None,
                extra=run.log_fields(),
            )
        elif _log.isEnabledFor(logging.DEBUG):
            _log.debug("reconciled in %.3f s: %s", seconds, verdict.outcome, extra=run.log_fields())


def _new_id() -> str:
    """Return a random UUID (version 4) as text, several times quicker than through `uuid.UUID`."""
    digits = f"{_RNG.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _is_worth_a_traceback(attempt: int) -> bool:
    """Say so of the 1st, 2nd, 4th, 8th … failure in a row: a key that fails for hours must not fill the log."""
    return attempt & (attempt + 1) == 0
