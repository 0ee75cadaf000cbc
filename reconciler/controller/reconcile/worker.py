"""The workers of a controller: each takes a key from the queue, reconciles it, and acts on the outcome.

At the end of a reconcile the observers are notified: history, logs, Events, metrics, traces. The echo rule depends on
the order of what follows, and nothing comes between its steps. First the observed version rises, and the key is
enqueued if an event that was held is newer. Then the outcome sets the key's timer or backoff. Then the key is done.

The first step of ``Result(again=True)`` comes at once. Each further one waits as long as the rate limiter makes a
failed key wait, but with the default limiter no longer than a few seconds. So a reconcile that never stops asking
cannot occupy a worker, and many steps do not end in long pauses. A step is not counted as a failure.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from typing import Any

from reconciler._core.backoff import longest_retry_after, retry_after_delay
from reconciler._core.user_code import is_cancelled
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileContext, ReconcileRun, is_async
from reconciler.controller.reconcile.writes import Ownership
from reconciler.controller.result import Completion, ControllerError, ReconcileTimeout
from reconciler.controller.wake import reasons
from reconciler.controller.wake.echo import Wake
from reconciler.controller.wake.handlers import ControllerState
from reconciler.errors import describe_error
from reconciler.meta import Request
from reconciler.meta.cycle import current_cycle
from reconciler.workqueue import QueueShutDown, RateLimiter, WorkQueue
from reconciler.workqueue.queue import InProgress
from reconciler.workqueue.rate_limiters import NeverRaises, guarded_limiter, when_duplicate

_log = logging.getLogger("reconciler.controller")


class Worker:
    """A worker, which reconciles one key after the other.

    Args:
        state: shared with the controller's other workers.
        override: the reconciler's ``reconcile``, ``async`` or plain.
        ownership: decides about the writes of a reconcile, where several processes share the kind.
    """

    def __init__(self, state: ControllerState, override: Callable[[Request], object], ownership: Ownership) -> None:
        self._state = state
        self._override = override
        self._ownership = ownership
        self._call: Callable[[Reconcile], Awaitable[object]]
        if state.shard_filter.sharded:
            self._call = self._reconcile_owned
        elif is_async(getattr(override, "__func__", override)):
            self._call = lambda reconcile: override(reconcile.request)  # type: ignore[assignment, return-value]
        else:
            self._call = lambda reconcile: reconcile.call(override, reconcile.request)
        queue = state.queue
        self._context = ReconcileContext(
            state.gvk,
            state.tracker,
            state.unsaved,
            asyncio.get_running_loop(),
            state.threads,
            stopping=lambda: queue.shutting_down,
            matches=state.shard_filter.matches,
            status_metrics=state.status_metrics,
        )

    async def work(self) -> None:
        """Work until the queue is shut down.

        Cancellation cancels the reconcile in progress and is raised when that has ended and its key is done.
        """
        queue = self._state.queue
        while True:
            try:
                queued = await queue.take()
            except QueueShutDown:
                return
            try:
                reconcile = self._take(queued)
                try:
                    reconcile.completion = await self._start(reconcile)
                except asyncio.CancelledError as cancellation:
                    if is_cancelled():  # by the shutdown: it is not an error and requeues nothing
                        raise
                    error = ControllerError(
                        "the reconcile was cancelled, but not by the controller: something that it awaited was "
                        "cancelled"
                    )
                    error.__cause__ = cancellation
                    reconcile.completion = Completion(error=error, panicked=True)
                finally:
                    self._end(reconcile)
            finally:
                queue.done(queued.key)

    def _take(self, queued: InProgress[Request]) -> Reconcile:
        state, key = self._state, queued.key
        run = ReconcileRun(
            controller=state.options.name,
            request=key,
            reasons=queued.reasons,
            attempt=state.limiter.retries(key),
            priority=queued.priority,
            since=queued.since,
        )
        stored = state.stored(key)
        uid, version = (None, None) if stored is None else (stored.uid, stored.version)
        state.tracker.begin(key, version)
        return Reconcile(self._context, run, uid=uid, basis=version, by_timer=queued.by_timer)

    def _start(self, reconcile: Reconcile) -> asyncio.Task[Completion]:
        # A task and a context per reconcile: changes of context variables, or of the task's cancellation, cannot reach
        # the next key.
        context = contextvars.copy_context()
        context.run(self._begin, reconcile)
        task = reconcile.task = self._context.loop.create_task(
            run_to_completion(self._call, reconcile, timeout=self._state.options.timeout),
            name=f"reconcile {reconcile.controller} {reconcile.request}",
            context=context,
        )
        return task

    def _begin(self, reconcile: Reconcile) -> None:
        current_cycle.set(reconcile)
        for notify in self._state.observers.begun:
            notify(reconcile)

    async def _reconcile_owned(self, reconcile: Reconcile) -> object:
        """Reconcile a key if it belongs to this process."""
        state, key = self._state, reconcile.request
        if not await state.shard_filter.may_reconcile(key):
            state.forget(key)
            return None
        try:
            stored = state.stored(key)
            if stored is not None:
                reconcile.set_basis(stored.uid, stored.version)
            return await reconcile.call(self._override, key)
        except Exception as error:
            if reconcile.owned is not False:
                raise
            _log.info("%s: %s", reconcile.controller, describe_error(error), extra=reconcile.run.log_fields())
            state.forget(key)
            return None
        finally:
            self._ownership.end(reconcile, state.stored(key))
            state.shard_filter.ended(key)

    def _end(self, reconcile: Reconcile) -> None:
        state, key = self._state, reconcile.request
        stored = state.stored(key)
        reconcile.end(state.clock.monotonic() - reconcile.run.since)
        state.unsaved.retain(key, None if stored is None else stored.uid)
        for notify in state.observers.ended:
            notify(reconcile)
        wake = state.tracker.finish(key)
        if wake is not None:
            self._enqueue_overtaken(reconcile, wake)
        if stored is None:  # no event would remove what is known of it
            state.tracker.forget(key)
        if reconcile.completion is not None:
            self._requeue(reconcile, reconcile.completion)

    def _enqueue_overtaken(self, reconcile: Reconcile, wake: Wake) -> None:
        state, key = self._state, reconcile.request
        for notify in state.observers.overtaken:
            notify(reconcile)
        for event in wake.events:
            state.notify_of(key, state.gvk, event)
        after = None if wake.due is None else wake.due - state.clock.monotonic()
        state.queue.add(key, after=after, priority=wake.priority, reason=reasons.EVENT)

    def _requeue(self, reconcile: Reconcile, completion: Completion) -> None:
        queue, key, outcome = self._state.queue, reconcile.request, completion.outcome
        priority = reconcile.run.priority if outcome is None or outcome.priority is None else outcome.priority
        if completion.error is not None and not completion.terminal:
            at_least = retry_after_delay(longest_retry_after(completion.error))
            queue.add_rate_limited(key, priority=priority, reason=reasons.RETRY, at_least=at_least)
            self._restore_timer(key, priority)
            return
        self._state.deadlines.pop(key, None)
        if outcome is not None and outcome.priority is None:
            priority = max(priority, 0)  # it no longer belongs to a backlog, behind which its timer could wait for long
        if outcome is not None and outcome.again:
            if not queue.shutting_down:  # like a delay, it is left to the next process, which reconciles every key
                after = self._state.limiter.again(key, duplicate=bool(queue.reasons(key)))
                queue.add(key, after=after, priority=priority, reason=reasons.AGAIN)
                for notify in self._state.observers.again:
                    notify(reconcile, self._state.limiter.steps(key))
            return
        self._state.limiter.forget(key)
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


async def run_to_completion(
    call: Callable[[Reconcile], Awaitable[object]],
    reconcile: Reconcile,
    *,
    timeout: float | None,  # noqa: ASYNC109 - a timeout is a completion
) -> Completion:
    """Run a reconcile, as the only content of a task, and return how it ended.

    Every exception becomes part of the result, so that one key cannot end a worker. A BaseException that is not an
    Exception (`SystemExit`, pytest's outcomes) is raised. Cancellation of the task cancels the reconcile and is raised
    when that has ended.

    Args:
        call: starts it.
        reconcile: its argument.
        timeout: seconds after which it is cancelled, which counts as an error. None: no limit.
    """
    error: Exception | None = None
    if timeout is None:
        try:
            return Completion(await call(reconcile))  # type: ignore[arg-type]  # it checks the outcome
        except Exception as raised:  # noqa: BLE001 - as below
            return Completion(error=raised)
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            outcome = await call(reconcile)
        if not scope.expired():
            return Completion(outcome)  # type: ignore[arg-type]
    except Exception as raised:  # noqa: BLE001 - the worker passes it to the log, the metrics and the backoff
        error = raised
    if scope.expired():
        late = ReconcileTimeout(f"the reconcile did not end within {timeout:g} s")
        late.__cause__ = error
        return Completion(error=late, timed_out=True)
    return Completion(error=error)


_MAX_DELAY = 5.0
"""Seconds between two steps at most, with the default rate limiter: a step is work that is ready, and not a failure."""


class AgainLimiter(NeverRaises):
    """The rate limiter of a controller's queue: counts failures, and successive ``again``, with one limiter.

    What the limiter has recorded of a key is the one or the other: an ``again`` forgets the failures before it, and a
    failure the ``again`` before it. If the key goes back to failing, or to ``again`` after that, nothing is forgotten
    any more, so a key that alternates between the two has a growing backoff as well.

    Args:
        limiter: computes the delays. Default None: `WorkQueue`'s default, with at most five seconds between two steps.
    """

    def __init__(self, limiter: RateLimiter | None = None) -> None:
        self._limiter = guarded_limiter(limiter)
        self._max_delay = _MAX_DELAY if limiter is None else math.inf
        self._counted: set[Hashable] = set()  # keys that the limiter knows, or that have returned `again`
        self._again: dict[Hashable, int] = {}  # how often a key has returned `again` up to its last reconcile
        self._mixed: dict[Hashable, int] = {}  # those that failed before an `again`: what is recorded of them up to it

    def again(self, key: Hashable, /, *, duplicate: bool = False) -> float:
        """Count one ``again`` of a key; return the delay in seconds before its next reconcile, 0.0 for the first.

        Args:
            key: the key.
            duplicate: whether the key is pending anyway, so that shared budgets are not charged. Default False.
        """
        delay = 0.0
        self._counted.add(key)
        steps = self._again[key] = self._again.get(key, 0) + 1
        if steps > 1:
            delay = min(self._max_delay, self._delay(key, duplicate=duplicate))
        elif key not in self._mixed:
            if self._limiter.retries(key):
                self._mixed[key] = 0
            self._limiter.forget(key)
        if key in self._mixed:
            self._mixed[key] = self._limiter.retries(key)
        return delay

    def steps(self, key: Hashable, /) -> int:
        """Return how many reconciles of a key have returned ``again`` one after the other."""
        return self._again.get(key, 0)

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds."""
        self._end_again(key)
        return self._delay(key, duplicate=False)

    def when_duplicate(self, key: Hashable, /) -> float:
        """Return the delay as `when` does, without a charge to shared budgets."""
        self._end_again(key)
        return self._delay(key, duplicate=True)

    def forget(self, key: Hashable, /) -> None:
        """Drop the history of a key; nearly every key has none."""
        if key in self._counted:
            self._counted.discard(key)
            self._again.pop(key, None)
            self._mixed.pop(key, None)
            self._limiter.forget(key)

    def retries(self, key: Hashable, /) -> int:
        """Return how often a key has failed since its last ``again``, or since it was last forgotten."""
        if key not in self._counted or key in self._again:
            return 0
        return self._limiter.retries(key) - self._mixed.get(key, 0)

    def _end_again(self, key: Hashable) -> None:
        if key in self._again:
            self._again.pop(key, None)
            if key not in self._mixed:
                self._limiter.forget(key)

    def _delay(self, key: Hashable, *, duplicate: bool) -> float:
        self._counted.add(key)
        return when_duplicate(self._limiter, key) if duplicate else self._limiter.when(key)


_LOG_INTERVAL = 10.0
"""Seconds between log lines about reconciles that do not end."""


class WorkerPool:
    """The tasks of the workers of one queue.

    Args:
        name: the controller's name.
        queue: the controller's queue.
    """

    def __init__(self, name: str, queue: WorkQueue[Request]) -> None:
        self._name = name
        self._queue = queue
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._hurried = asyncio.Event()

    def start(self, workers: Sequence[Worker]) -> None:
        """Start the workers."""
        self._tasks = [
            asyncio.create_task(worker.work(), name=f"{self._name} worker {number}")
            for number, worker in enumerate(workers)
        ]

    @property
    def started(self) -> bool:
        """Return whether the workers have been started."""
        return bool(self._tasks)

    async def finished(self, others: Sequence[asyncio.Task[None]] = ()) -> None:
        """Wait until all workers, and other tasks that belong to the controller, have ended.

        Cancellation changes nothing.

        Raises:
            BaseException: what a task raised; the others continue.
            ControllerError: something other than `stop` cancelled a task.
        """
        running = {*self._tasks, *others}
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()
                elif not self._stopping:
                    raise ControllerError(f"{task.get_name()} was cancelled, but not by the controller")

    async def stop(self, grace: float) -> None:
        """Process what is ready and in progress for the grace period, then cancel what is in progress.

        Returns when every worker, thread and flush has ended, however long that takes. End the process if you cannot
        wait. `hurry` ends the grace period at once.

        Args:
            grace: seconds. 0 cancels at once.
        """
        self._stopping = True
        draining = asyncio.create_task(self._queue.shutdown(drain=grace > 0))
        drained = asyncio.gather(*self._tasks, return_exceptions=True)
        hurried = asyncio.create_task(self._hurried.wait())
        ends: set[asyncio.Future[Any]] = {drained, hurried}
        await asyncio.wait(ends, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if self._queue.active:
            _log.warning(
                "%s: %s: cancelling the reconciles of %s, %d keys are ready",
                self._name,
                "stopping at once" if self._hurried.is_set() or not grace else f"the {grace:g} s of grace are over",
                self.in_progress(),
                len(self._queue),
            )
        hurried.cancel()
        await self._cancel([task for task in self._tasks if not task.done()])
        await draining

    def hurry(self) -> None:
        """End the grace period of `stop`, which cancels what is in progress."""
        self._hurried.set()

    async def _cancel(self, running: Collection[asyncio.Task[None]]) -> None:
        await self._queue.shutdown()
        for task in running:
            task.cancel()
        while running:
            _, running = await asyncio.wait(running, timeout=_LOG_INTERVAL)
            if running:
                _log.warning("%s is still waiting for the reconciles of %s to end", self._name, self.in_progress())

    def in_progress(self) -> str:
        """Return the keys in progress, for a message."""
        return ", ".join(str(key) for key in self._queue.keys() if self._queue.in_progress(key)) or "nothing"  # noqa: SIM118 - a queue is not a dict
