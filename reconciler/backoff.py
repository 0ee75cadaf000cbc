"""Compute exponential delays: one formula for the queue, the reflector, the client and the notifications."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["LONGEST_RETRY_AFTER", "Backoff", "obey", "wait_asked_by"]

LONGEST_RETRY_AFTER = 3600.0
"""Seconds up to which a server's wish to wait (``Retry-After``) is followed."""

_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Backoff:
    """Describe the delays between attempts: ``base * factor**n``, capped, then spread by jitter.

    Attributes:
        base: seconds before the first repetition (n = 0).
        factor: what each further delay is multiplied with; 1 or more.
        maximum: cap in seconds, applied before the jitter.
        jitter: share by which a delay may differ from its exact value, 0 to 1. 0 gives exact delays.
            The spread is symmetric and the result is never above ``maximum * (1 + jitter)``.

    Raises:
        ValueError: a number is negative, not finite, or out of its range.
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

    def delay(self, n: int, rng: random.Random | None = None, *, asked: float | None = None) -> float:
        """Return the seconds to wait before repetition `n`, counted from 0.

        Args:
            n: how many repetitions came before; 0 or more.
            rng: source of the jitter. Defaults to the process-wide generator; pass a seeded one for repeatable delays.
            asked: seconds that the server asked to wait, if it did. The result is the larger of the delay and
                `obey` of this; `maximum` does not cap it.
        """
        exact = min(self.maximum, self._uncapped(n))
        own = exact * (1 + (rng or random).uniform(-self.jitter, self.jitter)) if self.jitter else exact
        return max(own, obey(asked, rng, jitter=bool(self.jitter)))

    def _uncapped(self, n: int) -> float:
        if not self.base:
            return self.base
        try:
            return self.base * self.factor**n
        except OverflowError:
            return math.inf


def obey(asked: float | None, rng: random.Random | None = None, *, jitter: bool = True) -> float:
    """Return the seconds to wait for a server that asked for so many: never fewer, 3600 at most before the jitter.

    The jitter adds up to a tenth: a thousand clients that were told "30" must not come back at the same moment.

    Args:
        asked: the server's wish in seconds; None, zero and negative numbers are no wish.
        rng: source of the jitter. Defaults to the process-wide generator.
        jitter: whether to spread the wait. Default True.
    """
    if not asked or not asked > 0:
        return 0.0
    return min(asked, LONGEST_RETRY_AFTER) * (1 + (_SPREAD * (rng or random).random() if jitter else 0.0))


def wait_asked_by(error: BaseException) -> float | None:
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
        asked = getattr(one, "retry_after", None)
        if isinstance(asked, (int, float)):
            found.append(asked)
    return max(found, default=None)
