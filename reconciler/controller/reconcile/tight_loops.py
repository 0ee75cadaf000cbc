"""The detection of keys that are reconciled in a tight loop.

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
from collections import Counter, OrderedDict, deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import msgspec

from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.wake import reasons as words
from reconciler.meta import Request

_log = logging.getLogger("reconciler.controller")


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
class Storm:
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

    key: Request
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


class TightLoops(ReconcileObserver):
    """The observer that logs and counts tight loops, by counts in a sliding window. Idle keys take no memory.

    Reconciles that were asked for do not count: a retry, ``again``, or a delay, and no other reason.

    Args:
        clock: source of monotonic time.

    Attributes:
        storms: the number of tight loops since the start, logged or not.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: OrderedDict[Request, _UnaskedReconcile] = OrderedDict()
        self._quiet_until: OrderedDict[Request, float] = OrderedDict()
        self._logged_at: deque[float] = deque(maxlen=_MAX_LOGGED)
        self._skipped = 0
        self.storms = 0
        self._changing: set[Request] = set()  # keys whose latest reconcile changed another object

    def begun(self, reconcile: Reconcile, /) -> None:
        """Count a reconcile, unless it was asked for."""
        key, run = reconcile.request, reconcile.run
        caused = key in self._changing
        if caused:
            self._changing.discard(key)
        storm = self.note(key, run.reasons, by_timer=reconcile.by_timer, caused=caused)
        if storm is not None:
            self._report(run, storm)

    def ended(self, reconcile: Reconcile, /) -> None:
        """Remember a reconcile that changed another object, which can enqueue its key again."""
        if reconcile.changed_others:
            self._changing.add(reconcile.request)

    def again(self, reconcile: Reconcile, steps: int, /) -> None:
        """Look for successive steps that do not end."""
        storm = self.note_steps(reconcile.request, steps)
        if storm is not None:
            self._report(reconcile.run, storm)

    def forgotten(self, key: Request, /) -> None:
        """Forget an object that is gone."""
        self._changing.discard(key)

    def note(
        self, key: Request, reasons: AbstractSet[str], *, by_timer: bool = False, caused: bool = True
    ) -> Storm | None:
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

    def note_steps(self, key: Request, steps: int) -> Storm | None:
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

    def is_in_loop(self, key: Request) -> bool:
        """Return whether a tight loop of a key was found within the last five minutes: it is not reported again."""
        return self._quiet_until.get(key, 0.0) > self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._recent)

    def _found(self, storm: Storm, now: float) -> Storm:
        self._quiet_until[storm.key] = now + _QUIET
        self.storms += 1
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

    def _report(self, run: ReconcileRun, storm: Storm) -> None:
        if storm.logged:
            _log.warning("%s reconciles in a tight loop: %s", run.controller, storm, extra=run.log_fields())
