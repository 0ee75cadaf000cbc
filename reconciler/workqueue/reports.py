"""Describe a queue, a run, and why a key waits: snapshots that do not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from reconciler.workqueue.entry import K

__all__ = ["Explanation", "QueueStatistics", "Run"]


@dataclass(frozen=True, slots=True)
class Run(Generic[K]):
    """Tell what was handed out.

    Attributes:
        key: the key in hand.
        reasons: the named reasons that led to the run.
        priority: the priority it was handed out with.
        since: monotonic second of the hand-out.
    """

    key: K
    reasons: frozenset[str]
    priority: int
    since: float


@dataclass(frozen=True, slots=True)
class Explanation(Generic[K]):
    """Tell where a key stands and why; prints as one readable line.

    Attributes:
        key: the key asked for.
        in_hand: seconds since it was handed out, None when it is not in hand.
        run_reasons: the named reasons of the run in hand.
        ready: seconds since it became ready (for a key that is in hand, since it was added again); None when it is not.
        due: seconds until its timer makes it ready, None without one. A timer that is late gives 0.
        priority: of the pending run, None when none is pending.
        reasons: the named reasons of the pending run.
        failures: what the rate limiter has on record.
    """

    key: K
    in_hand: float | None = None
    run_reasons: frozenset[str] = frozenset()
    ready: float | None = None
    due: float | None = None
    priority: int | None = None
    reasons: frozenset[str] = frozenset()
    failures: int = 0

    def __str__(self) -> str:
        parts = []
        if self.in_hand is not None:
            parts.append(f"in hand for {self.in_hand:.3g} s{_because(self.run_reasons)}")
        if self.ready is not None:
            when = "ready for" if self.in_hand is None else "runs again afterwards, added"
            parts.append(f"{when} {self.ready:.3g} s{'' if self.in_hand is None else ' ago'}, {self._pending()}")
        if self.due is not None:
            parts.append(f"waits {self.due:.3g} s more, {self._pending()}")
        if self.failures:
            parts.append("1 failure" if self.failures == 1 else f"{self.failures} failures")
        return f"{self.key}: {'; '.join(parts) or 'not queued'}"

    def _pending(self) -> str:
        return f"priority {self.priority}{_because(self.reasons)}"


def _because(reasons: frozenset[str]) -> str:
    return f" ({', '.join(sorted(reasons))})" if reasons else ""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Count what a queue holds and what it did.

    Attributes:
        name: the queue's name.
        ready: keys that are to run as soon as a worker is free, those that are in hand as well included.
        ready_by_priority: the same, for each priority that has any.
        waiting: keys with a timer.
        in_hand: keys that workers hold.
        idle_workers: calls of `get` that wait.
        adds: how often a key became ready.
        hand_outs: how often a key was handed out.
        delayed_adds: adds with a delay, those by the rate limiter included.
        dropped_adds: adds that came after the shutdown began.
        dropped_ready: ready keys that a shutdown dropped.
        dropped_timers: timers that a shutdown dropped.
        longest_in_hand: seconds since the oldest hand-out that is not done; 0.0 when there is none.
        unfinished: sum of those seconds over all keys in hand.
        shutting_down: whether a shutdown has begun.
    """

    name: str
    ready: int
    ready_by_priority: Mapping[int, int]
    waiting: int
    in_hand: int
    idle_workers: int
    adds: int
    hand_outs: int
    delayed_adds: int
    dropped_adds: int
    dropped_ready: int
    dropped_timers: int
    longest_in_hand: float
    unfinished: float
    shutting_down: bool
