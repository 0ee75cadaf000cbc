"""Put a receiver's limits around its channel: how often, how many at a time, and not while it is down."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
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

_FAILURES = (RetryableDeliveryError, UnknownDeliveryError, OSError, TimeoutError)


class GuardedConfig(ReceiverConfig):
    """Say what every configured receiver can be told about its limits."""

    rate_per_minute: float | None = Field(default=None, gt=0)
    """Most messages a minute; more are put off, which spends no attempt. Default: no limit."""

    max_concurrent: int = Field(default=4, ge=1)
    """Most messages at a time; others wait."""

    breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row after which the receiver is left alone."""

    breaker_open_seconds: float = Field(default=30.0, gt=0)
    """Seconds until one message is let through to see."""


class GuardedChannel:
    """Call a channel within limits; what exceeds them is put off and spends no attempt.

    Args:
        channel: what to call.
        config: the limits.
        on_change: hears of each new state of the breaker.
    """

    def __init__(
        self,
        channel: Channel,
        config: GuardedConfig,
        *,
        on_change: Callable[[str, BreakerState], None] = lambda _name, _state: None,
    ) -> None:
        self.name = channel.name
        self.inner = channel
        self.breaker = CircuitBreaker(
            channel.name,
            clock=lambda: current_clock().monotonic(),
            failures=config.breaker_failures,
            open_seconds=config.breaker_open_seconds,
            on_change=on_change,
        )
        self._slots = asyncio.Semaphore(config.max_concurrent)
        self._rate = config.rate_per_minute
        self._limiter: Any = None
        if self._rate is not None:
            _limiter_class()

    async def deliver(self, message: Message) -> None:
        """Deliver within the limits. Cancellation is the channel's affair, and tells the breaker nothing.

        Raises:
            DeferredDeliveryError: too many messages, or the breaker is open.
            DeliveryError: what the channel raises.
        """
        async with self._slots:
            with self.breaker.call(_FAILURES):
                await self._within_rate()
                answer: Any = self.inner.deliver(message)
                if inspect.isawaitable(answer):
                    await answer

    async def close(self) -> None:
        """Close the channel, if it can be closed. Cancellation leaves its connections to the loop."""
        close = getattr(self.inner, "close", None)
        if close is not None:
            await close()

    async def _within_rate(self) -> None:
        if self._rate is None:
            return
        if self._limiter is None:
            # A burst of one second's worth, one message at least.
            burst = max(1.0, self._rate / 60)
            self._limiter = _limiter_class()(burst, burst * 60 / self._rate)
        if not self._limiter.has_capacity():
            raise DeferredDeliveryError(
                f"{self.name} takes {self._rate:g} messages a minute", retry_after=60 / self._rate
            )
        await self._limiter.acquire()


def _limiter_class() -> Any:
    try:
        from aiolimiter import AsyncLimiter
    except ImportError:
        raise MissingExtra("aiolimiter", extra="notification", purpose="rate_per_minute") from None
    return AsyncLimiter
