"""Explanations of keys: the state in the queue, the latest reconciles, and what the key waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reconciler.controller.changes.change import ObjectChange
from reconciler.controller.reconcile.history import RunExplanation
from reconciler.controller.reconcile.worker import WorkerState
from reconciler.controller.wake import reasons
from reconciler.meta import Request
from reconciler.meta.scalars import Version
from reconciler.workqueue import Explanation

__all__ = ["KeyExplanation", "KeyState", "explain_key", "state_of"]

KeyState = Literal["in progress", "ready", "waiting", "idle", "unknown"]
"""Where a key is. ``"idle"`` is not in the queue; ``"unknown"`` has never been reconciled, as far as is remembered."""

_WATCHED_CHANGE = "a change of the object, or of an object that the controller watches for it"


@dataclass(frozen=True, slots=True)
class KeyExplanation:
    """The result of `Controller.explain`; ``str`` gives one line.

    Attributes:
        controller: the controller's name.
        request: the key.
        state: where it is.
        waits_for: what must happen for the next reconcile, or for the end of the one in progress.
        exists: whether the cache has the object; False for kinds of objects that are not in the cluster.
        in_progress: seconds since the reconcile in progress began; None without one.
        current_reasons: the reasons of the reconcile in progress.
        current_changes: the changes of objects that enqueued the key for it.
        ready: seconds since the key became ready; None if it is not.
        due: seconds until its timer makes it ready; None without one.
        next_reasons: the reasons of the next reconcile, as far as they are known.
        next_changes: the changes of objects that enqueued the key for it. One of the object itself during a reconcile
            appears at its end.
        failures: consecutive failures.
        observed_version: the newest resourceVersion that a reconcile has observed; None if none has.
        cached_version: the resourceVersion in the cache; None without an object.
        unsaved: whether status mutations of an earlier reconcile wait to be written.
        runs: the latest reconciles, oldest first; ten at most.
    """

    controller: str
    request: Request
    state: KeyState
    waits_for: str
    exists: bool
    in_progress: float | None
    current_reasons: frozenset[str]
    current_changes: tuple[ObjectChange, ...]
    ready: float | None
    due: float | None
    next_reasons: frozenset[str]
    next_changes: tuple[ObjectChange, ...]
    failures: int
    observed_version: Version | None
    cached_version: Version | None
    unsaved: bool
    runs: tuple[RunExplanation, ...]

    def __str__(self) -> str:
        return f"{self.request}: {self.state}; waits for {self.waits_for}"


def explain_key(
    state: WorkerState, request: Request, *, workers: int, started: bool, rows: Sequence[int] | None = None
) -> KeyExplanation:
    """Return the explanation of a key.

    Args:
        state: of the controller's workers.
        request: the key.
        workers: the number of workers.
        started: whether the workers have started.
        rows: the rows of the history to return as its reconciles; None for all of the key.
    """
    queued, stored = state.queue.explain(request), state.stored(request)
    runs = state.history.runs(request) if rows is None else [state.history.run(row) for row in rows]
    seen = state.tracker.seen(request)
    return KeyExplanation(
        controller=state.name,
        request=request,
        state=state_of(queued, remembered=bool(runs)),
        waits_for=_waits_for(state, queued, workers=workers, started=started) or _idle_waits_for(state, request, runs),
        exists=stored is not None,
        in_progress=queued.in_progress,
        current_reasons=queued.current_reasons,
        current_changes=state.changes.current(request),
        ready=queued.ready,
        due=queued.due,
        next_reasons=queued.next_reasons,
        next_changes=state.changes.pending(request),
        failures=queued.failures,
        observed_version=seen[-1] if isinstance(seen, tuple) else seen,
        cached_version=None if stored is None else stored.version,
        unsaved=request in state.unsaved,
        runs=tuple(runs),
    )


def state_of(queued: Explanation[Request], *, remembered: bool) -> KeyState:
    """Return the state of a key, of which reconciles are remembered or not."""
    if queued.in_progress is not None:
        return "in progress"
    if queued.ready is not None:
        return "ready"
    if queued.due is not None:
        return "waiting"
    return "idle" if remembered else "unknown"


def _waits_for(state: WorkerState, queued: Explanation[Request], *, workers: int, started: bool) -> str | None:
    """Return what a key in the queue waits for; None for one that is not in the queue."""
    if queued.in_progress is not None:
        return "the end of the reconcile in progress"
    if queued.ready is not None and not started:
        return "the start of the workers: the caches are not synced, or this process is not the leader"
    if queued.ready is not None:
        return f"a free worker ({state.queue.active} of {workers} are busy; keys that are ready: {len(state.queue)})"
    return None if queued.due is None else _waits_for_timer(queued)


def _idle_waits_for(state: WorkerState, request: Request, runs: Sequence[RunExplanation]) -> str:
    stored, seen = state.stored(request), state.tracker.seen(request)
    failure = runs[-1].failure if runs else None
    if state.queue.shutting_down:
        return "the next process: the controller is stopping"
    if failure is not None and failure.terminal:
        return f"{_WATCHED_CHANGE}: a {failure.type} is not retried"
    if stored is None:
        return "an object of this name: the cache of the controller has none"
    if not runs:
        return f"{_WATCHED_CHANGE}: no reconcile of it is remembered"
    if isinstance(seen, int) and isinstance(stored.version, int) and stored.version > seen:
        return f"{_WATCHED_CHANGE}: a predicate filtered the newest version, {stored.version}"
    return _WATCHED_CHANGE


def _waits_for_timer(queued: Explanation[Request]) -> str:
    words = {reasons.word(reason) for reason in queued.next_reasons}
    if reasons.RETRY in words:
        count = queued.failures
        if not count:  # the rate limiter does not count
            return "the backoff after a failure"
        return f"the backoff after {'1 failure' if count == 1 else f'{count} failures in a row'}"
    if reasons.AGAIN in words:
        return "the backoff between successive Result(again=True)"
    if reasons.REQUEUE_AFTER in words:
        return "the delay that a reconcile returned"
    return "a delay (debounce, or an enqueue with a delay)"
