"""Hold what the queue holds, and tell of it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic

from reconciler.workqueue.entry import Entry, K
from reconciler.workqueue.fair import FairOrder
from reconciler.workqueue.limiters import RateLimiter
from reconciler.workqueue.order import ReadyOrder
from reconciler.workqueue.reasons import named
from reconciler.workqueue.reports import Explanation, QueueStatistics, Run
from reconciler.workqueue.timers import Timers

__all__ = ["QueueState"]


class QueueState(Generic[K]):
    """Be what a queue knows; `WorkQueue` is what changes it.

    Args:
        name: for error messages and statistics.
        limiter: counts failures.
        now: tells monotonic time.
        fair_by: returns the group of a key; groups take turns. None for one group.
    """

    def __init__(
        self,
        name: str,
        limiter: RateLimiter,
        now: Callable[[], float],
        fair_by: Callable[[K], Hashable] | None = None,
    ) -> None:
        self._name = name
        self._limiter = limiter
        self._now = now
        self._entries: dict[K, Entry[K]] = {}
        self._order: ReadyOrder[K] | FairOrder[K] = ReadyOrder() if fair_by is None else FairOrder(fair_by)
        self._timers: Timers[K] = Timers()
        self._in_hand: set[Entry[K]] = set()
        self._ready = 0  # entries that are ready, those in hand as well included
        self._workers: deque[asyncio.Future[None]] = deque()
        self._closing = False
        self._adds = 0
        self._hand_outs = 0
        self._delayed_adds = 0
        self._dropped_adds = 0
        self._dropped_ready = 0
        self._dropped_timers = 0

    def __len__(self) -> int:
        """Return how many keys are ready, those that run once more after the run in hand included."""
        return self._ready

    @property
    def name(self) -> str:
        """Return the name that the queue was given."""
        return self._name

    @property
    def shutting_down(self) -> bool:
        """Say whether a shutdown has begun, so that adds are dropped."""
        return self._closing

    def run_of(self, key: K) -> Run[K] | None:
        """Return what was handed out for a key that is in hand, None for others."""
        entry = self._entries.get(key)
        if entry is None or entry.run_since is None:
            return None
        return Run(key, named(entry.run_reasons), entry.run_priority, entry.run_since)

    def reasons(self, key: K) -> frozenset[str]:
        """Return the named reasons for which a key is to run; those of a run in hand are in `run_of`."""
        entry = self._entries.get(key)
        return frozenset() if entry is None else named(entry.reasons)

    def retries(self, key: K) -> int:
        """Return how many failures of a key the rate limiter has on record."""
        return self._limiter.retries(key)

    def keys(self) -> list[K]:
        """Return all keys that are in hand, ready or waiting."""
        return list(self._entries)

    def explain(self, key: K) -> Explanation[K]:
        """Tell where a key stands, since when and why."""
        entry, now, failures = self._entries.get(key), self._now(), self._limiter.retries(key)
        if entry is None:
            return Explanation(key, failures=failures)
        in_hand, pending = entry.run_since is not None, entry.reasons is not None
        return Explanation(
            key,
            in_hand=None if entry.run_since is None else now - entry.run_since,
            run_reasons=named(entry.run_reasons) if in_hand else frozenset(),
            ready=now - entry.ready_at if entry.ready else None,
            due=None if entry.due is None else max(0.0, entry.due - now),
            priority=entry.priority if pending else None,
            reasons=named(entry.reasons),
            failures=failures,
        )

    def statistics(self) -> QueueStatistics:
        """Return a snapshot of what the queue holds and did; may be called from any thread."""
        now = self._now()
        in_hand = list(self._in_hand)
        ages = [now - entry.run_since for entry in in_hand if entry.run_since is not None]
        by_priority = self._order.sizes()
        by_priority.update(entry.priority for entry in in_hand if entry.ready)
        return QueueStatistics(
            name=self._name,
            ready=self._ready,
            ready_by_priority=dict(by_priority),
            waiting=len(self._timers),
            in_hand=len(ages),
            idle_workers=len(self._workers),
            adds=self._adds,
            hand_outs=self._hand_outs,
            delayed_adds=self._delayed_adds,
            dropped_adds=self._dropped_adds,
            dropped_ready=self._dropped_ready,
            dropped_timers=self._dropped_timers,
            longest_in_hand=max(ages, default=0.0),
            unfinished=math.fsum(ages),
            shutting_down=self._closing,
        )
