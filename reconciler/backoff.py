"""Compute exponential delays: one formula for the queue, the reflector, the client and the notifications."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["Backoff"]


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

    def delay(self, n: int, rng: random.Random | None = None) -> float:
        """Return the seconds to wait before repetition `n`, counted from 0.

        Args:
            n: how many repetitions came before; 0 or more.
            rng: source of the jitter. Defaults to the process-wide generator; pass a seeded one for repeatable delays.
        """
        exact = min(self.maximum, self._uncapped(n))
        if not self.jitter:
            return exact
        spread = (rng or random).uniform(-self.jitter, self.jitter)
        return exact * (1 + spread)

    def _uncapped(self, n: int) -> float:
        if not self.base:
            return self.base
        try:
            return self.base * self.factor**n
        except OverflowError:
            return math.inf
