"""The entry of one key in the queue, and the reasons it is queued for."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import msgspec

__all__ = ["MAX_REASONS", "Entry", "K", "Reasons", "due_reasons", "named", "with_reason", "without_reason"]

K = TypeVar("K", bound=Hashable)

MAX_REASONS = 32
"""How many different reasons an entry stores. Further ones count as an add without a reason."""

Reasons = str | set[str] | None
"""None: none is left. ``""`` is the reason of an add without one; it keeps the entry pending like any other.

Nearly every entry has one reason, so a set is allocated for the second one only.
"""


class Entry(msgspec.Struct, Generic[K], eq=False, gc=False):
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
    next: Entry[K] | None = None

    @property
    def pending(self) -> Entry[K] | None:
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
