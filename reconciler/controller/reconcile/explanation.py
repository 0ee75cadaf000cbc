"""Explanations of keys: what a key waits for, and its latest reconciles: when, why, how long, and how they ended.

The history has bounded memory. Reconciles are rows of parallel columns, so that one costs about 30 bytes, and a key 40.
What many rows have in common (reasons, result, failure) is one object. When the columns are full, the oldest rows of
idle keys are dropped, a few at a time.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from reconciler._core.lru import LRU
from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver, ReconcileResult
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.reconcile.progress import CodePlace, RunningReconciles, frames_of, place_of
from reconciler.controller.result import Completion, text_without_values
from reconciler.controller.wake import reasons
from reconciler.controller.wake.change import ChangeLog, Creation, ObjectChange, WakingChanges
from reconciler.controller.wake.handlers import ControllerState
from reconciler.meta import Request
from reconciler.meta.documents import Version
from reconciler.workqueue import Explanation

MAX_RUNS = 10
"""The highest number of reconciles that are kept for a key."""

_CAPACITY = 10_000
"""The highest number of reconciles that are kept for a controller: 0.7 MB, and about 10 MB if each failed in a way of
its own."""

_MAX_SHARED = 256
"""How many different outcomes are shared between rows."""

_MAX_WARNED = 1_000
_MAX_RATES = 1_000

_INTERVAL = 30.0
"""Seconds for which reconciles are counted together."""

_OVERTAKEN, _ECHOES = 0x80, 0x7F

_CLOCK_WAS_SET = timedelta(seconds=1)
"""Two readings of the clocks that differ by less say nothing about the time between them."""

_MAX_MESSAGE = 500

S = TypeVar("S", bound=Hashable)


class ReconcileFailure(msgspec.Struct, frozen=True, gc=False):
    """The failure of a reconcile.

    Attributes:
        type: the name of the exception's class.
        message: its text, at most 500 characters, without the values that the API server or a model rejected.
        traceback: the frames of your code, as ``"operator.py:12 in reconcile_object"``, the innermost one last.
        terminal: whether it was a `TerminalError`, which is not retried.
        timed_out: whether the timeout expired.
    """

    type: str
    message: str
    traceback: tuple[str, ...]
    terminal: bool
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


class _Shared(msgspec.Struct, frozen=True, gc=False):
    """The parts of a reconcile that many rows have in common.

    There is one for each failure. The garbage collector need not track them: they refer to no object that could refer
    to them.
    """

    reasons: frozenset[str]
    result: ReconcileResult | Literal["cancelled"]
    requeue_after: float | None
    writes: int
    status_written: bool
    failure: ReconcileFailure | None
    reconcile_id: str | None


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
        self._keys: list[Request] = []
        self._since = array("d")
        self._seconds = array("f")
        self._shared: list[_Shared] = []
        self._seen = bytearray()  # of each row: the number of its echoes, and whether it was overtaken
        self._changes: list[Creation | WakingChanges | None] = []
        self._pool: dict[Any, Any] = {}
        self._counts: defaultdict[Request, int] = defaultdict(int)
        self._awaited: dict[Request, int] = {}  # rows, counted from the first one ever
        self._first = 0
        self._surplus = 0  # rows beyond the limit of their keys
        self._zero: datetime | None = None
        self._rates: LRU[Request, _Rate] = LRU(_MAX_RATES)  # of keys with more reconciles than are remembered
        self._warnings: LRU[Request, tuple[str, ...]] = LRU(_MAX_WARNED)
        self.dropped = 0

    def ended(self, reconcile: Reconcile, /) -> None:
        """Record a reconcile that ended; without a completion, the shutdown cancelled it."""
        completion = reconcile.completion
        row, run = len(self._keys), reconcile.run
        if row >= self._capacity:
            self._compact()
            row = len(self._keys)
        self._counts[run.request] += 1
        if self._counts[run.request] > MAX_RUNS:
            self._surplus += 1
            self._count(run)
        writes, status_written = reconcile.writes, reconcile.status_written
        if completion is None:
            shared = _Shared(run.reasons, "cancelled", None, writes, status_written, None, None)
        elif completion.error is not None:
            failure = self._pooled(failure_of(completion.error, completion))
            shared = _Shared(run.reasons, "error", None, writes, status_written, failure, run.reconcile_id)
        else:
            delay = None if completion.outcome is None else completion.outcome.requeue_after
            shared = _Shared(run.reasons, completion.result, delay, writes, status_written, None, None)
            shared = self._pool.get(shared) or self._pooled(shared)
        self._keys.append(run.request)
        self._since.append(run.since)
        self._seconds.append(reconcile.seconds)
        self._shared.append(shared)
        self._seen.append(0)
        self._changes.append(reconcile.changes)
        if reconcile.warnings:
            self._warnings[run.request] = tuple(message for _, message in reconcile.warnings)
        elif status_written and self._warnings:
            self._warnings.pop(run.request, None)
        if writes:
            self._awaited[run.request] = self._first + row

    def overtaken(self, _reconcile: Reconcile, /) -> None:
        """Record that the object changed during the reconcile that was recorded last."""
        self._seen[-1] |= _OVERTAKEN

    def echo(self, key: Request, /) -> None:
        """Record that the watch event of a key's own write was dropped."""
        awaited = self._awaited.get(key)
        if awaited is not None:
            row = awaited - self._first
            self._seen[row] += 1
            echoes = self._seen[row] & _ECHOES
            if echoes >= self._shared[row].writes or echoes == _ECHOES:
                del self._awaited[key]

    def keys(self) -> dict[Request, list[int]]:
        """Return the rows of each key, oldest first; the key that was reconciled last comes last."""
        found: dict[Request, list[int]] = {}
        for row, key in enumerate(self._keys):
            rows = found.pop(key, [])
            found[key] = [*rows[1 - MAX_RUNS :], row]
        return found

    def runs(self, key: Request) -> list[RunExplanation]:
        """Return the latest reconciles of a key, oldest first; ten at most."""
        return [self.run(row) for row in self.rows(key)]

    def rows(self, key: Request) -> list[int]:
        """Return the rows of a key, oldest first; ten at most."""
        return [row for row, each in enumerate(self._keys) if each == key][-MAX_RUNS:]

    def rate(self, rows: Sequence[int]) -> KeyRate:
        """Return how often the key of these rows, oldest first, is reconciled; few reconciles count as one minute's."""
        if not rows:
            return KeyRate(0.0, {})
        now, found = self._clock.monotonic(), self._rates.get(self._keys[rows[-1]])
        since, counts = self._since[rows[0]], Counter(self._shared[row].reasons for row in rows)
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

    def since(self, row: int) -> float:
        """Return the monotonic second at which the reconcile of a row began."""
        return self._since[row]

    def age(self, row: int) -> float:
        """Return the seconds since the reconcile of a row began."""
        return self._clock.monotonic() - self._since[row]

    def failure(self, row: int) -> ReconcileFailure | None:
        """Return how the reconcile of a row failed; None if it did not."""
        return self._shared[row].failure

    def run(self, row: int) -> RunExplanation:
        """Return the reconcile of a row."""
        shared = self._shared[row]
        changes = self._changes[row]
        started = self._wall_time(self._since[row])
        return RunExplanation(
            started=started,
            seconds=self._seconds[row],
            reasons=shared.reasons,
            result=shared.result,
            requeue_after=shared.requeue_after,
            writes=shared.writes,
            status_written=shared.status_written,
            echoes=self._seen[row] & _ECHOES,
            overtaken=bool(self._seen[row] & _OVERTAKEN),
            reconcile_id=shared.reconcile_id,
            failure=shared.failure,
            changes=() if changes is None else changes.told(self._keys[row], started),
        )

    def __len__(self) -> int:
        return len(self._keys)

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

    def _compact(self) -> None:
        """Drop rows: those beyond the limits of their keys if they are many, else among the oldest eighth.

        Of the oldest eighth, the rows of idle keys are dropped, and at least half of all: so few at a time, the event
        loop is not held up. Only many reconciles of few keys leave many beyond the limits.
        """
        eighth = max(2, self._capacity // 8)
        everywhere = self._surplus >= eighth
        examined, most = (len(self._keys), self._capacity) if everywhere else (eighth, eighth // 2)
        kept: list[int] = []
        for row, key in enumerate(self._keys[:examined]):
            if self._counts[key] > MAX_RUNS or not (everywhere or self._is_pending(key)):
                self._discard(row)
            else:
                kept.append(row)
        for row in kept[:-most]:
            self._discard(row)
        kept = kept[-most:]
        first = self._first + examined - len(kept)
        for new, row in enumerate(kept):
            if self._awaited.get(self._keys[row]) == self._first + row:
                self._awaited[self._keys[row]] = first + new
        self._first = first
        self._keys[:examined] = [self._keys[row] for row in kept]
        self._shared[:examined] = [self._shared[row] for row in kept]
        self._since[:examined] = array("d", [self._since[row] for row in kept])
        self._seconds[:examined] = array("f", [self._seconds[row] for row in kept])
        self._seen[:examined] = bytes(self._seen[row] for row in kept)
        self._changes[:examined] = [self._changes[row] for row in kept]

    def _discard(self, row: int) -> None:
        """Forget that a row was its key's."""
        key = self._keys[row]
        self._surplus -= self._counts[key] > MAX_RUNS
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
            self.dropped += 1
        if self._awaited.get(key) == self._first + row:
            del self._awaited[key]


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
    history: RunHistory,
    changes: ChangeLog,
    running: RunningReconciles,
    request: Request,
    *,
    waits_of: Callable[[Request], str | None],
    workers: int,
    started: bool,
    rows: Sequence[int] | None = None,
) -> KeyExplanation:
    """Return the explanation of a key.

    Args:
        state: of the controller's workers.
        history: the latest reconciles of each key.
        changes: the changes that enqueued each key.
        running: the reconciles in progress.
        request: the key.
        waits_of: returns what the reconciler says that a key waits for.
        workers: the number of workers.
        started: whether the workers have started.
        rows: the rows of the history to return as its reconciles; None for all of the key.
    """
    queued, stored, reconcile = state.queue.explain(request), state.stored(request), running.of(request)
    runs = history.runs(request) if rows is None else [history.run(row) for row in rows]
    seen = state.tracker.seen(request)
    waits_for = _waits_for(state, queued, workers=workers, started=started) or _idle_waits_for(state, request, runs)
    own = waits_of(request)
    return KeyExplanation(
        controller=state.name,
        request=request,
        state=state_of(queued, remembered=bool(runs)),
        waits_for=waits_for if own is None else f"{waits_for}; {own}",
        exists=stored is not None,
        in_progress=queued.in_progress,
        place=place_of(reconcile),
        current_reasons=queued.current_reasons,
        current_changes=changes.current(reconcile),
        ready=queued.ready,
        due=queued.due,
        next_reasons=queued.next_reasons,
        next_changes=changes.pending(request),
        failures=queued.failures,
        observed_version=seen[-1] if isinstance(seen, tuple) else seen,
        cached_version=None if stored is None else stored.version,
        warnings=history.warnings(request),
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


def _waits_for(state: ControllerState, queued: Explanation[Request], *, workers: int, started: bool) -> str | None:
    """Return what a key in the queue waits for; None for one that is not in the queue."""
    if queued.in_progress is not None:
        return "the end of the reconcile in progress"
    if queued.ready is not None and not started:
        return "the start of the workers: the caches are not synced, or this process is not the leader"
    if queued.ready is not None:
        return f"a free worker ({state.queue.active} of {workers} are busy; keys that are ready: {len(state.queue)})"
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
