"""Rate limiters: small, composable objects that compute how long a failed key waits.

The numbers are those of Kubernetes' own controllers: client-go's default is ``MaxOf(ExponentialBackoff(0.005, 1000),
TokenBucket(10, 100))``. controller-runtime's default, and ours, is the first of the two alone.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import operator
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, SupportsIndex, runtime_checkable

from reconciler._core.backoff import Backoff
from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.user_code import FAILURES
from reconciler.clock import Clock, current_clock
from reconciler.errors import RepeatedFailures

_log = logging.getLogger("reconciler.workqueue")


class RateLimiter(Protocol):
    """A rate limiter: computes the delay of a key from its history, such as its failures.

    If a method of your own class raises, or returns what is not a number, the error is logged, and the key has the
    default backoff instead (``ExponentialBackoff(0.005, 1000)``, from its number of failures). So no key is lost.
    """

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return the delay in seconds, 0 or more, before it may be processed again."""
        ...

    def forget(self, key: Hashable, /) -> None:
        """Drop the history of a key."""

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


class _CountsFailures:
    """The base class of rate limiters that count the failures of each key."""

    def __init__(self) -> None:
        self._failures: dict[Hashable, int] = {}

    def forget(self, key: Hashable, /) -> None:
        """Drop the history of a key."""
        self._failures.pop(key, None)

    def retries(self, key: Hashable, /) -> int:
        """Return how often a key has failed since it was last forgotten."""
        return self._failures.get(key, 0)


class ExponentialBackoff(_CountsFailures):
    """An exponential backoff: the delay of a key doubles with each failure.

    Args:
        base: the duration (seconds, a timedelta or ``"5ms"``) after the first failure.
        maximum: the longest delay, a duration; reached after ``log2(maximum / base)`` failures.
        jitter: fraction by which a delay may differ from its exact value, 0 to 1. Defaults to 0: exact delays.
        rng: source of the jitter; a seeded one gives repeatable delays. Defaults to the process-wide generator.

    Raises:
        ValueError: a delay is not a duration of 0 or more, or the jitter is out of its range.
    """

    def __init__(
        self,
        base: DurationLike,
        maximum: DurationLike,
        *,
        jitter: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__()
        shortest, longest = seconds_of("base", base, zero=True), seconds_of("maximum", maximum, zero=True)
        self._backoff = Backoff(shortest, maximum=longest, jitter=jitter)
        self._rng = rng

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return self._backoff.delay(failures, self._rng)


class FastSlow(_CountsFailures):
    """A few fast retries, then slow ones.

    Args:
        fast: the delay (seconds, a timedelta or ``"5ms"``) after each of the first failures.
        slow: the delay after each further one.
        max_fast: the number of fast retries.

    Raises:
        ValueError: a delay is not a duration of 0 or more.
    """

    def __init__(self, fast: DurationLike, slow: DurationLike, max_fast: int) -> None:
        super().__init__()
        self._fast = seconds_of("fast", fast, zero=True)
        self._slow = seconds_of("slow", slow, zero=True)
        self._max_fast = max_fast

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return self._fast if failures <= self._max_fast else self._slow


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
        # When each token becomes available; future ones only.
        self._reserved: OrderedDict[Hashable, float] = OrderedDict()

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
        TypeError: one is not a rate limiter.
    """

    def __init__(self, *limiters: RateLimiter) -> None:
        if not limiters:
            raise ValueError("MaxOf needs at least one limiter")
        self._limiters = [guarded_limiter(limiter) for limiter in limiters]

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


class WithMaxWait(MaxOf):
    """The delays of another limiter, with an upper limit.

    Args:
        limiter: the other limiter.
        maximum: the longest delay: seconds, a timedelta or ``"5m"``.

    Raises:
        ValueError: the maximum is not a duration of 0 or more.
        TypeError: the other one is not a rate limiter.
    """

    def __init__(self, limiter: RateLimiter, maximum: DurationLike) -> None:
        super().__init__(limiter)
        self._maximum = seconds_of("maximum", maximum, zero=True)

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds, at most the maximum."""
        return min(super().when(key), self._maximum)

    def when_duplicate(self, key: Hashable, /) -> float:
        """Return the delay as `when` does, without a charge to shared budgets."""
        return min(super().when_duplicate(key), self._maximum)


class NeverRaises:
    """The base class of rate limiters that handle what the one that they wrap raises."""


class _Guarded(NeverRaises):
    """A rate limiter of the user, with the default backoff for what it fails to compute; see `RateLimiter`.

    The first failure of each method is logged as an error, further ones at level DEBUG: there may be one per reconcile.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._default = ExponentialBackoff(0.005, 1000)
        self._failures = RepeatedFailures(
            _log, logging.ERROR, "rate limiter %s: %s failed on %s, which has the default backoff instead"
        )

    def when(self, key: Hashable, /) -> float:
        """Count one failure of a key; return its delay in seconds."""
        return self._delay(key, self._limiter.when)

    def when_duplicate(self, key: Hashable, /) -> float:
        """Return the delay as `when` does, without a charge to shared budgets."""
        return self._delay(key, functools.partial(when_duplicate, self._limiter))

    def forget(self, key: Hashable, /) -> None:
        """Forget the key."""
        self._default.forget(key)
        try:
            self._limiter.forget(key)
        except FAILURES as error:
            self._report("forget", key, error)

    def retries(self, key: Hashable, /) -> int:
        """Return the other limiter's count."""
        try:
            return _count(self._limiter.retries(key))
        except FAILURES as error:
            self._report("retries", key, error)
            return self._default.retries(key)

    def _delay(self, key: Hashable, when: Callable[[Hashable], object]) -> float:
        default = self._default.when(key)  # counts the failure, even if it is not needed now
        try:
            return _delay(when(key))
        except FAILURES as error:
            self._report("when", key, error)
            return default

    def _report(self, method: str, key: Hashable, error: BaseException) -> None:
        self._failures.log(error, type(self._limiter).__name__, method, key, kind=method)


_SAFE = (ExponentialBackoff, FastSlow, TokenBucket, MaxOf, WithMaxWait)


def guarded_limiter(limiter: RateLimiter | None) -> RateLimiter:
    """Return a rate limiter that does not raise: the default one, one of this module, or a guarded one of the user.

    Args:
        limiter: the rate limiter; None for the default, ``ExponentialBackoff(0.005, 1000)``.

    Raises:
        TypeError: it is not a rate limiter.
    """
    if limiter is None:
        return ExponentialBackoff(0.005, 1000)
    if type(limiter) in _SAFE or isinstance(limiter, NeverRaises):
        return limiter
    for name in ("when", "forget", "retries"):
        method = getattr(limiter, name, None)
        if isinstance(limiter, type) or not callable(method) or inspect.iscoroutinefunction(method):
            raise TypeError(
                f"{limiter!r} is not a rate limiter: pass an instance of a class with the plain methods "
                "when, forget and retries"
            )
    return _Guarded(limiter)


def _delay(given: object) -> float:
    """Return a delay that a limiter has computed.

    Raises:
        ValueError: it is not a finite number, 0 or more.
    """
    try:
        if math.isfinite(given) and given >= 0:  # type: ignore[arg-type, operator]
            return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{given!r} is not a finite number of seconds, 0 or more")


def _count(given: object) -> int:
    """Return a number of failures that a limiter has counted.

    Raises:
        ValueError: it is not an integer, 0 or more.
    """
    if isinstance(given, SupportsIndex) and operator.index(given) >= 0:
        return operator.index(given)
    raise ValueError(f"{given!r} is not a number of failures, 0 or more")
