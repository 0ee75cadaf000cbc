"""The `Channel` protocol, what a channel raises and gets, and the registry of a process's channels.

The type of an error decides what happens next, never its text.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import msgspec.json
from pydantic import BeforeValidator

from reconciler._core.durations import DurationLike, InvalidDuration, optional_seconds, seconds_of
from reconciler._core.wire import JSONObject
from reconciler.errors import ConfigurationError, ReconcilerError, error_text
from reconciler.notification.redaction import encodable, escaped


class DeliveryError(ReconcilerError):
    """The base class of the errors that channels raise on purpose.

    The text is stored in the request's status, redacted and truncated. It should say what was tried and what the
    response was.
    """


def _asked_of(duration: DurationLike | None) -> float | None:
    """Return the seconds of a duration; None for an invalid one, since a receiver may ask for anything."""
    try:
        return optional_seconds("retry_after", duration, zero=True)
    except InvalidDuration:
        return None


class RetryableDeliveryError(DeliveryError):
    """The message was not delivered, and another attempt may succeed.

    Exceptions of other types count as this one. Under ``delivery: AtMostOnce`` they count as `UnknownDeliveryError`,
    because the message may have arrived.

    Args:
        message: what happened.
        retry_after: the duration (seconds, a timedelta or ``"5m"``) that the receiver asked to wait, or None. The
            longer of this and the backoff applies; more than an hour counts as an hour. An invalid one is ignored.
        doubtful: whether the receiver may have processed the message although it reported a failure, such as HTTP 500.
            Under ``delivery: AtMostOnce`` the delivery is not retried then. Default False.
        concerns_receiver: whether other messages may fail for the same reason, so that the failure counts for the
            receiver's circuit breaker. Default True.
    """

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: DurationLike | None = None,
        doubtful: bool = False,
        concerns_receiver: bool = True,
    ) -> None:
        super().__init__(message)
        self.retry_after = _asked_of(retry_after)
        self.doubtful = doubtful
        self.concerns_receiver = concerns_receiver


class PermanentDeliveryError(DeliveryError):
    """No further attempt can succeed. The channel fails immediately."""


class UnknownDeliveryError(DeliveryError):
    """The message may have been delivered: it was sent, and there was no response.

    The delivery is retried as after `RetryableDeliveryError`. Under ``delivery: AtMostOnce`` the channel ends
    ``Unknown`` instead.
    """


class DeferredDeliveryError(DeliveryError):
    """The delivery was not attempted and should be attempted later. Uses no attempt.

    For a receiver that sheds load, or an open circuit breaker. After 24 h of consecutive deferrals the next one counts
    as a failed attempt.

    Args:
        message: why the delivery was not attempted.
        retry_after: the time to wait, a duration; limited to 1 s to an hour. An invalid one counts as 1 s.
    """

    def __init__(self, message: str = "", *, retry_after: DurationLike = 60.0) -> None:
        super().__init__(message)
        self.retry_after = _asked_of(retry_after)


IncidentAction = Literal["Trigger", "Acknowledge", "Resolve"]
"""What happened to an incident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link to a place where the recipient can act.

    Attributes:
        service: the service that the link opens, such as ``"grafana"``.
        url: an http or https URL.
        label: the text of the link.
    """

    service: str
    url: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message for one channel. All texts are redacted.

    Attributes:
        name: name of the NotificationRequest.
        namespace: namespace of the NotificationRequest.
        uid: uid of the NotificationRequest. A request that was deleted and created again has another uid.
        type: what the notification is about: ``"Escalation"`` or another `NotificationType`.
        priority: ``"Critical"``, ``"High"``, ``"Medium"`` or ``"Low"``.
        subject: the subject, one line.
        body: the text.
        channel: name of the channel that delivers the message.
        attempt: number of the attempt on this channel, from 1.
        recipients: the recipients that the request names for this kind of channel; empty to use the channel's own.
        extensions: custom attributes of the request.
        links: links to places where the recipient can act.
        incident: key of the incident that the request belongs to, unique in its namespace; empty for none.
        action: what happened to the incident: ``"Trigger"``, ``"Acknowledge"`` or ``"Resolve"``.
        correlation_id: an identifier of the caller's, for tracing; empty for none.
        sender: who or what asks for the notification, as the request says; empty if it does not.
    """

    name: str
    namespace: str
    uid: str
    type: str
    priority: str
    subject: str
    body: str
    channel: str
    attempt: int = 1
    recipients: tuple[str, ...] = ()
    extensions: Mapping[str, str] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    incident: str = ""
    action: IncidentAction = "Trigger"
    correlation_id: str = ""
    sender: str = ""
    _sent: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def idempotency_key(self) -> str:
        """Return a key that is the same for all attempts of this message on this channel.

        A process that dies between a call and the write of its result repeats the call. A receiver that supports keys
        (``Idempotency-Key``, a dedup key) then shows the message once.
        """
        return idempotency_key(self.uid, self.channel)

    @property
    def incident_key(self) -> str:
        """Return a key for services that track incidents: the same for all requests about an incident.

        It contains the namespace, so that a namespace cannot resolve the incidents of another. A request without an
        incident has a key of its own, the uid.
        """
        return f"{self.namespace}/{self.incident}" if self.incident else self.uid

    @property
    def is_sent(self) -> bool:
        """Return whether `mark_sent` was called: the receiver may have the message."""
        return self._sent

    def mark_sent(self) -> None:
        """Record that the receiver may have the message from now on. Call it right before the data is sent.

        A delivery that is cancelled before this call does not count as an attempt. One that is cancelled afterwards is
        an attempt with an unknown outcome.
        """
        object.__setattr__(self, "_sent", True)  # also from a thread


def idempotency_key(uid: str, channel: str) -> str:
    """Return `Message.idempotency_key` of a request's messages on a channel."""
    return f"{uid}/{channel}"


def footer(message: Message) -> str:
    """Return the line below the text of a message: priority, type, and the request."""
    return f"{message.priority} | {message.type} | {message.namespace}/{message.name}"


def message_json(message: Message) -> bytes:
    """Return a message as one line of JSON without unusual line separators; see `message_document`."""
    return escaped(msgspec.json.encode(message_document(message)).decode()).encode()


def message_document(message: Message) -> JSONObject:
    """Return a message as a JSON object.

    The keys are ``notification``, ``namespace``, ``uid``, ``type``, ``priority``, ``subject``, ``body``, ``channel``,
    ``attempt`` and ``idempotencyKey``, and, if not empty, ``recipients``, ``extensions``, ``actionLinks``, ``incident``
    (``key``, ``action``), ``correlationId`` and ``sender``.
    """
    document: JSONObject = {
        "notification": message.name,
        "namespace": message.namespace,
        "uid": message.uid,
        "type": message.type,
        "priority": message.priority,
        "subject": message.subject,
        "body": message.body,
        "channel": message.channel,
        "attempt": message.attempt,
        "idempotencyKey": message.idempotency_key,
    }
    optional: JSONObject = {
        "recipients": list(message.recipients),
        "extensions": dict(message.extensions),
        "actionLinks": [asdict(link) for link in message.links],
        "incident": {"key": message.incident, "action": message.action} if message.incident else None,
        "correlationId": message.correlation_id,
        "sender": message.sender,
    }
    document |= {name: value for name, value in optional.items() if value}
    return {name: _encodable(value) for name, value in document.items()}


def _encodable(value: Any) -> Any:
    """Return a JSON value without lone surrogates, which cannot be encoded."""
    match value:
        case str():
            return encodable(value)
        case Mapping():
            return {encodable(name): _encodable(member) for name, member in value.items()}
        case list():
            return [_encodable(item) for item in value]
    return value


CHANNEL_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.:]{0,61}[A-Za-z0-9])?$"
"""Valid channel names: the syntax of label values, and ``:`` to name a receiver (``slack:oncall``)."""

ENTRY_POINT_GROUP = "reconciler.channels"
"""The entry point group for channels of other distributions."""

_log = logging.getLogger("reconciler.notification")
_name = re.compile(CHANNEL_PATTERN)


@runtime_checkable
class Channel(Protocol):
    """A medium that delivers messages, such as a log, a webhook or email.

    Attributes:
        name: the name that ``spec.channels`` uses; matches `CHANNEL_PATTERN`.
    """

    @property
    def name(self) -> str:
        """Return the channel's name."""
        ...

    async def deliver(self, message: Message) -> None:
        """Called to deliver one message: returns once it is delivered, and raises otherwise.

        May be called concurrently, and is cancelled at shutdown or after a timeout. Cancellation does not undo what was
        already sent. A delivery that is cancelled at shutdown does not count as an attempt, unless it called
        ``message.mark_sent()`` before.

        Raises:
            RetryableDeliveryError: the message was not delivered, and another attempt may succeed.
            UnknownDeliveryError: the message may have been delivered: there was no response. Any exception not named
                here means the same.
            PermanentDeliveryError: no further attempt can succeed.
            DeferredDeliveryError: the delivery was not attempted and should be attempted later.
        """


class ChannelRegistry:
    """The channels of a process, by name: those of the operator, and those of the routing configuration.

    Args:
        channels: the channels of the operator.
        close_after: seconds until a replaced channel is closed, so that deliveries in progress can end. Default 60.

    Attributes:
        own: names of the channels of the operator.
        is_complete: whether the routing configuration, if there is one, has been loaded. Default True.

    Raises:
        ConfigurationError: a name is duplicate or invalid, or an item is not a channel.
    """

    def __init__(self, channels: Iterable[Channel] = (), *, close_after: DurationLike = 60.0) -> None:
        self._close_after = seconds_of("close_after", close_after, zero=True)
        self._channels = _by_name(channels)
        self.own: Sequence[str] = sorted(self._channels)
        self.is_complete = True
        self._retired: list[Channel] = []
        self._change = asyncio.Event()

    def replace(self, channels: Iterable[Channel]) -> None:
        """Replace the channels of the routing configuration in one step. Deliveries in progress end on the old ones.

        Raises:
            ConfigurationError: a name is duplicate or invalid, or an item is not a channel. Nothing has changed.
        """
        before = self._channels
        after = _by_name([*(before[name] for name in self.own), *channels])
        kept = set(map(id, after.values()))
        self._retired += [channel for channel in before.values() if id(channel) not in kept]
        self._channels, self.is_complete = after, True
        self._change.set()

    async def run(self) -> None:
        """Close replaced channels after `close_after` seconds, and all channels when cancelled.

        A channel is closed by its method ``close``, if it has one.
        """
        try:
            while True:
                await self._change.wait()
                self._change.clear()
                retired, self._retired = self._retired, []
                await asyncio.sleep(self._close_after)
                await _close(retired)
        finally:
            await _close([*self._retired, *self._channels.values()])

    def get(self, name: str) -> Channel | None:
        """Return the channel of this name, or None."""
        return self._channels.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._channels

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._channels))


async def call_channel(channel: Channel, message: Message) -> None:
    """Deliver a message over a channel, whose method may be a plain function: it has delivered when it returns."""
    answer: object = channel.deliver(message)
    # Awaiting the None of a plain function would count as a failure and repeat it.
    if inspect.isawaitable(answer):
        await answer


async def close_channel(channel: Channel) -> None:
    """Close a channel if it has a method ``close``, plain or async."""
    close = getattr(channel, "close", None)
    closing = close() if close is not None else None
    if inspect.isawaitable(closing):
        await closing


async def _close(channels: Iterable[Channel]) -> None:
    for channel in channels:
        try:
            await close_channel(channel)
        except Exception as error:  # noqa: BLE001 - channels are user code
            _log.exception("cannot close channel %s: %s: %s", channel.name, type(error).__name__, error)


def _by_name(channels: Iterable[Channel]) -> dict[str, Channel]:
    """Return channels by name, after a check of each."""
    found: dict[str, Channel] = {}
    for channel in channels:
        _check(channel)
        if channel.name in found:
            raise ConfigurationError(f"duplicate channel name {channel.name!r}: rename one of the two channels")
        found[channel.name] = channel
    return found


def _check(candidate: object) -> None:
    if isinstance(candidate, type) or not isinstance(candidate, Channel):
        raise ConfigurationError(
            f"{candidate!r} is not a channel: a channel has an attribute name and a method deliver(message)"
        )
    name: object = candidate.name
    if not (isinstance(name, str) and _name.match(name)):
        raise ConfigurationError(
            f"{type(candidate).__name__}: {name!r} is not a valid channel name for spec.channels: "
            "use at most 63 letters, digits, '-', '_', '.' or ':', with a letter or digit at both ends"
        )


def installed_channels() -> list[Channel]:
    """Return new channels from the entry points of the group ``reconciler.channels`` of all installed distributions.

    An entry point names a class or function that is called without arguments and returns a channel.

    Raises:
        ConfigurationError: a channel cannot be imported or created; the message names it.
    """
    channels: list[Channel] = []
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            channels.append(entry.load()())
        except Exception as error:
            origin = f" of {entry.dist.name}" if entry.dist else ""
            raise ConfigurationError(
                f"cannot create channel {entry.name!r}{origin} ({entry.value}): {error_text(error)}"
            ) from error
    return channels


DurationSeconds = Annotated[float, BeforeValidator(partial(seconds_of, "a duration", zero=True))]
"""The type of a receiver's option that is a duration: seconds, or a text such as ``30s``."""
