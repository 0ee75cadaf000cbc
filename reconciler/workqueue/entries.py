"""The entry of one key in the queue, with the reasons it is queued for, and the reports of a queue."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

MAX_REASONS = 32
"""How many different reasons an entry stores. Further ones count as an add without a reason."""

Reasons = str | set[str] | None
"""None: none is left. ``""`` is the reason of an add without one; it keeps the entry pending like any other.

Nearly every entry has one reason, so a set is allocated for the second one only.
"""


class QueueEntry(msgspec.Struct, Generic[K], eq=False, gc=False):
    """A key that is ready, waiting or in progress, exactly one of the three.

    An entry in progress does not change. What its key is added for in the meantime is another entry, `next`, which is
    ready or waiting. These always hold:

    * a pending entry waits while it has a timer, and is ready otherwise;
    * an entry is in the ready order exactly when it is ready and not the `next` of another;
    * an entry that was withdrawn or is done is in no structure at all.

    The garbage collector does not track it: nothing that it refers to leads back to it, unless a key refers to the
    queue. Ten thousand keys that wait for a retry would be most of what a full collection examines.

    Attributes:
        key: the key.
        reasons: why it is pending; once it is in progress, those whose delay had ended.
        priority: the highest one that was given.
        ready_at: monotonic second from which `get` could have returned it; stale while it is waiting.
        later: monotonic second of each reason that waits for a time of its own; None unless reasons with different
            times were merged. A reason that is not in it is due when the entry is ready.
        by_timer: whether its timer made it ready, and no add without delay has followed; stale while it is waiting.
        due: monotonic second at which it becomes ready; None without a timer.
        group: its group in the ready order; None if the queue has no groups, or before it is ready.
        timer: stamp of its item in the heap of timers; stale without a timer.
        limited: whether the rate limiter was charged for it.
        started_at: monotonic second at which `get` returned it; None until then.
        next: the pending entry of a key in progress, if it was added again; None otherwise.
    """

    key: K
    reasons: Reasons
    priority: int
    ready_at: float
    later: dict[str, float] | None = None
    by_timer: bool = False
    due: float | None = None
    group: Hashable = None
    timer: int = 0
    limited: bool = False
    started_at: float | None = None
    next: QueueEntry[K] | None = None

    @property
    def pending(self) -> QueueEntry[K] | None:
        """The entry of the key that is ready or waiting: this one, or the next; None if there is none."""
        return self if self.started_at is None else self.next

    def merge_reason(self, reason: str, due: float | None) -> None:
        """Add a reason to a pending entry.

        Args:
            reason: the reason.
            due: monotonic second from which it applies; None for now.
        """
        reasons, later, timer = self.reasons, self.later, self.due
        if later is None and (due is not None or timer is not None):
            # Until now, all reasons of a waiting entry waited for its timer.
            later = self.later = {} if timer is None else dict.fromkeys(_as_set(reasons), timer)
        if later is not None:
            if due is None:
                later.pop(reason, None)
            elif reason in later:
                later[reason] = min(due, later[reason])
            elif reason not in _as_set(reasons) and len(later) < MAX_REASONS:
                later[reason] = due
        self.reasons = reason if reasons is None else with_reason(reasons, reason)


def due_reasons(reasons: Reasons, later: Mapping[str, float] | None, now: float) -> Reasons:
    """Return the reasons that apply at a time: without those of timers that have not ended, unless all are."""
    if not later or not isinstance(reasons, set):
        return reasons
    return {reason for reason in reasons if later.get(reason, now) <= now} or reasons


def _as_set(reasons: Reasons) -> set[str]:
    if reasons is None:
        return set()
    return {reasons} if isinstance(reasons, str) else reasons


def with_reason(reasons: str | set[str], reason: str) -> str | set[str]:
    """Return the reasons with one more; a set is changed in place."""
    if isinstance(reasons, str):
        return reasons if reasons == reason else {reasons, reason}
    if reason not in reasons:
        reasons.add(reason if len(reasons) < MAX_REASONS else "")
    return reasons


def without_reason(reasons: Reasons, reason: str) -> tuple[bool, Reasons]:
    """Return whether a reason was there, and the remaining ones; a set is changed in place."""
    if not isinstance(reasons, set):
        return (True, None) if reasons == reason else (False, reasons)
    if reason not in reasons:
        return False, reasons
    reasons.remove(reason)
    return True, reasons or None


def named(reasons: Reasons) -> frozenset[str]:
    """Return the reasons without the empty one."""
    if not reasons:
        return frozenset()
    return _alone(reasons) if isinstance(reasons, str) else _shared(frozenset(reasons) - {""})


@functools.lru_cache(maxsize=256)  # nearly every key has one reason, one of a few
def _alone(reason: str) -> frozenset[str]:
    return frozenset((reason,))


@functools.lru_cache(maxsize=256)  # or one of a few sets, of which the history keeps one for each reconcile
def _shared(reasons: frozenset[str]) -> frozenset[str]:
    return reasons


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

    @property
    def is_active(self) -> bool:
        """Return whether the key is in progress or ready."""
        return self.in_progress is not None or self.ready is not None

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


def explain(key: K, entry: QueueEntry[K] | None, *, now: float, failures: int) -> Explanation[K]:
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
        low_limit: how many keys of a negative priority may be in progress now; None without a limit.
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
    low_limit: int | None = None


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
