"""Deliver as a JSON line through the process's logging."""

from __future__ import annotations

import logging

from reconciler.notification.channels.document import message_json
from reconciler.notification.message import Message

__all__ = ["LogChannel"]


class LogChannel:
    """Log each message as one JSON object in one line, at level INFO; its keys are those of `message_document`.

    Characters at which some programs end a line, and those that a terminal obeys, are escaped.

    Args:
        logger: where to log. Defaults to the logger ``reconciler.notification.delivered``.
        name: the channel's name.
    """

    def __init__(self, logger: logging.Logger | None = None, *, name: str = "log") -> None:
        self.name = name
        self._logger = logger or logging.getLogger("reconciler.notification.delivered")

    async def deliver(self, message: Message) -> None:
        """Log the message at once, so cancellation cannot split it."""
        self._logger.info("%s", message_json(message).decode())
