"""Decide what may be repeated, and after how long."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from reconciler.backoff import Backoff
from reconciler.errors import InvalidResponse, NotSent, OutcomeUnknown, ReconcilerError, ServerError, TooManyRequests

__all__ = ["Repeat", "RetryPolicy", "Trail", "is_unknown", "may_repeat"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Say how often and how fast a client repeats a request; whether it may at all depends on the verb and the failure.

    The wait before repetition n (from 0) is ``base * 2**n`` seconds, at most `maximum`, spread by `jitter`. If the
    server asks for a longer wait (``Retry-After``), that is kept: up to an hour, and up to a tenth longer if there is
    jitter. A wait that would end after the `deadline` is not begun: the error is raised at once, and its
    ``retry_after`` says how long to wait. A controller whose reconcile raises it does so.

    Attributes:
        attempts: how often a request is sent at most, 5 by default; 1 never repeats.
        base: seconds before the first repetition, 0.1 by default.
        maximum: seconds that one wait lasts at most, 10 by default.
        jitter: share by which a wait may differ, 0 to 1; 0.5 by default.
        deadline: seconds after the beginning of the first attempt when no further one begins; 120 by default.

    Raises:
        ValueError: a number is out of its range.
    """

    attempts: int = 5
    base: float = 0.1
    maximum: float = 10.0
    jitter: float = 0.5
    deadline: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be 1 or more, not {self.attempts!r}")
        if not self.deadline > 0:
            raise ValueError(f"deadline must be more than 0 seconds, not {self.deadline!r}")
        self._backoff()

    def _backoff(self) -> Backoff:
        return Backoff(base=self.base, maximum=self.maximum, jitter=self.jitter)

    def delay(self, n: int, error: BaseException | None, rng: random.Random) -> float:
        """Return the seconds to wait before repetition `n`, counted from 0, of what failed with `error`."""
        return self._backoff().delay(
            n, rng, retry_after=error.retry_after if isinstance(error, ReconcilerError) else None
        )


class Repeat(enum.Enum):
    """Name what a request may be repeated after."""

    REFUSED = enum.auto()
    """Only after failures that surely had no effect: not connected, or shed with 429."""

    UNKNOWN = enum.auto()
    """Also after lost answers and 5xx: reads, and writes that say which object they mean."""


@dataclass(slots=True)
class Trail:
    """Remember what happened to one request that was sent more than once.

    Attributes:
        unknown: whether one of its attempts may have taken effect although it failed.
    """

    unknown: bool = False


def may_repeat(error: BaseException, repeat: Repeat) -> bool:
    """Say whether a request that failed so may be sent again."""
    if isinstance(error, TooManyRequests):
        # An eviction that a disruption budget forbids is answered with 429 too; that is an answer, not overload.
        return not any(cause.reason == "DisruptionBudget" for cause in error.causes)
    if isinstance(error, InvalidResponse):
        return False  # the next answer would be the same
    if is_unknown(error):
        return repeat is Repeat.UNKNOWN
    return isinstance(error, NotSent)


def is_unknown(error: BaseException) -> bool:
    """Say whether a request that failed so may have taken effect."""
    return isinstance(error, (OutcomeUnknown, ServerError))
