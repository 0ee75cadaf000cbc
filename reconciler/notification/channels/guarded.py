"""A receiver's limits around its channel: how often, how many at a time, and not while it is down."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from pydantic import Field

from reconciler.clock import current_clock
from reconciler.notification.channel import Channel
from reconciler.notification.channels.breaker import BreakerState, CircuitBreaker
from reconciler.notification.channels.gate import Gate
from reconciler.notification.errors import RetryableDeliveryError, UnknownDeliveryError
from reconciler.notification.message import Message
from reconciler.notification.routing import ReceiverConfig

__all__ = ["GuardedChannel", "GuardedConfig"]

_log = logging.getLogger("reconciler.notification")

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
