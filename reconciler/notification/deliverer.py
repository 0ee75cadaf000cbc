"""The deliveries of one reconcile: messages are built from the request and delivered concurrently."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from reconciler._core.user_code import is_cancelled
from reconciler.clock import current_clock
from reconciler.controller import effect
from reconciler.notification.api import ChannelStatus, NotificationRequest
from reconciler.notification.channel import (
    Channel,
    ChannelRegistry,
    DeferredDeliveryError,
    Link,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
    call_channel,
)
from reconciler.notification.redaction import Redactor
from reconciler.notification.schedule import Delivery, DeliveryVerdict


def recipients_of(obj: NotificationRequest, channel: str) -> tuple[str, ...]:
    """Return the recipients that a request names for a channel: those of its kind, ``slack`` for ``slack:oncall``."""
    return tuple((obj.spec.recipients or {}).get(channel.partition(":")[0], ()))


def build_messages(obj: NotificationRequest, channels: Sequence[ChannelStatus], redactor: Redactor) -> list[Message]:
    """Build the messages for the next attempts on these channels, with all texts of the request redacted.

    The recipients are those that the request names for the channel's kind: ``slack`` for ``slack:oncall``.
    """
    spec, namespace = obj.spec, obj.namespace or ""

    def clean(text: str) -> str:
        return redactor.redact(text, namespace) if text else ""

    message = Message(
        name=obj.name,
        namespace=namespace,
        uid=obj.uid,
        type=spec.type,
        priority=spec.priority,
        subject=clean(spec.subject),
        body=clean(spec.body),
        channel="",
        extensions={
            clean(key): redactor.redact_member(key, value, namespace) for key, value in (spec.extensions or {}).items()
        },
        links=tuple(
            Link(service=clean(link.service), url=clean(link.url), label=clean(link.label))
            for link in spec.action_links or ()
        ),
        incident=clean(spec.incident.key) if spec.incident is not None else "",
        action=spec.incident.action if spec.incident is not None else "Trigger",
        correlation_id=clean(spec.correlation_id or ""),
        sender=clean(spec.sender or ""),
    )
    return [
        replace(message, channel=each.name, attempt=each.attempts + 1, recipients=recipients_of(obj, each.name))
        for each in channels
    ]


_UNREGISTERED_RETRY = 60.0
"""Seconds until an unknown channel is looked up again, if it existed at an earlier reconcile of the request."""

_EXPECTED_RETRY = 5.0
"""Seconds until an unknown channel is looked up again while the registry is incomplete."""


class Deliverer:
    """The sender of messages over the registered channels, which isolates the channels from each other.

    Args:
        timeout: seconds that one delivery may take before it counts as an attempt of unknown outcome.
        now: returns the time for timestamps.
    """

    def __init__(
        self,
        channels: ChannelRegistry,
        *,
        timeout: float,
        redactor: Redactor,
        now: Callable[[], datetime],
    ) -> None:
        self._now = now
        self._channels = channels
        self._redactor = redactor
        self._timeout = timeout

    async def deliver(
        self,
        messages: Sequence[Message],
        results: list[Delivery],
        *,
        ended: Callable[[str], None] = lambda _channel: None,
    ) -> None:
        """Deliver all messages concurrently and append each result to `results` as soon as it is known.

        Cancellation cancels the deliveries and waits for them. `results` then holds the deliveries that had ended and,
        with unknown outcome, those that had been sent; the others do not count as attempts.
        """

        async def attempt(message: Message) -> None:
            try:
                await self._attempt(message, results)
            finally:
                ended(message.channel)

        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(attempt(message))

    async def _attempt(self, message: Message, results: list[Delivery]) -> None:
        channel = self._channels.get(message.channel)
        if channel is None:
            results.append(self._unregistered(message))
            return
        clock = current_clock()
        started, monotonic_start = self._now(), clock.monotonic()
        cancellation: BaseException | None = None
        try:
            verdict, error = await self._call(channel, message)
        except asyncio.CancelledError as cancelled:
            if not message.is_sent:
                raise
            cancellation = cancelled
            verdict, error = (
                DeliveryVerdict.UNKNOWN,
                UnknownDeliveryError("cancelled while waiting for the response"),
            )
        results.append(
            Delivery(
                channel=message.channel,
                verdict=verdict,
                started=started,
                ended=self._now(),
                seconds=clock.monotonic() - monotonic_start,
                error="" if error is None else self._redactor.describe(error, message.namespace),
                retry_after=_retry_after(error),
            )
        )
        if cancellation is not None:
            raise cancellation

    async def _call(self, channel: Channel, message: Message) -> tuple[DeliveryVerdict, BaseException | None]:
        """Call the channel; raise only if this delivery itself was cancelled."""
        scope = asyncio.timeout(self._timeout)
        try:
            async with scope:
                await self.send(f"{message.namespace}/{message.name} to {message.channel}", channel, message)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a channel may raise anything; other channels continue
            if is_cancelled():
                raise asyncio.CancelledError from error
            if scope.expired():
                return DeliveryVerdict.UNKNOWN, UnknownDeliveryError(f"no response within {self._timeout:g} s")
            return _verdict(error), error
        return DeliveryVerdict.DELIVERED, None

    @effect
    async def send(self, _subject: str, channel: Channel, message: Message) -> None:
        """Send a message over a channel; an effect, which a plan only lists."""
        await call_channel(channel, message)

    def _unregistered(self, message: Message) -> Delivery:
        now = self._now()
        registered = ", ".join(self._channels) or "none"
        complete = self._channels.is_complete
        return Delivery(
            channel=message.channel,
            verdict=DeliveryVerdict.UNKNOWN_CHANNEL if complete else DeliveryVerdict.DEFERRED,
            started=now,
            ended=now,
            error=f"unknown channel {message.channel!r}; registered channels: {registered}"
            + ("" if complete else "; the channels of the routing configuration are not loaded yet"),
            retry_after=_UNREGISTERED_RETRY if complete else _EXPECTED_RETRY,
        )


def _verdict(error: BaseException) -> DeliveryVerdict:
    if isinstance(error, PermanentDeliveryError):
        return DeliveryVerdict.PERMANENT
    if isinstance(error, DeferredDeliveryError):
        return DeliveryVerdict.DEFERRED
    if isinstance(error, RetryableDeliveryError) and not error.doubtful:
        return DeliveryVerdict.RETRYABLE
    return DeliveryVerdict.UNKNOWN if isinstance(error, UnknownDeliveryError) else DeliveryVerdict.DOUBTFUL


def _retry_after(error: BaseException | None) -> float | None:
    if not isinstance(error, (RetryableDeliveryError, DeferredDeliveryError)):
        return None
    asked = error.retry_after
    return float(asked) if isinstance(asked, (int, float)) and math.isfinite(asked) and asked > 0 else None
