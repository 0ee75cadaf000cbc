"""The deliveries of a request: its messages, the calls of the channels, and the durable record in the status.

Attempts and channels are addressed by their keys, so a replay on a newer version adds nothing twice. Under ``Bounded``
and ``AtMostOnce`` an attempt is written ahead of its call, as an entry of ``deliveryAttempts`` with the result
``unknown``, which the real result replaces. If the process dies in between, the entry remains and counts as made.

The cache can lag behind, above all after a failover. So an action that cannot be undone first reads from the server,
unless this process has just written the status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from pydantic import BaseModel

from reconciler._core.user_code import is_cancelled
from reconciler._core.wire import JSONObject
from reconciler.clock import current_clock
from reconciler.controller import effect
from reconciler.errors import Conflict, NotFound
from reconciler.meta import Request, equal
from reconciler.notification.api import (
    TERMINAL_PHASES,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestStatus,
)
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
from reconciler.notification.router import Resolution
from reconciler.notification.schedule import DERIVED, ERRORS_LIMIT, Delivery, DeliveryVerdict, StatusChange
from reconciler.objects.kinds import original_document
from reconciler.status import StatusBatcher
from reconciler.status.mutations import Mutation, Set, Upsert

if TYPE_CHECKING:
    from reconciler.cache import CachedClient


def recipients_of(obj: NotificationRequest, channel: str) -> tuple[str, ...]:
    """Return the recipients that a request names for a channel: those of its kind, ``slack`` for ``slack:oncall``."""
    return tuple((obj.spec.recipients or {}).get(channel.partition(":")[0], ()))


def build_messages(obj: NotificationRequest, channels: Sequence[ChannelStatus], redactor: Redactor) -> list[Message]:
    """Build the messages for the next attempts on these channels, with all texts of the request redacted.

    The recipients are those that the request names for the channel's kind: ``slack`` for ``slack:oncall``.
    """
    spec = obj.spec
    name, namespace = obj.metadata.name, obj.metadata.namespace or ""

    def clean(text: str) -> str:
        return redactor.redact(text, namespace) if text else ""

    build = partial(
        Message,
        name=name,
        namespace=namespace,
        uid=obj.metadata.uid,
        type=spec.type,
        priority=spec.priority,
        subject=clean(spec.subject),
        body=clean(spec.body),
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
        build(channel=each.name, attempt=each.attempts + 1, recipients=recipients_of(obj, each.name))
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
        monotonic = current_clock().monotonic
        started, begun = self._now(), monotonic()
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
                seconds=monotonic() - begun,
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
    return error.retry_after or None


RequestStatusBatcher: TypeAlias = StatusBatcher[NotificationRequestStatus]
"""The status batcher of a NotificationRequest."""

ROUTED_LIMIT = 64
"""Maximum channels that routing can select for a request; their attempts must fit into an object."""

OBJECT_BYTES = 1_500_000
"""Maximum bytes of a request with its complete status; etcd stores 1.5 MiB."""

ENTRY_BYTES = 800
"""Bytes of an attempt without its error, and of the fields that say who wrote it."""

MESSAGE_LIMIT = 4096
"""Maximum characters in a condition message; the API accepts 32,768."""


def set_change(status: RequestStatusBatcher, change: StatusChange) -> None:
    """Record a change: attempts, channels, derived fields and conditions."""
    before, after = change.before, change.after
    if before.phase is None and not before.channels and after.channels:
        names = ", ".join(channel.name for channel in after.channels)
        set_routing_condition(status, "ChannelsNamed", f"the request names its channels: {names}", resolved=True)
    stored = {channel.name: channel for channel in before.channels}
    status.record(
        *map(upsert_attempt, change.attempts),
        *[_upsert_channel(channel) for channel in after.channels if channel != stored.get(channel.name)],
        *_set_derived(after),
    )
    if after.next_step_time is None and before.next_step_time is not None:
        status.merge(next_step_time=None)
    _set_ready_condition(status, after)


def set_routing(status: RequestStatusBatcher, after: NotificationRequestStatus, resolution: Resolution) -> None:
    """Record the channels that routing selected."""
    status.record(*map(_upsert_channel, after.channels), *_set_derived(after, exclude_defaults=True))
    message = f"receivers {', '.join(resolution.receivers) or 'none'}: channels {', '.join(resolution.channels)}"
    if resolution.fallback:
        message = f"fallback channel {', '.join(resolution.channels)}: {resolution.fallback}"
    if resolution.problem:
        message += f"; from the previous routing configuration, because the latest is invalid: {resolution.problem}"
    reason = "StaleRouting" if resolution.problem else "RoutingRuleMatched"
    reason = "RoutingFallback" if resolution.fallback else reason
    set_routing_condition(status, reason, message, resolved=True)


def routing_failure(resolution: Resolution | None) -> tuple[str, str] | None:
    """Return the reason and the message if routing selected no channels, or None."""
    if resolution is None:
        return "NoRouting", "spec.channels is empty and the operator has no routing: set spec.channels"
    problem = resolution.problem
    if resolution.pending:
        reason = "RoutingFailed" if problem else "RoutingPending"
        return reason, f"waiting: {problem or 'no routing configuration has been loaded yet'}"
    receivers = ", ".join(resolution.receivers) or "none"
    if len(resolution.channels) > ROUTED_LIMIT:
        count = len(resolution.channels)
        return "TooManyChannels", f"receivers {receivers}: {count} channels; the maximum is {ROUTED_LIMIT}"
    if not resolution.channels:
        return "RoutingFailed" if problem else "NoChannels", problem or f"receivers {receivers}: no channels"
    return None


def upsert_attempt(attempt: DeliveryAttempt) -> Mutation:
    """Return the mutation that adds an attempt, or replaces the one that was written ahead of its call."""
    return Upsert(("deliveryAttempts",), _document(attempt), ("channel", "attempt"))


def _upsert_channel(channel: ChannelStatus) -> Mutation:
    return Upsert(("channels",), _document(channel), ("name",))


def _set_derived(after: NotificationRequestStatus, *, exclude_defaults: bool = False) -> list[Mutation]:
    """Return the mutations that set the derived fields.

    The fields belong to this operator: a value that someone else wrote must not keep an attempt from being saved.
    """
    fields = after.model_dump(
        mode="json", by_alias=True, include=DERIVED, exclude_none=True, exclude_defaults=exclude_defaults
    )
    return [Set((name,), value, overwrite=True) for name, value in fields.items()]


def attempts_ahead(due: Sequence[ChannelStatus], *, now: datetime) -> tuple[DeliveryAttempt, ...]:
    """Return the attempts on due channels, of unknown result, to be written before the calls."""
    return tuple(
        DeliveryAttempt(channel=channel.name, attempt=channel.attempts + 1, timestamp=now, result="unknown")
        for channel in due
    )


def remove_write_ahead(
    status: RequestStatusBatcher,
    attempts: Sequence[DeliveryAttempt],
    *,
    except_for: Sequence[DeliveryAttempt] = (),
) -> None:
    """Remove write-ahead attempts that were not made: the call was deferred, or cancelled before it was sent."""
    made = {(attempt.channel, attempt.attempt) for attempt in except_for}
    for attempt in attempts:
        if (attempt.channel, attempt.attempt) in made:
            continue
        # With the timestamp: the entry of another process stays, whatever became of its call.
        document = _document(attempt)
        members = {key: document[key] for key in ("channel", "attempt", "timestamp", "result")}
        status.remove("deliveryAttempts", item=members)


def is_too_large(obj: NotificationRequest, channels: Sequence[str]) -> bool:
    """Return whether a request may grow beyond what etcd stores when all its attempts are recorded."""
    entries = len(channels) * (obj.spec.retry_policy.max_attempts + 1)
    errors = ERRORS_LIMIT * 4 * (obj.spec.retry_policy.max_attempts + 1)  # a character takes up to four bytes
    return len(msgspec.json.encode(original_document(obj))) + entries * ENTRY_BYTES + errors > OBJECT_BYTES


def set_failed(status: RequestStatusBatcher, reason: str, message: str, *, now: datetime) -> None:
    """Record that a request has failed; a request that has ended does not change."""
    set_ended(status, NotificationRequestStatus(phase="Failed", reason=reason, message=message, completion_time=now))


def set_ended(status: RequestStatusBatcher, after: NotificationRequestStatus) -> None:
    """Record that a request has ended without a delivery; a request that has ended before does not change.

    Of the status only the derived fields are recorded.
    """
    if status.current.get("phase") in TERMINAL_PHASES:
        return
    status.record(*_set_derived(after, exclude_defaults=True))
    _set_ready_condition(status, after)


def _set_ready_condition(status: RequestStatusBatcher, after: NotificationRequestStatus) -> None:
    is_sent = after.phase in {"Sent", "PartiallySent"}
    status.set_condition("Ready", is_sent, reason=after.reason or "", message=after.message or "")


def set_routing_condition(status: RequestStatusBatcher, reason: str, message: str, *, resolved: bool = False) -> None:
    """Record whether a request has channels, and why."""
    status.set_condition("RoutingResolved", resolved, reason=reason, message=message[:MESSAGE_LIMIT])


def _document(model: BaseModel) -> JSONObject:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


Progress = frozenset[tuple[str, str, int, datetime | None]]
"""The progress of a request's channels; it never returns to an earlier value."""


def progress_of(status: NotificationRequestStatus) -> Progress:
    """Return the progress of a request's channels."""
    return frozenset([(each.name, each.state, each.attempts, each.next_attempt_time) for each in status.channels])


async def is_up_to_date(client: CachedClient, key: Request, obj: NotificationRequest) -> bool:
    """Read a request from the server; return whether it is as it was read before. Cancellation changes nothing."""
    try:
        live = await client.session.get(NotificationRequest, *key)
    except NotFound:
        return False
    stored, read = live.get("metadata") or {}, obj.metadata
    if stored.get("uid") != read.uid or stored.get("deletionTimestamp") is not None:
        return False
    same = stored.get("resourceVersion") == read.resource_version
    return same or equal(live.get("status"), original_document(obj).get("status"))


async def delete_finished(client: CachedClient, obj: NotificationRequest) -> bool | None:
    """Delete a request that has ended; return False if it no longer exists, None if it changed and must be read again.

    The deletion is conditional on the version that was just read from the server, so a request that has changed since
    is kept. A cancelled call may have deleted it.
    """
    try:
        live = await client.live.get(NotificationRequest, obj.name, obj.namespace)
        if live.uid != obj.uid or live.status.completion_time != obj.status.completion_time:
            return None
        await client.delete(
            NotificationRequest,
            obj.name,
            obj.namespace,
            uid=live.uid,
            resource_version=live.resource_version,
            propagation="Background",
        )
    except NotFound:
        return False
    except Conflict:
        return None
    return True
