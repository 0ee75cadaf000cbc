"""The limits of one receiver, and who is inside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reconciler.clock import current_clock
from reconciler.notification.errors import DeferredDeliveryError

if TYPE_CHECKING:
    from reconciler.notification.channels.breaker import CircuitBreaker

__all__ = ["RESERVED_SECONDS", "Gate"]

RESERVED_SECONDS = 60.0
"""How long a reservation holds. Whoever made it comes within moments, unless its process was told to stop."""


class Gate:
    """The limits of one receiver: how many messages at a time, how many a minute, and none while it is down.

    A place can be reserved for a message, so that a waiting request holds nothing. While the
    breaker is not closed one message is inside at most: the one that finds out whether the receiver is back.

    Args:
        name: of the receiver, for the refusal.
        breaker: the receiver's circuit breaker.
        most: messages at a time.
        rate_per_minute: messages a minute, None for no limit. One second's worth may come at once.

    Attributes:
        listeners: called whenever a place may have become free.
    """

    def __init__(self, name: str, breaker: CircuitBreaker, *, most: int, rate_per_minute: float | None = None) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._name = name
        self._breaker = breaker
        self._most = most
        self._rate = rate_per_minute
        self._spacing = 0.0 if rate_per_minute is None else 60 / rate_per_minute
        self._burst = 0.0 if rate_per_minute is None else max(0.0, rate_per_minute / 60 - 1) * self._spacing
        self._next = -math.inf  # when a message may enter that comes alone
        self._inside = 0
        self._reserved: dict[str, float] = {}
        self._took = 1.0  # seconds of the last message

    @property
    def is_down(self) -> bool:
        """Return whether the breaker is open."""
        return self._breaker.state == "open"

    def wait(self) -> float:
        """Return the seconds until a message may enter: 0 for now, infinite while that is for those inside to say."""
        now = current_clock().monotonic()
        for token in [token for token, until in self._reserved.items() if until <= now]:
            del self._reserved[token]
        if self.is_down:
            return self._breaker.seconds_left
        if self._inside + len(self._reserved) >= (self._most if self._breaker.state == "closed" else 1):
            return min(self._reserved.values(), default=math.inf) - now
        wait = self._next - self._burst - now
        return wait if wait > 1e-9 else 0.0

    def reserve(self, token: str) -> bool:
        """Reserve a place for the message of a token; return whether there was one."""
        if self.wait() > 0:
            return False
        self._reserved[token] = self._charge() + RESERVED_SECONDS
        return True

    def cancel(self, token: str) -> None:
        """Give a reservation back that was not used; harmless when there is none."""
        if self._reserved.pop(token, None) is not None:
            self._changed()

    @contextmanager
    def enter(self, token: str) -> Iterator[None]:
        """Be inside for the length of the block, on the place that was reserved for the token or on a free one.

        Raises:
            DeferredDeliveryError: there is no place; says when to come back.
        """
        if self._reserved.pop(token, None) is None:
            self._check()
            self._charge()
        self._inside += 1
        began = current_clock().monotonic()
        try:
            yield
        finally:
            self._took = current_clock().monotonic() - began
            self._inside -= 1
            self._changed()

    def _check(self) -> None:
        self._breaker.check()
        wait = self.wait()
        if wait <= 0:
            return
        if self._breaker.state != "closed":
            why = "is being tried by another message"
        elif self._inside + len(self._reserved) >= self._most:
            why = f"is busy with {self._most} messages"
        else:
            why = f"takes {self._rate:g} messages a minute"
        raise DeferredDeliveryError(f"{self._name} {why}", retry_after=wait if math.isfinite(wait) else self._took)

    def _charge(self) -> float:
        now = current_clock().monotonic()
        self._next = max(self._next, now) + self._spacing
        return now

    def _changed(self) -> None:
        for listener in self.listeners:
            listener()
