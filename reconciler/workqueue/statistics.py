"""The reports of a queue: snapshots of a key and of the queue, and the protocol for metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol

from reconciler.workqueue.entry import Entry, K, due_reasons, named

__all__ = ["Explanation", "InProgress", "QueueMetrics", "QueueStatistics", "explain"]


class InProgress(NamedTuple, Generic[K]):
    """A key that `WorkQueue.get` has returned and that is not done.

    Attributes:
        key: the key.
        reasons: the named reasons that it was queued for, without those of delays that had not ended.
        priority: the priority that it was queued with.
        since: monotonic second at which `get` returned it.
        by_timer: whether only its timer made it ready, and no add without delay.
    """

    key: K
    reasons: frozenset[str]
    priority: int
    since: float
    by_timer: bool = False


@dataclass(frozen=True, slots=True)
class Explanation(Generic[K]):
    """The state of a key in the queue, and why; ``str`` gives one readable line.

    Attributes:
        key: the key.
        in_progress: seconds since `get` returned it, None when it is not in progress.
        current_reasons: the named reasons that it is in progress for.
        ready: seconds since it became ready (for a key in progress, since it was added again); None when it is not.
        due: seconds until its timer makes it ready, None without one. An expired timer gives 0.
        priority: of the pending entry, None when none is pending.
        reasons: the named reasons of the pending entry.
        next_reasons: those of `reasons` that the processing will have if it begins now, or when the timer ends.
        failures: the failures that the rate limiter has recorded.
    """

    key: K
    in_progress: float | None = None
    current_reasons: frozenset[str] = frozenset()
    ready: float | None = None
    due: float | None = None
    priority: int | None = None
    reasons: frozenset[str] = frozenset()
    next_reasons: frozenset[str] = frozenset()
    failures: int = 0

    def __str__(self) -> str:
        parts = []
        if self.in_progress is not None:
            parts.append(f"in progress for {self.in_progress:.3g} s{_because(self.current_reasons)}")
        if self.ready is not None and self.in_progress is None:
            parts.append(f"ready for {self.ready:.3g} s, {self._pending()}")
        elif self.ready is not None:
            parts.append(f"queued again {self.ready:.3g} s ago, {self._pending()}")
        if self.due is not None:
            parts.append(f"due in {self.due:.3g} s, {self._pending()}")
        if self.failures:
            parts.append("1 failure" if self.failures == 1 else f"{self.failures} failures")
        return f"{self.key}: {'; '.join(parts) or 'not queued'}"

    def _pending(self) -> str:
        return f"priority {self.priority}{_because(self.next_reasons)}"


def _because(reasons: frozenset[str]) -> str:
    return f" ({', '.join(sorted(reasons))})" if reasons else ""


def explain(key: K, entry: Entry[K] | None, *, now: float, failures: int) -> Explanation[K]:
    """Return the explanation of a key.

    Args:
        key: the key.
        entry: its entry, None if it has none.
        now: monotonic time.
        failures: the failures that the rate limiter has recorded.
    """
    if entry is None:
        return Explanation(key, failures=failures)
    found = Explanation(key, failures=failures)
    if entry.started_at is not None:
        found = replace(found, in_progress=now - entry.started_at, current_reasons=named(entry.reasons))
    pending = entry.pending
    if pending is None:
        return found
    return replace(
        found,
        ready=now - pending.ready_at if pending.due is None else None,
        due=None if pending.due is None else max(0.0, pending.due - now),
        priority=pending.priority,
        reasons=named(pending.reasons),
        next_reasons=named(due_reasons(pending.reasons, pending.later, now if pending.due is None else pending.due)),
    )


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The counters and the state of a queue at one moment.

    Attributes:
        name: the queue's name.
        ready: keys that are processed as soon as a worker is free, including those that are in progress as well.
        ready_by_priority: the same, for each priority that has any.
        waiting: keys with a timer.
        in_progress: keys in progress.
        idle_workers: calls of `get` that wait.
        adds: how often a key became ready.
        gets: how often `get` returned a key.
        delayed_adds: adds with a delay, including rate-limited ones.
        dropped_adds: adds that came after the shutdown began.
        dropped_ready: ready keys that a shutdown dropped.
        dropped_timers: timers that a shutdown dropped.
        longest_in_progress: seconds since `get` returned the oldest key in progress; 0.0 when there is none.
        unfinished_work: sum of those seconds over all keys in progress.
        shutting_down: whether a shutdown has begun.
    """

    name: str
    ready: int
    ready_by_priority: Mapping[int, int]
    waiting: int
    in_progress: int
    idle_workers: int
    adds: int
    gets: int
    delayed_adds: int
    dropped_adds: int
    dropped_ready: int
    dropped_timers: int
    longest_in_progress: float
    unfinished_work: float
    shutting_down: bool


class QueueMetrics(Protocol):
    """The metrics of one queue: how long keys wait, and how long they are in progress.

    Everything else is a counter or a state that the queue has anyway, so it is read from the queue's statistics when
    somebody asks. The methods are called while the queue works: they must be quick. What the
    two that observe durations raise is logged once and ignored.
    """

    def watch(self, statistics: Callable[[], QueueStatistics], /) -> None:
        """Called once, when the queue is created, with the function that returns its statistics."""
        ...

    def observe_queue_duration(self, seconds: float, /) -> None:
        """Called when `get` returns a key, with the time that the key was ready."""
        ...

    def observe_work_duration(self, seconds: float, /) -> None:
        """Called when a key is done, with the time that it was in progress."""
        ...
