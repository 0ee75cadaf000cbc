"""The entry of one key in the queue, and the reasons it is queued for."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

__all__ = ["MAX_REASONS", "Entry", "K", "Reasons", "due_reasons", "named", "with_reason", "without_reason"]

K = TypeVar("K", bound=Hashable)

MAX_REASONS = 32
"""How many different reasons an entry stores. Further ones count as an add without a reason."""

Reasons = str | set[str] | None
"""None: not pending. ``""`` is the reason of an add without one; it keeps the entry pending like any other.

Nearly every entry has one reason, so a set is allocated for the second one only.
"""


class Entry(Generic[K]):
    """A key that is in progress, ready, waiting, or in progress and one of the other two.

    These always hold:

    * it is pending, that is, ready or waiting, exactly when `reasons` is not None;
    * ready and waiting exclude each other: a ready entry has no timer;
    * it is in the ready order exactly when it is ready and not in progress;
    * an entry that is neither in progress nor pending is in no structure at all.

    Attributes:
        key: the key.
        reasons: why it is pending.
        later: monotonic second of each reason that waits for a time of its own; None unless reasons with different
            times were merged. A reason that is not in it is due when the entry is ready.
        priority: of the pending entry; unset or stale while it is not pending.
        ready: whether it is processed as soon as a worker is free and the processing in progress, if any, has ended.
        ready_at: monotonic second from which `get` could have returned it; stale while it is not ready.
        by_timer: whether its timer made it ready, and no add without delay has followed; stale while it is not ready.
        position: rises with each insertion into the ready order; stale while it is not there.
        due: monotonic second at which it becomes ready; None without a timer.
        timer: stamp of the valid item in the heap of timers; 0 without a timer.
        limited: whether the rate limiter was charged for the pending entry.
        started_at: monotonic second at which `get` returned it; None when it is not in progress.
        current_reasons: the reasons it is in progress for; stale while it is not in progress.
        current_priority: the priority that it had when `get` returned it; stale while it is not in progress.
        current_by_timer: whether only its timer had made it ready; stale while it is not in progress.
    """

    __slots__ = (
        "by_timer",
        "current_by_timer",
        "current_priority",
        "current_reasons",
        "due",
        "key",
        "later",
        "limited",
        "position",
        "priority",
        "ready",
        "ready_at",
        "reasons",
        "started_at",
        "timer",
    )

    priority: int
    ready_at: float
    by_timer: bool
    position: int
    current_reasons: Reasons
    current_priority: int
    current_by_timer: bool

    def __init__(self, key: K) -> None:
        self.key = key
        self.reasons: Reasons = None
        self.later: dict[str, float] | None = None
        self.ready = False
        self.due: float | None = None
        self.timer = 0
        self.limited = False
        self.started_at: float | None = None

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
    return _alone(reasons) if isinstance(reasons, str) else frozenset(reasons) - {""}


@functools.lru_cache(maxsize=256)  # nearly every key has one reason, one of a few
def _alone(reason: str) -> frozenset[str]:
    return frozenset((reason,))
