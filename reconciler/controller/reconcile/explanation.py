"""Explanations of keys: what a key waits for, its latest reconciles, and the health of its object.

The history has bounded memory: a reconcile takes about 120 bytes, and a key 50. What many reconciles have in common
(reasons, result, failure) is one object. When there are too many, idle keys that were reconciled longest ago are
dropped, a few at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from reconciler._core.lru import LRU
from reconciler.cache import CachedObject
from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.reconcile.watchdogs import CodePlace, frames_of, place_of
from reconciler.controller.result import Completion, ReconcileResult, text_without_values
from reconciler.controller.wake import reasons
from reconciler.controller.wake.change import Creation, ObjectChange, WakingChanges
from reconciler.controller.wake.handlers import ControllerState
from reconciler.meta import Request
from reconciler.meta.documents import Version
from reconciler.workqueue import Explanation

_TYPES = {"Stalled": True, "Failed": True, "Degraded": True, "Ready": False, "Available": False}
"""Types of conditions, and whether an object is not healthy if the condition is true, or if it is not."""

_MAX_READ = 2_000
"""Objects whose conditions are read in one call at most: each takes microseconds, on the event loop."""


class ObjectCondition(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A condition of an object."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.type} is {self.status}{reason}"


class _Status(msgspec.Struct, frozen=True, gc=False):
    conditions: tuple[ObjectCondition, ...] = ()


class _Object(msgspec.Struct, frozen=True, gc=False):
    status: _Status = _Status()


_decode = msgspec.json.Decoder(_Object).decode


class ObjectHealth:
    """The condition by which each object of a kind is not healthy; read when somebody looks, once per version.

    An object is not healthy if it is ``Stalled``, ``Failed`` or ``Degraded``, or is not ``Ready`` or ``Available``. One
    that is being deleted, or has no such condition, is healthy.

    Args:
        get: returns an object, or None.
        list_all: returns all objects.
        ready_condition: a further type that must be true; None for none.

    Attributes:
        get: as given.
        objects: their number when they were read last.
    """

    def __init__(
        self,
        get: Callable[[Request], CachedObject | None],
        list_all: Callable[[], Collection[CachedObject]],
        ready_condition: str | None,
    ) -> None:
        self.get = get
        self._list_all = list_all
        self._types = _TYPES if ready_condition is None else {ready_condition: False} | _TYPES
        self.objects = 0
        self._known: dict[Request, tuple[Version, ObjectCondition | None]] = {}

    def unhealthy(self) -> dict[Request, ObjectCondition]:
        """Return the condition of each object that is not healthy, as far as the conditions were read.

        Of very many objects whose versions are new, the next calls read further ones.
        """
        objects = self._list_all()
        self.objects = len(objects)
        left, known = _MAX_READ, {}
        for each in objects:
            found = self._known.get(each.request)
            if found is None or found[0] != each.version:
                if not left:
                    continue
                left -= 1
                found = each.version, self._condition_of(each)
            known[each.request] = found
        self._known = known
        return {request: condition for request, (_, condition) in known.items() if condition is not None}

    def _condition_of(self, cached: CachedObject) -> ObjectCondition | None:
        if cached.deletion_timestamp is not None:
            return None
        try:
            conditions = {each.type: each for each in _decode(cached.data).status.conditions}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        for name, bad in self._types.items():
            found = conditions.get(name)
            if found is not None and (found.status == "True") is bad:
                return found
        return None


MAX_RUNS = 10
"""The highest number of reconciles that are kept for a key."""

_CAPACITY = 10_000
"""The highest number of reconciles that are kept for a controller: 1.7 MB, and about 10 MB if each failed in a way of
its own."""

_MAX_SHARED = 256
"""How many different endings are shared between reconciles."""

_MAX_WARNED = 1_000
_MAX_RATES = 1_000

_INTERVAL = 30.0
"""Seconds for which reconciles are counted together."""

_CLOCK_WAS_SET = timedelta(seconds=1)
"""Two readings of the clocks that differ by less say nothing about the time between them."""

_MAX_MESSAGE = 500

S = TypeVar("S", bound=Hashable)


class ReconcileFailure(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The failure of a reconcile.

    Attributes:
        type: the name of the exception's class.
        message: its text, at most 500 characters, without the values that the API server or a model rejected; None
            for a reader who is not trusted.
        traceback: the frames of your code, as ``"operator.py:12 in reconcile_object"``, the innermost one last.
        terminal: whether it was a `TerminalError`, which is not retried; None if that is not known, as of an operator
            of another version.
        timed_out: whether the timeout expired.
    """

    type: str
    message: str | None = None
    traceback: tuple[str, ...]
    terminal: bool | None = None
    timed_out: bool


@dataclass(frozen=True, slots=True)
class RunExplanation:
    """A reconcile that ended.

    Attributes:
        started: when it began.
        seconds: its duration.
        reasons: why it ran.
        result: how it ended; ``"cancelled"`` by the shutdown.
        requeue_after: the delay in seconds that it returned; None for none.
        writes: its status and finalizer writes to its own object that took effect.
        status_written: whether one of them was a status write.
        echoes: how often watch events of those writes were dropped.
        overtaken: whether the object changed during the reconcile, so that another one followed.
        reconcile_id: the id in its log records, if it failed; None otherwise.
        failure: how it failed; None if it did not.
        changes: the changes of objects that enqueued the key for it, one for each object, five at most. Empty if the
            reason is another one, if the objects existed when the controller started, and if they are forgotten.
    """

    started: datetime
    seconds: float
    reasons: frozenset[str]
    result: ReconcileResult | Literal["cancelled"]
    requeue_after: float | None
    writes: int
    status_written: bool
    echoes: int
    overtaken: bool
    reconcile_id: str | None
    failure: ReconcileFailure | None
    changes: tuple[ObjectChange, ...]


class ReconcileEnding(msgspec.Struct, frozen=True, gc=False):
    """The parts of a reconcile that many have in common; see `RunExplanation`. There is one for each failure.

    The garbage collector need not track it, nor an `EndedReconcile`: they refer to no object that could refer to them.
    """

    reasons: frozenset[str]
    result: ReconcileResult | Literal["cancelled"]
    requeue_after: float | None
    writes: int
    status_written: bool
    failure: ReconcileFailure | None
    reconcile_id: str | None


class EndedReconcile(msgspec.Struct, gc=False):
    """A reconcile in the history.

    Attributes:
        since: monotonic second of its start.
        seconds: its duration.
        ending: what many reconciles have in common.
        changes: the changes that enqueued the key for it.
        earlier: the one of the same key before it, if it is kept.
        echoes: how often watch events of its own writes were dropped.
        overtaken: whether the object changed during it.
    """

    since: float
    seconds: float
    ending: ReconcileEnding
    changes: Creation | WakingChanges | None
    earlier: EndedReconcile | None
    echoes: int = 0
    overtaken: bool = False

    def rows(self) -> list[EndedReconcile]:
        """Return this one and the earlier ones, oldest first; ten at most, and forget all others."""
        found: list[EndedReconcile] = [self]
        while len(found) < MAX_RUNS and (earlier := found[-1].earlier) is not None:
            found.append(earlier)
        found[-1].earlier = None
        return found[::-1]


class _Rate(msgspec.Struct, gc=False):
    """The reconciles of a key by their reasons, in the current interval and in the one before."""

    since: float
    counts: Counter[frozenset[str]]
    before: tuple[float, Counter[frozenset[str]]] | None


class KeyRate(NamedTuple):
    """How often a key is reconciled.

    Attributes:
        per_minute: reconciles a minute, of the last half to whole minute if they are many.
        reasons: how many of them had each reason, the most frequent one first.
    """

    per_minute: float
    reasons: dict[str, int]


class RunHistory(ReconcileObserver):
    """The reconciles of one controller's keys.

    Args:
        is_pending: returns whether a key is in progress, ready or waiting; such keys are dropped last.
        clock: the one that the reconciles were measured with.
        capacity: the highest number of reconciles. Default 10,000.

    Attributes:
        dropped: how many keys were dropped because the history was full.
    """

    def __init__(self, is_pending: Callable[[Request], bool], clock: Clock, *, capacity: int = _CAPACITY) -> None:
        self._is_pending = is_pending
        self._clock = clock
        self._capacity = capacity
        self._latest: dict[Request, EndedReconcile] = {}  # of each key; the one that ended last comes last
        self._size = 0
        self._pool: dict[Any, Any] = {}
        self._awaited: dict[Request, EndedReconcile] = {}  # those whose own writes may still have echoes
        self._zero: datetime | None = None
        self._rates: LRU[Request, _Rate] = LRU(_MAX_RATES)  # of keys with more reconciles than are remembered
        self._warnings: LRU[Request, tuple[str, ...]] = LRU(_MAX_WARNED)
        self.dropped = 0

    def ended(self, reconcile: Reconcile, /) -> None:
        """Record a reconcile that ended; without a completion, the shutdown cancelled it."""
        completion, run, key = reconcile.completion, reconcile.run, reconcile.request
        if self._size >= self._capacity:
            self._drop_oldest()
        writes, status_written = reconcile.writes, reconcile.status_written
        if completion is None:
            ending = ReconcileEnding(run.reasons, "cancelled", None, writes, status_written, None, None)
        elif completion.error is not None:
            failure = self._pooled(failure_of(completion.error, completion))
            ending = ReconcileEnding(run.reasons, "error", None, writes, status_written, failure, run.reconcile_id)
        else:
            delay = None if completion.outcome is None else completion.outcome.requeue_after
            ending = ReconcileEnding(run.reasons, completion.result, delay, writes, status_written, None, None)
            ending = self._pool.get(ending) or self._pooled(ending)
        earlier = self._latest.pop(key, None)
        row = self._latest[key] = EndedReconcile(run.since, reconcile.seconds, ending, reconcile.changes, earlier)
        if earlier is not None and len(earlier.rows()) == MAX_RUNS:
            row.rows()
            self._count(run)
        else:
            self._size += 1
        if reconcile.warnings:
            self._warnings[key] = tuple(message for _, message in reconcile.warnings)
        elif status_written and self._warnings:
            self._warnings.pop(key, None)
        if writes:
            self._awaited[key] = row

    def overtaken(self, reconcile: Reconcile, /) -> None:
        """Record that the object changed during the latest reconcile of its key."""
        self._latest[reconcile.request].overtaken = True

    def echo(self, key: Request, /) -> None:
        """Record that the watch event of a key's own write was dropped."""
        awaited = self._awaited.get(key)
        if awaited is not None:
            awaited.echoes += 1
            if awaited.echoes >= awaited.ending.writes:
                del self._awaited[key]

    def keys(self) -> dict[Request, list[EndedReconcile]]:
        """Return the latest reconciles of each key, oldest first; the key that was reconciled last comes last."""
        return {key: latest.rows() for key, latest in self._latest.items()}

    def rows(self, key: Request) -> list[EndedReconcile]:
        """Return the latest reconciles of a key, oldest first; ten at most."""
        return self._latest[key].rows() if key in self._latest else []

    def runs(self, key: Request) -> list[RunExplanation]:
        """Return the explanations of the latest reconciles of a key, oldest first; ten at most."""
        return [self.run(key, row) for row in self.rows(key)]

    def rate(self, key: Request, rows: Sequence[EndedReconcile]) -> KeyRate:
        """Return how often the key of these reconciles, oldest first, is reconciled; few count as one minute's."""
        if not rows:
            return KeyRate(0.0, {})
        now, found = self._clock.monotonic(), self._rates.get(key)
        since, counts = rows[0].since, Counter(row.ending.reasons for row in rows)
        if found is not None and now - found.since < 2 * _INTERVAL:
            since, counts = found.before or (found.since, Counter())
            counts = counts + found.counts
        least = 60.0 if counts.total() < MAX_RUNS else 1.0  # fewer reconciles say nothing about a shorter time
        reasons: Counter[str] = Counter()
        for group, count in counts.items():
            reasons.update(dict.fromkeys(group, count))
        return KeyRate(round(60 * counts.total() / max(now - since, least), 1), dict(reasons.most_common()))

    def _count(self, run: ReconcileRun) -> None:
        rate = self._rates.get(run.request)
        if rate is None or run.since - rate.since >= _INTERVAL:
            recent = rate is not None and run.since - rate.since < 2 * _INTERVAL
            before = (rate.since, rate.counts) if rate is not None and recent else None
            rate = self._rates[run.request] = _Rate(run.since, Counter(), before)
        rate.counts[run.reasons] += 1

    def warnings(self, key: Request) -> tuple[str, ...]:
        """Return what the latest status write of a key found to be wrong, although nothing failed."""
        return self._warnings.get(key, ())

    def age(self, row: EndedReconcile) -> float:
        """Return the seconds since a reconcile began."""
        return self._clock.monotonic() - row.since

    def run(self, key: Request, row: EndedReconcile) -> RunExplanation:
        """Return the explanation of a reconcile of a key."""
        started = self._wall_time(row.since)
        return RunExplanation(
            **msgspec.structs.asdict(row.ending),
            started=started,
            seconds=row.seconds,
            echoes=row.echoes,
            overtaken=row.overtaken,
            changes=() if row.changes is None else row.changes.told(key, started),
        )

    def __len__(self) -> int:
        return self._size

    def _wall_time(self, at: float) -> datetime:
        """Return the wall time of a monotonic second: the same for each call, so that it names a reconcile.

        Only if somebody sets the machine's clock, or suspends the machine, all times move.
        """
        zero = self._clock.now() - timedelta(seconds=self._clock.monotonic())
        if self._zero is None or abs(zero - self._zero) > _CLOCK_WAS_SET:
            self._zero = zero
        return self._zero + timedelta(seconds=at)

    def _pooled(self, value: S) -> S:
        """Return an equal object that is stored already, or store this one."""
        if len(self._pool) >= _MAX_SHARED:
            self._pool.clear()
        found: S = self._pool.setdefault(value, value)
        return found

    def _drop_oldest(self) -> None:
        """Drop the idle keys among the eighth that was reconciled longest ago, and at least half of it.

        So few at a time, the event loop is not held up.
        """
        oldest = list(islice(self._latest, max(2, len(self._latest) // 8)))
        idle_first = sorted(oldest, key=self._is_pending)
        idle = sum(not self._is_pending(key) for key in oldest)
        for key in idle_first[: max(idle, len(oldest) // 2)]:
            self._size -= len(self._latest.pop(key).rows())
            self._awaited.pop(key, None)
            self.dropped += 1


def failure_of(error: BaseException, completion: Completion) -> ReconcileFailure:
    """Return how a reconcile failed, without secrets."""
    message = text_without_values(error)
    return ReconcileFailure(
        type=type(error).__name__,
        message=message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…",
        traceback=frames_of(error.__traceback__),
        terminal=completion.terminal,
        timed_out=completion.timed_out,
    )


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
        place: where the reconcile in progress is in your code, and what it waits for; None without one.
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
        warnings: what is wrong with the object, although no reconcile failed, such as a status field that the server
            does not store.
        unsaved: whether status mutations of an earlier reconcile wait to be written.
        runs: the latest reconciles, oldest first; ten at most.
    """

    controller: str
    request: Request
    state: KeyState
    waits_for: str
    exists: bool
    in_progress: float | None
    place: CodePlace | None
    current_reasons: frozenset[str]
    current_changes: tuple[ObjectChange, ...]
    ready: float | None
    due: float | None
    next_reasons: frozenset[str]
    next_changes: tuple[ObjectChange, ...]
    failures: int
    observed_version: Version | None
    cached_version: Version | None
    warnings: tuple[str, ...]
    unsaved: bool
    runs: tuple[RunExplanation, ...]

    def __str__(self) -> str:
        return f"{self.request}: {self.state}; waits for {self.waits_for}"


def explain_key(
    state: ControllerState,
    request: Request,
    *,
    waits_of: Callable[[Request], str | None],
    started: bool,
    rows: Sequence[EndedReconcile] | None = None,
) -> KeyExplanation:
    """Return the explanation of a key.

    Args:
        state: of the controller.
        request: the key.
        waits_of: returns what the reconciler says that a key waits for.
        started: whether the workers have started.
        rows: the reconciles of the history to explain; None for all of the key.
    """
    queued, stored, reconcile = state.queue.explain(request), state.stored(request), state.running.of(request)
    runs = state.history.runs(request) if rows is None else [state.history.run(request, row) for row in rows]
    seen = state.tracker.seen(request)
    waits_for = _waits_for(state, queued, started=started) or _idle_waits_for(state, request, runs)
    own = waits_of(request)
    return KeyExplanation(
        controller=state.options.name,
        request=request,
        state=state_of(queued, remembered=bool(runs)),
        waits_for=waits_for if own is None else f"{waits_for}; {own}",
        exists=stored is not None,
        in_progress=queued.in_progress,
        place=place_of(reconcile),
        current_reasons=queued.current_reasons,
        current_changes=state.changes.current(reconcile),
        ready=queued.ready,
        due=queued.due,
        next_reasons=queued.next_reasons,
        next_changes=state.changes.pending(request),
        failures=queued.failures,
        observed_version=seen[-1] if isinstance(seen, tuple) else seen,
        cached_version=None if stored is None else stored.version,
        warnings=state.history.warnings(request),
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


def _waits_for(state: ControllerState, queued: Explanation[Request], *, started: bool) -> str | None:
    """Return what a key in the queue waits for; None for one that is not in the queue."""
    if queued.in_progress is not None:
        return "the end of the reconcile in progress"
    if queued.ready is not None and not started:
        return "the start of the workers: the caches are not synced, or this process is not the leader"
    low = state.queue.low_limit if queued.ready is not None and (queued.priority or 0) < 0 else None
    if low is not None and low.full and low.limit < state.options.workers:
        return (
            f"the end of another reconcile of low priority: {low.in_use} of at most {low.limit} are in progress, since "
            "the API server answers more slowly because of them"
        )
    if queued.ready is not None:
        busy = f"{state.queue.active} of {state.options.workers} are busy"
        return f"a free worker ({busy}; keys that are ready: {len(state.queue)})"
    return None if queued.due is None else _waits_for_timer(queued)


def _idle_waits_for(state: ControllerState, request: Request, runs: Sequence[RunExplanation]) -> str:
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
