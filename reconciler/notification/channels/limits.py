"""Stop calling a receiver that is down, and find out with one call whether it is back.

The limits of one receiver, and who is inside them.

A receiver's limits around its channel: how often, how many at a time, and not while it is down.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from reconciler.clock import current_clock
from reconciler.notification.channel import Channel
from reconciler.notification.errors import DeferredDeliveryError, RetryableDeliveryError, UnknownDeliveryError
from reconciler.notification.message import Message
from reconciler.notification.routing import ReceiverConfig

__all__ = ["RESERVED_SECONDS", "BreakerState", "CircuitBreaker", "Gate", "GuardedChannel", "GuardedConfig"]

_log = logging.getLogger("reconciler.notification")

BreakerState = Literal["closed", "open", "half-open"]
"""Calls go through; none does; one does, to see."""


class CircuitBreaker:
    """Count failures in a row; after too many refuse calls for a while, then let one through.

    What the receiver refuses for good (HTTP 404) is no failure of the receiver, and closes the breaker: it answered. A
    call that was cancelled tells nothing.

    Args:
        name: of the receiver, for the refusal.
        clock: returns monotonic seconds.
        failures: in a row, until it opens. Default 5.
        open_seconds: until one call is let through. Default 30.
        on_change: hears of each new state.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float],
        failures: int = 5,
        open_seconds: float = 30.0,
        on_change: Callable[[str, BreakerState], None] = lambda _name, _state: None,
    ) -> None:
        self._name = name
        self._clock = clock
        self._limit = failures
        self._open_seconds = open_seconds
        self._on_change = on_change
        self._failures = 0
        self._opened: float | None = None
        self._probing = False
        self._told: BreakerState = "closed"

    @property
    def state(self) -> BreakerState:
        """Return the state at this moment."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._probing or self._left() <= 0 else "open"

    @property
    def seconds_left(self) -> float:
        """Return the seconds until a call is let through; 0 or less for now."""
        return self._left()

    @contextmanager
    def call(self, failures: tuple[type[BaseException], ...]) -> Iterator[None]:
        """Make a call inside the block; of what it raises, these types count as failures of the receiver.

        Raises:
            DeferredDeliveryError: the call must not be made now; says when.
        """
        self._enter()
        try:
            yield
        except failures:
            self._failed()
            raise
        except Exception:
            self._succeeded()
            raise
        except BaseException:
            self._probing = False
            raise
        self._succeeded()

    def check(self) -> None:
        """Raise if a call would be refused at this moment; claims nothing.

        Raises:
            DeferredDeliveryError: it would be; says when to come back.
        """
        if self._opened is None:
            return
        left = self._left()
        if left > 0 or self._probing:
            wait = left if left > 0 else self._open_seconds
            why = "is being tried by another message" if self._probing else "has failed too often"
            raise DeferredDeliveryError(f"{self._name} {why}; it is not called for a while", retry_after=wait)

    def _enter(self) -> None:
        self.check()
        if self._opened is not None:
            self._probing = True
            self._tell()

    def _left(self) -> float:
        return 0.0 if self._opened is None else self._opened + self._open_seconds - self._clock()

    def _failed(self) -> None:
        self._failures += 1
        if self._probing or self._failures >= self._limit:
            self._opened = self._clock()
        self._probing = False
        self._tell()

    def _succeeded(self) -> None:
        self._failures, self._opened, self._probing = 0, None, False
        self._tell()

    def _tell(self) -> None:
        state = self.state
        if state != self._told:
            self._told = state
            self._on_change(self._name, state)


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


_FAILURES = (RetryableDeliveryError, UnknownDeliveryError, OSError, TimeoutError)


class GuardedConfig(ReceiverConfig):
    """Say what every configured receiver can be told about its limits."""

    rate_per_minute: float | None = Field(default=None, gt=0)
    """Most messages a minute; more wait for a turn, which spends no attempt. Default: no limit."""

    max_concurrent: int = Field(default=4, ge=1)
    """Most messages at a time; others wait for a turn."""

    breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row after which the receiver is left alone."""

    breaker_open_seconds: float = Field(default=30.0, gt=0)
    """Seconds until one message is let through to see."""


class GuardedChannel:
    """A channel that is called within limits.

    The reconciler waits for a place at the `gate` before it calls; whoever calls without one is put off when there is
    none, which spends no attempt.

    Args:
        channel: what to call.
        config: the limits.

    Attributes:
        gate: the limits, and who is inside them.
        breaker: the circuit breaker.
    """

    def __init__(self, channel: Channel, config: GuardedConfig) -> None:
        self.name = channel.name
        self.inner = channel
        self.breaker = CircuitBreaker(
            channel.name,
            clock=lambda: current_clock().monotonic(),
            failures=config.breaker_failures,
            open_seconds=config.breaker_open_seconds,
            on_change=_tell,
        )
        self.gate = Gate(channel.name, self.breaker, most=config.max_concurrent, rate_per_minute=config.rate_per_minute)

    async def deliver(self, message: Message) -> None:
        """Deliver within the limits. Cancellation is the channel's affair, and tells the breaker nothing.

        Raises:
            DeferredDeliveryError: too many messages, or the breaker is open.
            DeliveryError: what the channel raises.
        """
        with self.gate.enter(message.idempotency_key), self.breaker.call(_FAILURES):
            answer: Any = self.inner.deliver(message)
            if inspect.isawaitable(answer):
                await answer

    async def close(self) -> None:
        """Close the channel, if it can be closed. Cancellation leaves its connections to the loop."""
        close = getattr(self.inner, "close", None)
        if close is not None:
            await close()


def _tell(name: str, state: BreakerState) -> None:
    if state == "half-open":
        return
    what = "has failed too often and is left alone for a while" if state == "open" else "is called again"
    _log.warning("the receiver %s %s", name, what)
