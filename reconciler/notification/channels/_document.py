"""Write a message as JSON, for channels that hand it on whole."""

from __future__ import annotations

from typing import Any

from reconciler.notification._message import Message

__all__ = ["message_document"]


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
    return document
