"""Messages, which channels deliver, and their JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec.json

from reconciler._core.wire import JSONObject
from reconciler.notification.redaction.text import encodable, escaped

__all__ = ["IncidentAction", "Link", "Message", "footer", "idempotency_key", "message_document", "message_json"]

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


class _Flag:
    """A mutable flag in a frozen dataclass."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False


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
    _sent: _Flag = field(default_factory=_Flag, init=False, repr=False, compare=False)

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
        return self._sent.is_set

    def mark_sent(self) -> None:
        """Record that the receiver may have the message from now on. Call it right before the data is sent.

        A delivery that is cancelled before this call does not count as an attempt. One that is cancelled afterwards is
        an attempt with an unknown outcome.
        """
        self._sent.is_set = True


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
