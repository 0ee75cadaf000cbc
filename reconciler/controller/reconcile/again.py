"""The backoff of reconciles that return ``Result(again=True)`` one after the other.

The first step comes at once. Each further one waits as long as the rate limiter makes a failed key wait, but with the
default limiter no longer than a few seconds. So a reconcile that never stops asking cannot occupy a worker, and many
steps do not end in long pauses. A step is not counted as a failure.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from reconciler.workqueue import RateLimiter, SharedBudget, guarded_limiter

__all__ = ["AgainLimiter"]

_MAX_DELAY = 5.0
"""Seconds between two steps at most, with the default rate limiter: a step is work that is ready, and not a failure."""


class AgainLimiter:
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
        self._again: dict[Hashable, int] = {}  # how often a key has returned `again` up to its last reconcile
        self._mixed: dict[Hashable, int] = {}  # those that failed before an `again`: what is recorded of them up to it

    def again(self, key: Hashable, /, *, duplicate: bool = False) -> float:
        """Count one ``again`` of a key; return the delay in seconds before its next reconcile, 0.0 for the first.

        Args:
            key: the key.
            duplicate: whether the key is pending anyway, so that shared budgets are not charged. Default False.
        """
        delay = 0.0
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
        """Drop the history of a key."""
        if self._again:
            self._again.pop(key, None)
        if self._mixed:
            self._mixed.pop(key, None)
        self._limiter.forget(key)

    def retries(self, key: Hashable, /) -> int:
        """Return how often a key has failed since its last ``again``, or since it was last forgotten."""
        return 0 if key in self._again else self._limiter.retries(key) - self._mixed.get(key, 0)

    def _end_again(self, key: Hashable) -> None:
        if key in self._again:
            self._again.pop(key, None)
            if key not in self._mixed:
                self._limiter.forget(key)

    def _delay(self, key: Hashable, *, duplicate: bool) -> float:
        if duplicate and isinstance(self._limiter, SharedBudget):
            return self._limiter.when_duplicate(key)
        return self._limiter.when(key)
