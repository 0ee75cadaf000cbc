"""Notice keys that reconcile in a tight loop, and say why they do.

A parent that rewrites its child at each run, two controllers that fight over one field, a reconcile that asks for
``again=True`` for ever: each looks like a busy, healthy controller. More than ten runs of one key within ten seconds
are reported once, with the reasons of those runs. What makes thousands of keys run so is one fault: a few of them are
told of, the others are counted.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from reconciler.clock import Clock, current_clock

__all__ = ["Storm", "StormAlarm"]

K = TypeVar("K", bound=Hashable)

_TOLD = 10
"""Storms that are told of within a window."""


@dataclass(frozen=True, slots=True)
class Storm(Generic[K]):
    """Describe a tight loop.

    Attributes:
        key: what runs too often.
        runs: how many runs there were within `window`.
        window: seconds.
        reasons: how many of those runs had each reason; a run may have several.
        told: whether it is to be told of; if not, it is one of very many.
        last: whether those that follow soon are not told of.
        untold: how many were not, since the one before that was.
    """

    key: K
    runs: int
    window: float
    reasons: Counter[str]
    told: bool = True
    last: bool = False
    untold: int = 0

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} x{count}" for reason, count in self.reasons.most_common()) or "nothing known"
        counted = f"; storms that were only counted since the last one told of: {self.untold}" if self.untold else ""
        more = "; others that follow soon are only counted" if self.last else ""
        return f"{self.key} ran {self.runs} times within {self.window:g} s, because of: {reasons}{counted}{more}"


class StormAlarm(Generic[K]):
    """Count the runs of each key in a sliding window. Keys that did not run lately cost nothing.

    Args:
        limit: runs within the window that are still in order. Default 10.
        window: seconds. Default 10.
        quiet: seconds before the same key is reported again. Default 300.
        clock: source of monotonic time.
    """

    def __init__(
        self, *, limit: int = 10, window: float = 10.0, quiet: float = 300.0, clock: Clock | None = None
    ) -> None:
        self._limit = limit
        self._window = window
        self._quiet = quiet
        self._clock = clock or current_clock()
        self._recent: OrderedDict[K, deque[tuple[float, frozenset[str]]]] = OrderedDict()
        self._quiet_until: OrderedDict[K, float] = OrderedDict()
        self._told: deque[float] = deque(maxlen=_TOLD)
        self._untold = 0
        self._storms = 0

    def note(self, key: K, reasons: Iterable[str]) -> Storm[K] | None:
        """Count a run; return a description when the key has become a storm."""
        now = self._clock.monotonic()
        self._drop_idle(now)
        runs = self._recent.get(key)
        if runs is None:
            runs = self._recent[key] = deque(maxlen=self._limit + 1)
        else:
            self._recent.move_to_end(key)
        runs.append((now, frozenset(reasons)))
        while runs[0][0] <= now - self._window:
            runs.popleft()
        if len(runs) <= self._limit or key in self._quiet_until:
            return None
        self._quiet_until[key] = now + self._quiet
        self._storms += 1
        found = Counter(reason for _, reasons in runs for reason in reasons)
        if self._has_told_enough(now):
            self._untold += 1
            return Storm(key, len(runs), self._window, found, told=False)
        untold, self._untold = self._untold, 0
        self._told.append(now)
        return Storm(key, len(runs), self._window, found, last=self._has_told_enough(now), untold=untold)

    @property
    def storms(self) -> int:
        """Return how many storms there were since the start, told of or not."""
        return self._storms

    def __len__(self) -> int:
        return len(self._recent)

    def _has_told_enough(self, now: float) -> bool:
        return len(self._told) == _TOLD and self._told[0] > now - self._window

    def _drop_idle(self, now: float) -> None:
        while self._recent and next(iter(self._recent.values()))[-1][0] <= now - self._window:
            self._recent.popitem(last=False)
        while self._quiet_until and next(iter(self._quiet_until.values())) <= now:
            self._quiet_until.popitem(last=False)
