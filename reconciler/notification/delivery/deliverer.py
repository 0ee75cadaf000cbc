"""What the channels are given of a request.

Call channels side by side and say how each call ended.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from reconciler.clock import Clock, current_clock
from reconciler.notification.api.types import ChannelStatus, NotificationRequest
from reconciler.notification.channel import Channel, ChannelRegistry
from reconciler.notification.delivery.schedule import Delivery, Verdict
from reconciler.notification.errors import (
    DeferredDeliveryError,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.message import Link, Message
from reconciler.notification.redaction.redactor import Redactor

__all__ = ["Deliverer", "compose"]


def compose(obj: NotificationRequest, channels: Sequence[ChannelStatus], redactor: Redactor) -> list[Message]:
    """Return the messages for the next attempts on these channels; every text that a person wrote is redacted, once.

    Recipients are those that the request names for the channel's kind: ``slack`` for ``slack:oncall``.
    """
    clean, spec = redactor.redact, obj.spec
    shared: dict[str, Any] = {
        "name": obj.name,
        "namespace": obj.namespace or "",
        "uid": obj.uid,
        "type": spec.type,
        "priority": spec.priority,
        "subject": clean(spec.subject),
        "body": clean(spec.body),
        "extensions": {
            clean(key): redactor.redact_member(key, value) for key, value in (spec.extensions or {}).items()
        },
        "links": tuple(
            Link(service=clean(link.service), url=clean(link.url), label=clean(link.label))
            for link in spec.action_links or ()
        ),
    }
    return [
        Message(
            **shared,
            channel=channel.name,
            attempt=channel.attempts + 1,
            recipients=tuple((spec.recipients or {}).get(channel.name.partition(":")[0], ())),
        )
        for channel in channels
    ]


_UNREGISTERED_RETRY = 60.0
"""Seconds until a channel that is not registered here is looked for again, if the request began where it was."""

_EXPECTED_RETRY = 5.0
"""The same while not all channels are there yet."""


class Deliverer:
    """Deliver messages over the registered channels; whatever one of them does, the others are not harmed.

    Args:
        channels: where to find the channels.
        timeout: seconds that one delivery may take; then it is a failed attempt.
        max_concurrent: most deliveries at a time, over all requests.
        redactor: takes secrets out of the texts of errors.
        now: tells the time of stamps. Default: the clock's.
        clock: measures how long a delivery takes; defaults to `current_clock()` at each use.
    """

    def __init__(
        self,
        channels: ChannelRegistry,
        *,
        timeout: float,
        max_concurrent: int,
        redactor: Redactor | None = None,
        now: Callable[[], datetime] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._stamp = now
        self._channels = channels
        self._redactor = redactor or Redactor()
        self._timeout = timeout
        self._slots = asyncio.Semaphore(max_concurrent)
        self._clock = clock

    async def deliver(
        self,
        messages: Sequence[Message],
        results: list[Delivery],
        *,
        ended: Callable[[str], None] = lambda _channel: None,
    ) -> None:
        """Deliver all messages at the same time and put each result into `results` when it is known.

        Cancellation is passed on to the deliveries and waits for them. `results` then holds those that had ended, and
        as unknown those that had been sent; the others are no attempts.

        Args:
            messages: what to deliver, each on its channel.
            results: takes the results.
            ended: called with the channel's name when a delivery has ended.
        """

        async def deliver(message: Message) -> None:
            try:
                await self._deliver(message, results)
            finally:
                ended(message.channel)

        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(deliver(message))

    async def _deliver(self, message: Message, results: list[Delivery]) -> None:
        channel = self._channels.get(message.channel)
        if channel is None:
            results.append(self._unregistered(message))
            return
        async with self._slots:
            clock = self._clock or current_clock()
            started, began = self._now(), clock.monotonic()
            cancelled: BaseException | None = None
            try:
                verdict, error = await self._call(channel, message)
            except asyncio.CancelledError as stop:
                if not message.is_sent:
                    raise
                cancelled = stop
                verdict, error = Verdict.UNKNOWN, UnknownDeliveryError("stopped while waiting for the answer")
            results.append(
                Delivery(
                    channel=message.channel,
                    verdict=verdict,
                    started=started,
                    ended=self._now(),
                    seconds=clock.monotonic() - began,
                    error="" if error is None else self._redactor.describe(error),
                    retry_after=_retry_after(error),
                )
            )
            if cancelled is not None:
                raise cancelled

    async def _call(self, channel: Channel, message: Message) -> tuple[Verdict, BaseException | None]:
        """Call the channel; raise only when this delivery itself was cancelled."""
        scope = asyncio.timeout(self._timeout)
        try:
            async with scope:
                answer = channel.deliver(message)
                # A plain `def` has delivered by now; to await its None would make a failure of it, and repeat it.
                if inspect.isawaitable(answer):
                    await answer
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a plugin may raise anything, and takes nobody along
            if _cancelled():
                raise asyncio.CancelledError from error
            if scope.expired():
                return Verdict.UNKNOWN, UnknownDeliveryError(f"no answer within {self._timeout:g} s")
            return _verdict(error), error
        return Verdict.DELIVERED, None

    def _now(self) -> datetime:
        return self._stamp() if self._stamp is not None else (self._clock or current_clock()).now()

    def _unregistered(self, message: Message) -> Delivery:
        now = self._now()
        known = ", ".join(self._channels) or "none"
        complete = self._channels.is_complete
        return Delivery(
            channel=message.channel,
            verdict=Verdict.UNKNOWN_CHANNEL if complete else Verdict.DEFERRED,
            started=now,
            ended=now,
            error=f"no channel is called {message.channel!r} here; there are: {known}"
            + ("" if complete else "; those of the routing configuration are still to come"),
            retry_after=_UNREGISTERED_RETRY if complete else _EXPECTED_RETRY,
        )


def _cancelled() -> bool:
    """Say whether somebody asked this delivery's task to stop, in contrast to a channel that cancelled itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _verdict(error: BaseException) -> Verdict:
    if isinstance(error, PermanentDeliveryError):
        return Verdict.PERMANENT
    if isinstance(error, DeferredDeliveryError):
        return Verdict.DEFERRED
    if isinstance(error, RetryableDeliveryError) and not error.doubtful:
        return Verdict.RETRYABLE
    return Verdict.UNKNOWN if isinstance(error, UnknownDeliveryError) else Verdict.DOUBTFUL


def _retry_after(error: BaseException | None) -> float | None:
    if not isinstance(error, (RetryableDeliveryError, DeferredDeliveryError)):
        return None
    asked = error.retry_after
    return float(asked) if isinstance(asked, (int, float)) and math.isfinite(asked) and asked > 0 else None
