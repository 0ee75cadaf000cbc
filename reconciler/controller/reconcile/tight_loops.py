"""Keys that are reconciled again and again: their backoff, and the detection of tight loops.

The first step of ``Result(again=True)`` comes at once. Each further one waits as long as the rate limiter makes a
failed key wait, but with the default limiter no longer than a few seconds. So a reconcile that never stops asking
cannot occupy a worker, and many steps do not end in long pauses. A step is not counted as a failure.

A parent that rewrites its child in every reconcile, or two controllers that fight over one field: each looks like a
busy, healthy controller. More than ten reconciles of one key within ten seconds that nobody asked for are reported
once, with their reasons. A reconcile is asked for if it is a retry with backoff, the next step of
``Result(again=True)``, or the end of a delay. A reconcile because of other objects counts
only if the one before it changed another object. Otherwise it is not part of a loop: the Deployments of a key become
ready, and each of their changes enqueues it. Steps of ``Result(again=True)`` that do not end are reported as well. If
thousands of keys are in a tight loop, they have one cause: a few of them are logged, the others are counted.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import msgspec

from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.wake import reasons as words
from reconciler.meta import Request
from reconciler.workqueue import RateLimiter
from reconciler.workqueue.rate_limiters import NeverRaises, SharedBudget, guarded_limiter

_log = logging.getLogger("reconciler.controller")


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
        if duplicate and isinstance(self._limiter, SharedBudget):
            return self._limiter.when_duplicate(key)
        return self._limiter.when(key)


K = TypeVar("K", bound=Hashable)

_LIMIT = 10
"""Reconciles within a window that are normal."""

_WINDOW = 10.0
"""Seconds."""

_QUIET = 300.0
"""Seconds before the same key is reported again."""

_STEPS = 15
"""Successive steps of ``Result(again=True)`` that are normal."""

_MAX_LOGGED = 10
"""Storms that are logged within a window."""

_ASKED_FOR = frozenset((words.RETRY, words.AGAIN, words.REQUEUE_AFTER))
"""Reasons of reconciles that an earlier reconcile asked for, and whose pace a backoff or a delay sets."""

_OF_OTHERS = frozenset((words.OWNED, words.WATCHED))
"""Words of reasons that name changes of other objects."""

_DELAYED = _ASKED_FOR | {words.ENQUEUE, words.SOURCE}
"""The same, for a key whose timer made it ready: ``enqueue(after=)``."""


@dataclass(frozen=True, slots=True)
class Storm(Generic[K]):
    """A tight loop.

    Attributes:
        key: the key that reconciles too often.
        runs: the number of reconciles within ten seconds that nobody asked for, or the number of steps in a row.
        reasons: how many of those reconciles had each reason; one may have several.
        logged: whether to log it; False if too many others were logged within ten seconds.
        last: whether further ones within ten seconds are not logged.
        skipped: how many were not logged since the previous one that was.
        steps: whether it consists of steps of ``Result(again=True)``.
    """

    key: K
    runs: int
    reasons: Counter[str]
    logged: bool = True
    last: bool = False
    skipped: int = 0
    steps: bool = False

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} x{count}" for reason, count in self.reasons.most_common()) or "unknown"
        skipped = f"; {self.skipped} other tight loops were counted but not logged" if self.skipped else ""
        more = "; further ones are counted but not logged" if self.last else ""
        if self.steps:
            reasons += "; return requeue_after to wait for something"
        within = "in a row" if self.steps else f"within {_WINDOW:g} s"
        return f"{self.key} was reconciled {self.runs} times {within}, because of: {reasons}{skipped}{more}"


class _UnaskedReconcile(msgspec.Struct, gc=False):
    """A reconcile that nobody asked for, with those of the same key before it.

    A resync makes one for every key at once: the garbage collector need not track them.
    """

    at: float
    reasons: frozenset[str]
    earlier: _UnaskedReconcile | None

    def latest(self, since: float) -> list[_UnaskedReconcile]:
        """Return this one and the earlier ones after a time, one more than the limit at most; forget all others."""
        runs: list[_UnaskedReconcile] = [self]
        while len(runs) <= _LIMIT and (run := runs[-1].earlier) is not None and run.at > since:
            runs.append(run)
        runs[-1].earlier = None
        return runs


class StormAlarm(Generic[K]):
    """A detector of keys that reconcile in a tight loop, by counts in a sliding window. Idle keys take no memory.

    Reconciles that were asked for do not count: a retry, ``again``, or a delay, and no other reason.

    Args:
        clock: source of monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: OrderedDict[K, _UnaskedReconcile] = OrderedDict()
        self._quiet_until: OrderedDict[K, float] = OrderedDict()
        self._logged_at: deque[float] = deque(maxlen=_MAX_LOGGED)
        self._skipped = 0
        self._storms = 0

    def note(
        self, key: K, reasons: AbstractSet[str], *, by_timer: bool = False, caused: bool = True
    ) -> Storm[K] | None:
        """Count a reconcile, unless it was asked for; return a description if the key has started a tight loop.

        Args:
            key: the key.
            reasons: why it runs; without any, it was not asked for.
            by_timer: whether the key's timer made it ready. Default False.
            caused: whether the reconcile before it changed another object, which can be why it runs. Default True.
        """
        asked_for = bool(reasons) and (
            reasons <= _ASKED_FOR
            or (by_timer and words.words(frozenset(reasons)) <= _DELAYED)
            or (not caused and words.words(frozenset(reasons)) - _ASKED_FOR <= _OF_OTHERS)
        )
        if asked_for and not self._recent and not self._quiet_until:  # at rest
            return None
        now = self._clock.monotonic()
        self._drop_idle(now)
        if asked_for:
            return None
        run = self._recent[key] = _UnaskedReconcile(now, frozenset(reasons), self._recent.get(key))
        self._recent.move_to_end(key)
        runs = run.latest(now - _WINDOW)
        if len(runs) <= _LIMIT or key in self._quiet_until:
            return None
        return self._found(Storm(key, len(runs), Counter(reason for run in runs for reason in run.reasons)), now)

    def note_steps(self, key: K, steps: int) -> Storm[K] | None:
        """Return a description if the successive steps of a key seem not to end.

        Args:
            key: the key.
            steps: how many of its reconciles have returned ``Result(again=True)``, one after the other.
        """
        if steps <= _STEPS:
            return None
        now = self._clock.monotonic()
        self._drop_idle(now)
        if key in self._quiet_until:
            return None
        return self._found(Storm(key, steps, Counter({words.AGAIN: steps}), steps=True), now)

    @property
    def storms(self) -> int:
        """Return the number of tight loops since the start, logged or not."""
        return self._storms

    def is_quiet(self, key: K) -> bool:
        """Return whether the key was found within the last five minutes, so that it is not reported again."""
        return self._quiet_until.get(key, 0.0) > self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._recent)

    def _found(self, storm: Storm[K], now: float) -> Storm[K]:
        self._quiet_until[storm.key] = now + _QUIET
        self._storms += 1
        if self._is_limit_reached(now):
            self._skipped += 1
            return replace(storm, logged=False)
        skipped, self._skipped = self._skipped, 0
        self._logged_at.append(now)
        return replace(storm, last=self._is_limit_reached(now), skipped=skipped)

    def _is_limit_reached(self, now: float) -> bool:
        return len(self._logged_at) == _MAX_LOGGED and self._logged_at[0] > now - _WINDOW

    def _drop_idle(self, now: float) -> None:
        while self._recent and next(iter(self._recent.values())).at <= now - _WINDOW:
            self._recent.popitem(last=False)
        while self._quiet_until and next(iter(self._quiet_until.values())) <= now:
            self._quiet_until.popitem(last=False)


class TightLoops(ReconcileObserver):
    """The observer that logs and counts tight loops.

    Args:
        clock: source of monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._alarm: StormAlarm[Request] = StormAlarm(clock)
        self._changing: set[Request] = set()  # keys whose latest reconcile changed another object

    @property
    def storms(self) -> int:
        """Return the number of tight loops since the start, logged or not."""
        return self._alarm.storms

    def is_in_loop(self, key: Request) -> bool:
        """Return whether a tight loop of a key was found within the last five minutes."""
        return self._alarm.is_quiet(key)

    def begun(self, reconcile: Reconcile, /) -> None:
        """Count a reconcile, unless it was asked for."""
        key, run = reconcile.request, reconcile.run
        caused = key in self._changing
        if caused:
            self._changing.discard(key)
        storm = self._alarm.note(key, run.reasons, by_timer=reconcile.by_timer, caused=caused)
        if storm is not None:
            self._report(run, storm)

    def ended(self, reconcile: Reconcile, /) -> None:
        """Remember a reconcile that changed another object, which can enqueue its key again."""
        if reconcile.changed_others:
            self._changing.add(reconcile.request)

    def again(self, reconcile: Reconcile, steps: int, /) -> None:
        """Look for successive steps that do not end."""
        storm = self._alarm.note_steps(reconcile.request, steps)
        if storm is not None:
            self._report(reconcile.run, storm)

    def forgotten(self, key: Request, /) -> None:
        """Forget an object that is gone."""
        self._changing.discard(key)

    def _report(self, run: ReconcileRun, storm: Storm[Request]) -> None:
        if storm.logged:
            _log.warning("%s reconciles in a tight loop: %s", run.controller, storm, extra=run.log_fields())
