"""Deliver as a JSON line through the process's logging."""

from __future__ import annotations

import logging

import msgspec.json

from reconciler.notification._message import Message

__all__ = ["LogChannel"]


class LogChannel:
    """Log each message as one JSON object in one line, at level INFO.

    The keys are ``notification``, ``namespace``, ``uid``, ``type``, ``priority``, ``subject``, ``body``, ``channel``,
    ``attempt`` and ``idempotencyKey``.

    Args:
        logger: where to log. Defaults to the logger ``reconciler.notification.delivered``.
        name: the channel's name.
    """

    def __init__(self, logger: logging.Logger | None = None, *, name: str = "log") -> None:
        self.name = name
        self._logger = logger or logging.getLogger("reconciler.notification.delivered")

    async def deliver(self, message: Message) -> None:
        """Log the message at once, so cancellation cannot split it."""
        self._logger.info("%s", msgspec.json.encode(message_document(message)).decode())


def message_document(message: Message) -> dict[str, str | int]:
    """Return a message as JSON, with the keys that `LogChannel` tells."""
    return {
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
