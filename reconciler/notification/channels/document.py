"""Write a message as JSON, for channels that hand it on whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec.json

from reconciler.notification.message import Message
from reconciler.notification.redaction.characters import encodable, escaped

__all__ = ["message_document", "message_json"]


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
