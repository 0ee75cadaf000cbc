"""Put a receiver's limits around its channel: how often, how many at a time, and not while it is down."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from reconciler.clock import current_clock
from reconciler.errors import MissingExtra
from reconciler.notification._channel import Channel
from reconciler.notification._errors import (
    DeferredDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification._message import Message
from reconciler.notification.channels._breaker import BreakerState, CircuitBreaker
from reconciler.notification.routing import ReceiverConfig

__all__ = ["GuardedChannel", "GuardedConfig"]

_log = logging.getLogger("reconciler.notification")

SLOT_WAIT = 2.0
"""Seconds that a message waits for one of the receiver's slots before it is put off."""

_FAILURES = (RetryableDeliveryError, UnknownDeliveryError, OSError, TimeoutError)


class GuardedConfig(ReceiverConfig):
    """Say what every configured receiver can be told about its limits."""

    rate_per_minute: float | None = Field(default=None, gt=0)
    """Most messages a minute; more are put off, which spends no attempt. Default: no limit."""

    max_concurrent: int = Field(default=4, ge=1)
    """Most messages at a time; others wait a moment, and are put off then."""

    breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row after which the receiver is left alone."""

    breaker_open_seconds: float = Field(default=30.0, gt=0)
    """Seconds until one message is let through to see."""


class GuardedChannel:
    """Call a channel within limits; what exceeds them is put off and spends no attempt.

    Those that are put off get turns, one after the other at the receiver's pace: who comes back finds room, as a rule,
    and nobody comes back in vain again and again.

    Args:
        channel: what to call.
        config: the limits.
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
        self._most = config.max_concurrent
        self._slots = asyncio.Semaphore(config.max_concurrent)
        self._rate = config.rate_per_minute
        self._limiter: Any = None
        self._took = 1.0  # seconds of the last call
        self._last_turn = float("-inf")
        if self._rate is not None:
            _limiter_class()

    async def deliver(self, message: Message) -> None:
        """Deliver within the limits. Cancellation is the channel's affair, and tells the breaker nothing.

        Raises:
            DeferredDeliveryError: too many messages, or the breaker is open.
            DeliveryError: what the channel raises.
        """
        self.breaker.check()
        await self._slot()
        try:
            await self._within_rate()
            with self.breaker.call(_FAILURES), self._timed():
                answer: Any = self.inner.deliver(message)
                if inspect.isawaitable(answer):
                    await answer
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Close the channel, if it can be closed. Cancellation leaves its connections to the loop."""
        close = getattr(self.inner, "close", None)
        if close is not None:
            await close()

    async def _slot(self) -> None:
        """Take a slot; a longer wait would use up the delivery's time, and spend an attempt without a call."""
        try:
            async with asyncio.timeout(SLOT_WAIT):
                await self._slots.acquire()
        except TimeoutError:
            wait = self._turn(self._took / self._most)
            raise DeferredDeliveryError(f"{self.name} is busy with {self._most} messages", retry_after=wait) from None

    async def _within_rate(self) -> None:
        if self._rate is None:
            return
        if self._limiter is None:
            # A burst of one second's worth, one message at least.
            burst = max(1.0, self._rate / 60)
            self._limiter = _limiter_class()(burst, burst * 60 / self._rate)
        if not self._limiter.has_capacity():
            raise DeferredDeliveryError(
                f"{self.name} takes {self._rate:g} messages a minute", retry_after=self._turn(60 / self._rate)
            )
        await self._limiter.acquire()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Note how long a call takes, whatever comes of it: that is the receiver's pace."""
        began = current_clock().monotonic()
        try:
            yield
        finally:
            self._took = current_clock().monotonic() - began

    def _turn(self, spacing: float) -> float:
        """Return the seconds until the next turn that nobody has yet."""
        now = current_clock().monotonic()
        self._last_turn = max(self._last_turn, now) + spacing
        return self._last_turn - now


def _tell(name: str, state: BreakerState) -> None:
    if state == "half-open":
        return
    what = "has failed too often and is left alone for a while" if state == "open" else "is called again"
    _log.warning("the receiver %s %s", name, what)


def _limiter_class() -> Any:
    try:
        from aiolimiter import AsyncLimiter
    except ImportError:
        raise MissingExtra("aiolimiter", extra="notification", purpose="rate_per_minute") from None
    return AsyncLimiter
