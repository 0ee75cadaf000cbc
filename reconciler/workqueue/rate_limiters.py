"""Rate limiters: small, composable objects that compute how long a failed key waits.

The numbers are those of Kubernetes' own controllers: client-go's default is ``MaxOf(ExponentialBackoff(0.005, 1000),
TokenBucket(10, 100))``. controller-runtime's default, and ours, is the first of the two alone.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from reconciler.backoff import Backoff
from reconciler.clock import Clock, current_clock

__all__ = [
    "ExponentialBackoff",
    "FastSlow",
    "MaxOf",
    "RateLimiter",
    "SharedBudget",
    "TokenBucket",
    "WithMaxWait",
    "when_duplicate",
]


class RateLimiter(Protocol):
    """A rate limiter: computes the delay of a key from its history, such as its failures."""

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return the delay in seconds before it may be processed again."""
        ...

    def forget(self, key: Hashable, /) -> None:
        """Drop the history of a key."""
        ...

    def retries(self, key: Hashable, /) -> int:
        """Return how often a key has failed since it was last forgotten."""
        ...


@runtime_checkable
class SharedBudget(Protocol):
    """A rate limiter whose keys share a budget, to which a key that is already scheduled must not be charged twice."""

    def when_duplicate(self, key: Hashable, /) -> float:
        """Return the delay as `when` does, for a key that is already scheduled: without a charge to the budget."""
        ...


def when_duplicate(limiter: RateLimiter, key: Hashable) -> float:
    """Return a limiter's delay for a key that is already scheduled; only a `SharedBudget` treats it differently."""
    return limiter.when_duplicate(key) if isinstance(limiter, SharedBudget) else limiter.when(key)


class ExponentialBackoff:
    """An exponential backoff: the delay of a key doubles with each failure.

    Args:
        base: seconds after the first failure.
        maximum: the longest delay in seconds; reached after ``log2(maximum / base)`` failures.
        jitter: fraction by which a delay may differ from its exact value, 0 to 1. Defaults to 0: exact delays.
        rng: source of the jitter; a seeded one gives repeatable delays. Defaults to the process-wide generator.

    Raises:
        ValueError: a number is negative, not finite, or out of its range.
    """

    def __init__(self, base: float, maximum: float, *, jitter: float = 0.0, rng: random.Random | None = None) -> None:
        if not math.isfinite(maximum):
            raise ValueError(f"maximum must be a finite number of seconds, not {maximum!r}")
        self._backoff = Backoff(base, maximum=maximum, jitter=jitter)
        self._rng = rng
        self._failures: dict[Hashable, int] = {}

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return self._backoff.delay(failures, self._rng)

    def forget(self, key: Hashable, /) -> None:
        """Start again from `base`."""
        self._failures.pop(key, None)

    def retries(self, key: Hashable, /) -> int:
        """Return how often a key has failed since it was last forgotten."""
        return self._failures.get(key, 0)


class FastSlow:
    """A few fast retries, then slow ones.

    Args:
        fast: delay in seconds after each of the first failures.
        slow: delay in seconds after each further one.
        max_fast: the number of fast retries.

    Raises:
        ValueError: a delay is negative or not finite.
    """

    def __init__(self, fast: float, slow: float, max_fast: int) -> None:
        self._fast = _seconds("fast", fast)
        self._slow = _seconds("slow", slow)
        self._max_fast = max_fast
        self._failures: dict[Hashable, int] = {}

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return self._fast if failures <= self._max_fast else self._slow

    def forget(self, key: Hashable, /) -> None:
        """Start again with the fast retries."""
        self._failures.pop(key, None)

    def retries(self, key: Hashable, /) -> int:
        """Return how often a key has failed since it was last forgotten."""
        return self._failures.get(key, 0)


class TokenBucket:
    """A token bucket: limits the rate of all keys together.

    A key takes a token, or reserves the next one and waits for it. A key that is already scheduled keeps the token that
    it has, so a flood of adds of one key does not slow down the others.

    Args:
        rate: tokens per second.
        burst: the capacity of the bucket, which starts full.
        clock: source of monotonic time. Defaults to the current clock.

    Raises:
        ValueError: the rate is not positive and finite, or the burst is below 1.
    """

    def __init__(self, rate: float, burst: int, *, clock: Clock | None = None) -> None:
        if not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"rate must be a positive number of tokens a second, not {rate!r}")
        if burst < 1:
            raise ValueError(f"burst must be 1 token or more, not {burst!r}")
        self._rate = rate
        self._burst = burst
        self._clock = clock or current_clock()
        self._tokens = float(burst)
        self._at = self._clock.monotonic()
        self._reserved: OrderedDict[Hashable, float] = (
            OrderedDict()
        )  # when each token becomes available; future ones only

    def when(self, key: Hashable, /) -> float:
        """Take or reserve a token; return the seconds until it is available."""
        now = self._refill()
        self._tokens -= 1
        delay = max(0.0, -self._tokens / self._rate)
        if delay:
            self._reserved.pop(key, None)
            self._reserved[key] = now + delay
        return delay

    def when_duplicate(self, key: Hashable, /) -> float:
        """Return the seconds until the token that the key reserved is available, 0.0 without one; take no token."""
        now = self._refill()
        return max(0.0, self._reserved.get(key, now) - now)

    def forget(self, key: Hashable, /) -> None:
        """Forget which token the key reserved. The token is spent, not returned."""
        self._reserved.pop(key, None)

    def retries(self, _key: Hashable, /) -> int:
        """Return 0: a bucket does not count failures."""
        return 0

    def _refill(self) -> float:
        now = self._clock.monotonic()
        self._tokens = min(float(self._burst), self._tokens + (now - self._at) * self._rate)
        self._at = now
        while self._reserved:
            key, comes = next(iter(self._reserved.items()))
            if comes > now:
                break
            del self._reserved[key]
        return now


class MaxOf:
    """The longest delay of several limiters, all of which count each failure.

    Raises:
        ValueError: no limiter was given.
    """

    def __init__(self, *limiters: RateLimiter) -> None:
        if not limiters:
            raise ValueError("MaxOf needs at least one limiter")
        self._limiters = limiters

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key in each limiter; return the longest delay in seconds."""
        return max([limiter.when(key) for limiter in self._limiters])

    def when_duplicate(self, key: Hashable, /) -> float:
        """Return the delay as `when` does, without a charge to shared budgets."""
        return max([when_duplicate(limiter, key) for limiter in self._limiters])

    def forget(self, key: Hashable, /) -> None:
        """Forget the key in each limiter."""
        for limiter in self._limiters:
            limiter.forget(key)

    def retries(self, key: Hashable, /) -> int:
        """Return the highest count of the limiters."""
        return max(limiter.retries(key) for limiter in self._limiters)


class WithMaxWait:
    """The delays of another limiter, with an upper limit.

    Args:
        limiter: the other limiter.
        maximum: the longest delay in seconds.

    Raises:
        ValueError: the maximum is negative or not finite.
    """

    def __init__(self, limiter: RateLimiter, maximum: float) -> None:
        self._limiter = limiter
        self._maximum = _seconds("maximum", maximum)

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds, at most the maximum."""
        return min(self._limiter.when(key), self._maximum)

    def when_duplicate(self, key: Hashable, /) -> float:
        """Return the delay as `when` does, without a charge to shared budgets."""
        return min(when_duplicate(self._limiter, key), self._maximum)

    def forget(self, key: Hashable, /) -> None:
        """Forget the key."""
        self._limiter.forget(key)

    def retries(self, key: Hashable, /) -> int:
        """Return the other limiter's count."""
        return self._limiter.retries(key)


def _seconds(name: str, value: float) -> float:
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number of seconds, 0 or more, not {value!r}")
    return value
