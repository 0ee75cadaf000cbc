"""Hold what the queue knows of one key."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from reconciler.workqueue.reasons import Reasons

__all__ = ["Entry", "K"]

K = TypeVar("K", bound=Hashable)


class Entry(Generic[K]):
    """Be one key that is in hand, ready, waiting, or in hand and one of the others.

    These always hold:

    * it is pending, that is, ready or waiting, exactly when `reasons` is not None;
    * ready and waiting exclude each other: a ready entry has no timer;
    * it stands in the order of ready entries exactly when it is ready and not in hand;
    * an entry that is neither in hand nor pending is in no structure at all.

    Attributes:
        key: what is handed out.
        reasons: why it is pending.
        priority: of the pending run; unset or stale while it is not pending.
        ready: whether it is to run as soon as a worker is free and the run in hand, if any, has ended.
        ready_at: monotonic second from which it could have been handed out; stale while it is not ready.
        position: rises with each place taken in the order of ready entries; stale while it is not there.
        due: monotonic second at which it becomes ready, None when it has no timer.
        timer: stamp of the valid item in the waiting heap; 0 when it has no timer.
        limited: whether the rate limiter was charged for the pending run.
        run_since: monotonic second of the hand-out, None when it is not in hand.
        run_reasons: the reasons of the run in hand; stale while it is not in hand.
        run_priority: the priority of the run in hand; stale while it is not in hand.
    """

    __slots__ = (
        "due",
        "key",
        "limited",
        "position",
        "priority",
        "ready",
        "ready_at",
        "reasons",
        "run_priority",
        "run_reasons",
        "run_since",
        "timer",
    )

    priority: int
    ready_at: float
    position: int
    run_reasons: Reasons
    run_priority: int

    def __init__(self, key: K) -> None:
        self.key = key
        self.reasons: Reasons = None
        self.ready = False
        self.due: float | None = None
        self.timer = 0
        self.limited = False
        self.run_since: float | None = None
