"""Exponential backoff: one formula for the queue, the reflector, the client and the notifications."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

MAX_RETRY_AFTER = 3600.0
"""Seconds up to which a server's ``Retry-After`` is honored."""

_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delays between attempts: ``base * factor**n``, capped, then spread by jitter.

    Attributes:
        base: seconds before the first retry (n = 0).
        factor: multiplier of each further delay; 1 or more.
        maximum: cap in seconds, applied before the jitter.
        jitter: relative deviation from the exact delay, 0 to 1; 0 gives exact delays. The spread is symmetric, and the
            result never exceeds ``maximum * (1 + jitter)``.

    Raises:
        ValueError: a number is negative, not finite, or out of range.
    """

    base: float
    factor: float = 2.0
    maximum: float = math.inf
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not (self.base >= 0 and math.isfinite(self.base)):
            raise ValueError(f"base must be a finite number of seconds, 0 or more, not {self.base!r}")
        if not (self.factor >= 1 and math.isfinite(self.factor)):
            raise ValueError(f"factor must be finite and 1 or more, not {self.factor!r}")
        if not self.maximum >= 0:
            raise ValueError(f"maximum must be 0 seconds or more, not {self.maximum!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must lie between 0 and 1, not {self.jitter!r}")

    def delay(self, n: int, rng: random.Random | None = None, *, retry_after: float | None = None) -> float:
        """Return the seconds to wait before retry `n`, counted from 0.

        Args:
            n: the number of earlier retries; 0 or more.
            rng: source of the jitter. Defaults to the process-wide generator; pass a seeded one for repeatable delays.
            retry_after: seconds that the server asked to wait, if it did. The result is at least `retry_after_delay` of
                it, which `maximum` does not cap.
        """
        exact = min(self.maximum, self._uncapped(n))
        own = exact * (1 + (rng or random).uniform(-self.jitter, self.jitter)) if self.jitter else exact
        return max(own, retry_after_delay(retry_after, rng, jitter=bool(self.jitter)))

    def _uncapped(self, n: int) -> float:
        if not self.base:
            return self.base
        try:
            return self.base * self.factor**n
        except OverflowError:
            return math.inf


def retry_after_delay(retry_after: float | None, rng: random.Random | None = None, *, jitter: bool = True) -> float:
    """Return the seconds to wait for a server's Retry-After: never less, and at most 3600 before the jitter.

    The jitter adds up to a tenth, so that a thousand clients that were told "30" do not come back at the same moment.

    Args:
        retry_after: the server's value in seconds. None, zero and negative numbers give 0.
        rng: source of the jitter. Defaults to the process-wide generator.
        jitter: whether to spread the wait. Default True.
    """
    if not retry_after or not retry_after > 0:
        return 0.0
    return min(retry_after, MAX_RETRY_AFTER) * (1 + (_SPREAD * (rng or random).random() if jitter else 0.0))


def longest_retry_after(error: BaseException) -> float | None:
    """Return the longest ``retry_after`` of an error, its causes and the errors of its group; None if there is none."""
    found: list[float] = []
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
        try:
            asked = getattr(one, "retry_after", None)
        except Exception:  # noqa: BLE001 - a property of foreign code, such as one that reads a header that is absent
            asked = None
        if isinstance(asked, (int, float)):
            found.append(asked)
    return max(found, default=None)
