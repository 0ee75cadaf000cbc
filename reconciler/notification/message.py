"""Hold what a channel is given to deliver.

Write a message as JSON, for channels that hand it on whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec.json

from reconciler.notification.redaction.text import encodable, escaped

__all__ = ["Link", "Message", "message_document", "message_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Point to where a reader can act.

    Attributes:
        service: what it leads to, such as ``"grafana"``.
        url: the address, http or https.
        label: what the link is called.
    """

    service: str
    url: str
    label: str


class _Mark:
    """Be set or not."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Be one message for one channel. Its texts are redacted.

    Attributes:
        name: of the NotificationRequest.
        namespace: of the NotificationRequest.
        uid: of the NotificationRequest: a request that was deleted and made again is another one.
        type: what it is about, ``"Escalation"`` or another of `NotificationType`.
        priority: ``"Critical"``, ``"High"``, ``"Medium"`` or ``"Low"``.
        subject: one line.
        body: the text.
        channel: the name of the channel that is to deliver it.
        attempt: 1 for the first attempt on this channel.
        recipients: whom the request names for this kind of channel; empty to use those that the channel has.
        extensions: attributes of the sender's own.
        links: where a reader can act.
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
    _sent: _Mark = field(default_factory=_Mark, init=False, repr=False, compare=False)

    @property
    def idempotency_key(self) -> str:
        """Return what stays the same over all attempts of this message on this channel, for receivers that know it.

        A process that dies between the call and the write of its result calls again: a receiver that takes a key
        (``Idempotency-Key``, a dedup key) then shows the message once.
        """
        return f"{self.uid}/{self.channel}"

    @property
    def is_sent(self) -> bool:
        """Say whether the receiver may have the message, by `mark_sent`."""
        return self._sent.is_set

    def mark_sent(self) -> None:
        """Note that the receiver may have the message from now on: call it right before the bytes that deliver it.

        A delivery that is cancelled before was no attempt; one that is cancelled after it is an attempt whose outcome
        is unknown.
        """
        self._sent.is_set = True


def message_json(message: Message) -> bytes:
    """Return a message as JSON in one line, whatever a program takes for the end of one; see `message_document`."""
    return escaped(msgspec.json.encode(message_document(message)).decode()).encode()


def message_document(message: Message) -> dict[str, Any]:
    """Return a message as JSON.

    The keys are ``notification``, ``namespace``, ``uid``, ``type``, ``priority``, ``subject``, ``body``, ``channel``,
    ``attempt``, ``idempotencyKey``; and, when there are any, ``recipients``, ``extensions`` and ``actionLinks``.
    """
    document: dict[str, Any] = {
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
    if message.recipients:
        document["recipients"] = list(message.recipients)
    if message.extensions:
        document["extensions"] = dict(message.extensions)
    if message.links:
        document["actionLinks"] = [
            {"service": link.service, "url": link.url, "label": link.label} for link in message.links
        ]
    return {name: _encodable(value) for name, value in document.items()}


def _encodable(value: Any) -> Any:
    """Return a JSON value without lone surrogates, which no encoding can write."""
    match value:
        case str():
            return encodable(value)
        case Mapping():
            return {encodable(name): _encodable(member) for name, member in value.items()}
        case list():
            return [_encodable(item) for item in value]
    return value
