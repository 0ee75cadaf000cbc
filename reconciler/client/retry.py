"""Retries: which requests may be sent again, how often, and after how long."""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from reconciler._core.backoff import Backoff
from reconciler._core.durations import Seconds
from reconciler.errors import (
    Conflict,
    InvalidResponse,
    NotSent,
    OutcomeUnknown,
    ReconcilerError,
    ServerError,
    TooManyRequests,
)

if TYPE_CHECKING:
    from tenacity import RetryCallState


T = TypeVar("T")

_logger = logging.getLogger("reconciler.client")

_CONFLICT_BACKOFF = Backoff(base=0.01, factor=1.0, jitter=0.1)
"""10 ms, factor 1, jitter 0.1 and five attempts are client-go's ``retry.DefaultRetry``."""


@dataclass(frozen=True)
class Retries:
    """The number and the delays of the retries of a request. Verb and failure decide whether it is retried.

    The wait before retry n (from 0) is ``base * 2**n`` seconds, at most `maximum`, spread by `jitter`. If the server
    asks for a longer wait (``Retry-After``), the client waits that long: up to an hour, and up to a tenth longer if
    there is jitter. A wait that would end after the `deadline` does not begin. The error is raised at once, and its
    ``retry_after`` is the wait. A reconcile that raises it is retried after that time.

    Attributes:
        attempts: how often a request is sent at most; 5 by default, 1 for no retries.
        base: the time (seconds, a timedelta or ``"100ms"``) before the first retry; 0.1 by default.
        maximum: the longest wait; 10 by default.
        jitter: share by which a wait may differ, 0 to 1; 0.5 by default.
        deadline: the time from the start of the first attempt, after which no further attempt starts; 120 by default.

    Raises:
        ValueError: a number is out of its range.
    """

    attempts: int = 5
    base: Seconds = Seconds(0.1, zero=True)
    maximum: Seconds = Seconds(10.0, zero=True)
    jitter: float = 0.5
    deadline: Seconds = Seconds(120.0)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be 1 or more, not {self.attempts!r}")
        self._backoff()

    def _backoff(self) -> Backoff:
        return Backoff(base=self.base, maximum=self.maximum, jitter=self.jitter)

    def delay(self, n: int, error: BaseException | None, rng: random.Random) -> float:
        """Return the seconds to wait before retry `n`, counted from 0, of a request that failed with `error`."""
        return self._backoff().delay(
            n, rng, retry_after=error.retry_after if isinstance(error, ReconcilerError) else None
        )


class RetryOn(enum.Enum):
    """The failures after which a request may be retried."""

    REFUSED = enum.auto()
    """Only failures that surely had no effect: the connection failed, or the request was rejected with 429."""

    UNKNOWN = enum.auto()
    """Also lost responses and 5xx: for reads, and for writes that identify their object."""


@dataclass(slots=True)
class RetryState:
    """The state of the attempts of one request.

    Attributes:
        unknown: whether a failed attempt may have taken effect.
    """

    unknown: bool = False


def may_retry(error: BaseException, on: RetryOn) -> bool:
    """Return whether a request that failed with `error` may be sent again."""
    if isinstance(error, TooManyRequests):
        # A disruption budget also forbids an eviction with 429. That is a response, not overload.
        return not any(cause.reason == "DisruptionBudget" for cause in error.causes)
    if isinstance(error, InvalidResponse):
        return False  # the next response would be the same
    if is_unknown(error):
        return on is RetryOn.UNKNOWN
    return isinstance(error, NotSent)


def is_unknown(error: BaseException) -> bool:
    """Return whether a request that failed with `error` may have taken effect."""
    return isinstance(error, (OutcomeUnknown, ServerError))


async def retry(
    send: Callable[[], Awaitable[T]],
    failure: Exception,
    *,
    retries: Retries,
    allowed: Callable[[BaseException], bool],
    left: Callable[[], float],
    rng: random.Random,
) -> T:
    """Send a request again whose first attempt failed with `failure`, until it succeeds or may not be retried.

    A wait longer than `left`, in seconds, does not begin. The failure of the last attempt is raised. Cancellation ends
    the wait or the attempt; nothing is retried afterwards.
    """
    from tenacity import AsyncRetrying, retry_if_exception  # 50 ms, which most programs never need

    first: list[Exception] = [failure]

    async def attempt() -> T:
        if first:
            raise first.pop()
        return await send()

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return retries.delay(state.attempt_number - 1, error, rng)

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= retries.attempts or state.upcoming_sleep > left()

    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        _logger.info("%s; retrying in %.2f s (attempt %d)", error, state.upcoming_sleep, state.attempt_number + 1)

    retrying = AsyncRetrying(
        sleep=asyncio.sleep, wait=wait, stop=stop, retry=retry_if_exception(allowed), before_sleep=log, reraise=True
    )
    return await retrying(attempt)


async def retry_on_conflict(
    attempt: Callable[[], Awaitable[T]], *, attempts: int = 5, backoff: Backoff = _CONFLICT_BACKOFF
) -> T:
    """Call `attempt` until it does not raise `Conflict`, and return its result.

    For code outside a reconciler. Inside one, let `Conflict` propagate: the next reconcile reads the object again.
    Cancellation reaches the attempt, or ends the wait between two attempts.

    Args:
        attempt: reads the object *each time*, from the server, changes it and writes it.
        attempts: how often `attempt` is called at most; 5 by default.
        backoff: delays between attempts; 10 ms with 10 % jitter by default.

    Raises:
        Conflict: the last attempt met a conflict too. Any other exception of an attempt is raised at once.
        ValueError: `attempts` is less than 1.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be 1 or more, not {attempts!r}")
    # Not tenacity, as in `retry`: its import takes 50 ms, and nothing but the conflict decides.
    for number in range(attempts - 1):
        try:
            return await attempt()
        except Conflict:
            await asyncio.sleep(backoff.delay(number))
    return await attempt()
