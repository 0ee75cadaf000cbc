"""Deliver to a stream that a person reads."""

from __future__ import annotations

import re
import sys
from typing import TextIO

from reconciler.notification.message import Message
from reconciler.notification.redaction.characters import one_line, visible

__all__ = ["ConsoleChannel"]

_HEAD_BEGIN = re.compile(r"^(?=[^\S\n]*\[)", re.MULTILINE)


class ConsoleChannel:
    """Print messages: ``[priority] [type] subject``, then the body.

    Only the first line of a message begins with ``[``: lines of the body that would are indented by a space. What a
    terminal obeys, ends a line at or shows in another order is shown as ``�``.

    Args:
        stream: where to write text. Defaults to what `sys.stdout` is at the time of each message.
        name: the channel's name.
    """

    def __init__(self, stream: TextIO | None = None, *, name: str = "console") -> None:
        self.name = name
        self._stream = stream

    async def deliver(self, message: Message) -> None:
        """Write the message at once, so cancellation cannot split it.

        Raises:
            OSError: the stream cannot be written to; another attempt follows.
        """
        head = visible(one_line(f"[{message.priority}] [{message.type}] {message.subject}"))
        body = _HEAD_BEGIN.sub(" ", visible(message.body.rstrip()))
        stream = self._stream or sys.stdout
        stream.write(f"{head}\n{body}\n")
        stream.flush()
