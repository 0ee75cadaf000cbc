"""Limits of a receiver: rate, concurrency, and a circuit breaker."""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from reconciler.clock import current_clock
from reconciler.notification.channel import (
    Channel,
    DeferredDeliveryError,
    Message,
    RetryableDeliveryError,
    UnknownDeliveryError,
    call_channel,
    close_channel,
)
from reconciler.notification.routing_config import ReceiverConfig

_log = logging.getLogger("reconciler.notification")

NAMESPACE_LIMIT = 1_000
"""Maximum namespaces whose channels are kept; the least recently used is closed."""

BUSY_RETRY = 5.0
"""Seconds until a message is tried again while as many of its namespace are being sent as the receiver allows."""

_FAILURES = (RetryableDeliveryError, UnknownDeliveryError, OSError, TimeoutError)

BreakerState = Literal["closed", "open", "half-open"]
"""Calls pass; no call passes; one call passes as a probe."""


class CircuitBreaker:
    """A circuit breaker: opens after consecutive failures, and lets one call through as a probe after a while.

    A permanent error (HTTP 404), or one about a single message, is not a failure of the receiver and closes the
    breaker, because the receiver responded. A cancelled call changes nothing.

    If all failures that opened it are those of one namespace, it is open for that namespace only, until as many
    consecutive calls of others fail: one namespace cannot keep a shared receiver from others.

    Args:
        name: name of the receiver, for errors.
        clock: returns monotonic seconds.
        failures: consecutive failures that open the breaker. Default 5.
        open_seconds: seconds until a probe. Default 30.
        on_change: called with each new state.
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
        self._failed_for: set[str] = set()  # namespaces; at most two, because more make no difference
        self._only_for: str | None = None  # the namespace for which it is open; None for all
        self._opened: float | None = None
        self._probing = False
        self._reported: BreakerState = "closed"

    @property
    def state(self) -> BreakerState:
        """Return the current state, which may be that of one namespace only."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._probing or self.seconds_left <= 0 else "open"

    @property
    def only_for(self) -> str | None:
        """Return the only namespace for which the breaker is not closed; None if it is the same for all."""
        return self._only_for if self._opened is not None else None

    def state_for(self, namespace: str | None) -> BreakerState:
        """Return the state for a namespace; None for those without a state of their own."""
        return "closed" if self.only_for not in (None, namespace) else self.state

    @property
    def seconds_left(self) -> float:
        """Return the seconds until a call is let through; 0 or less for now."""
        return 0.0 if self._opened is None else self._opened + self._open_seconds - self._clock()

    @contextmanager
    def call(self, failures: tuple[type[BaseException], ...], namespace: str = "") -> Iterator[None]:
        """Make a call for a namespace inside the block; exceptions of these types count as failures of the receiver.

        Raises:
            DeferredDeliveryError: the breaker does not let the call through; carries the time to wait.
        """
        self._enter(namespace)
        try:
            yield
        except Exception as error:
            if isinstance(error, failures) and getattr(error, "concerns_receiver", True):
                self._record_failure(namespace)
            else:
                self._record_success(namespace)
            raise
        except BaseException:
            if self.state_for(namespace) != "closed":
                self._probing = False
            raise
        self._record_success(namespace)

    def _enter(self, namespace: str) -> None:
        if self.state_for(namespace) == "closed":
            return
        left = self.seconds_left
        if self._probing:
            why = "circuit breaker half open: another message is the probe"
            raise DeferredDeliveryError(f"{self._name}: {why}", retry_after=left if left > 0 else self._open_seconds)
        if left > 0:
            why = "circuit breaker open: too many consecutive failures"
            raise DeferredDeliveryError(f"{self._name}: {why}", retry_after=left)
        self._probing = True
        self._report()

    def _record_failure(self, namespace: str) -> None:
        if self._opened is not None and self.state_for(namespace) != "closed":  # the probe, or a call that began before
            self._opened, self._probing = self._clock(), False
        else:
            self._failures += 1
            if len(self._failed_for) < 2:
                self._failed_for.add(namespace)
            if self._failures >= self._limit:
                only = namespace if len(self._failed_for) == 1 else None
                self._only_for = only if self._opened is None else None
                self._opened, self._failures, self._probing = self._clock(), 0, False
                self._failed_for.clear()
        self._report()

    def _record_success(self, namespace: str) -> None:
        self._failures = 0
        self._failed_for.clear()
        if self.state_for(namespace) != "closed":
            self._opened, self._only_for, self._probing = None, None, False
        self._report()

    def _report(self) -> None:
        state = self.state
        if state != self._reported:
            self._reported = state
            self._on_change(self._name, state)


class Pacer:
    """A rate limit: evenly spaced starts. Those of one second may come as a burst.

    Args:
        rate_per_minute: maximum starts a minute; None for no limit.
    """

    def __init__(self, rate_per_minute: float | None) -> None:
        self._spacing = 0.0 if rate_per_minute is None else 60 / rate_per_minute
        self._burst = 0.0 if rate_per_minute is None else max(0.0, rate_per_minute / 60 - 1) * self._spacing
        self._next = -math.inf  # earliest time of the next start without a burst

    def wait(self) -> float:
        """Return the seconds until the next start is allowed; 0 for now."""
        wait = self._next - self._burst - current_clock().monotonic()
        return wait if wait > 1e-9 else 0.0

    def charge(self) -> None:
        """Count a start now."""
        self._next = max(self._next, current_clock().monotonic()) + self._spacing


class Limiter:
    """The limits of one receiver: concurrent messages, messages a minute, and none while the receiver is down.

    A request has a slot before its delivery starts, so that while it waits it holds neither a connection nor a worker.
    While the breaker is not closed, at most one message has a slot: the probe.

    Args:
        breaker: the receiver's circuit breaker.
        max_concurrent: maximum concurrent messages.
        rate_per_minute: maximum messages a minute, or None. The messages of one second may come as a burst.

    Attributes:
        listeners: called whenever a slot may have become free.
    """

    def __init__(self, breaker: CircuitBreaker, *, max_concurrent: int, rate_per_minute: float | None = None) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._breaker = breaker
        self._max_concurrent = max_concurrent
        self._pacer = Pacer(rate_per_minute)
        self._slots: Counter[str] = Counter()  # by namespace

    @property
    def only_for(self) -> str | None:
        """Return the only namespace for which the receiver counts as down; None if it is the same for all."""
        return self._breaker.only_for

    def is_down(self, namespace: str | None) -> bool:
        """Return whether the breaker is open for a namespace; None for those without a state of their own."""
        return self._breaker.state_for(namespace) == "open"

    def wait(self, namespace: str | None) -> float:
        """Return the seconds until a message gets a slot: 0 for now, infinite if a slot must become free first."""
        if self.is_down(namespace):
            return self._breaker.seconds_left
        return math.inf if self._is_full(namespace) else self._pacer.wait()

    def _is_full(self, namespace: str | None) -> bool:
        used = self._slots.total()
        if self._breaker.state_for(namespace) == "closed" or used >= self._max_concurrent:
            return used >= self._max_concurrent
        only = self._breaker.only_for
        return (used if only is None else self._slots[only]) >= 1

    def acquire(self, namespace: str) -> None:
        """Take a slot, which must be free, for a message that is about to start."""
        self._pacer.charge()
        self._slots[namespace] += 1

    def release(self, namespace: str) -> None:
        """Return a slot: the message has ended, or was not sent."""
        self._slots[namespace] -= 1
        if not self._slots[namespace]:
            del self._slots[namespace]
        for listener in self.listeners:
            listener()


class LimitedChannel:
    """A channel with the limits of its receiver. The reconciler waits for a slot of the limiter before it calls.

    Args:
        channel: the channel to call.
        config: the limits.

    Attributes:
        limits: the limits as text.
        limiter: the limits.
        breaker: the circuit breaker.
    """

    def __init__(self, channel: Channel, config: ReceiverConfig) -> None:
        self.name = channel.name
        self.inner = channel
        rate = "" if config.rate_per_minute is None else f"{config.rate_per_minute:g} a minute, "
        self.limits = f"{rate}{config.max_concurrent} at a time"
        self.breaker = CircuitBreaker(
            channel.name,
            clock=lambda: current_clock().monotonic(),
            failures=config.breaker_failures,
            open_seconds=config.breaker_open_seconds,
            on_change=_log_state,
        )
        self.limiter = Limiter(
            self.breaker, max_concurrent=config.max_concurrent, rate_per_minute=config.rate_per_minute
        )

    async def deliver(self, message: Message) -> None:
        """Deliver unless the breaker is open. Cancellation is up to the channel, and changes nothing in the breaker.

        Raises:
            DeferredDeliveryError: the breaker is open.
            DeliveryError: raised by the channel.
        """
        with self.breaker.call(_FAILURES, message.namespace):
            await call_channel(self.inner, message)

    async def close(self) -> None:
        """Close the channel if it has a method ``close``. If cancelled, its connections stay open."""
        await close_channel(self.inner)


class NamespacedChannel:
    """A channel with a channel of its own for each namespace, which has its own limits and credentials.

    So the receiver of one namespace cannot open the circuit breaker of another's.
    """

    def __init__(self, name: str, build: Callable[[str], LimitedChannel]) -> None:
        self.name = name
        self._build = build
        self._channels: OrderedDict[str, LimitedChannel] = OrderedDict()

    async def deliver(self, message: Message) -> None:
        """Deliver over the channel of the message's namespace. Cancellation is up to that channel.

        Raises:
            DeferredDeliveryError: a limit is reached.
            DeliveryError: raised by the channel.
        """
        namespace = message.namespace
        if namespace not in self._channels:
            self._channels[namespace] = self._build(namespace)
        self._channels.move_to_end(namespace)
        channel = self._channels[namespace]
        if len(self._channels) > NAMESPACE_LIMIT:
            await self._channels.popitem(last=False)[1].close()
        wait = channel.limiter.wait(namespace)
        if wait > 0 and channel.breaker.state == "closed":
            why, wait = ("rate", wait) if math.isfinite(wait) else ("concurrent messages", BUSY_RETRY)
            raise DeferredDeliveryError(f"{self.name}: its limit of {why} is reached", retry_after=wait)
        channel.limiter.acquire(namespace)
        try:
            await channel.deliver(message)
        finally:
            channel.limiter.release(namespace)

    async def close(self) -> None:
        """Close the channels of all namespaces. If cancelled, their connections stay open."""
        while self._channels:
            await self._channels.popitem()[1].close()


def _log_state(name: str, state: BreakerState) -> None:
    if state == "open":
        _log.warning("circuit breaker of receiver %s opened after consecutive failures; deliveries are deferred", name)
    elif state == "closed":
        _log.warning("circuit breaker of receiver %s closed; deliveries continue", name)
