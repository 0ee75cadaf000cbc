"""Deliver to a stream that a person reads."""

from __future__ import annotations

import re
import sys
from typing import TextIO

from reconciler.notification._message import Message

__all__ = ["ConsoleChannel"]

# A body must not move the cursor, hide text or forge the line of another message.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ConsoleChannel:
    """Print messages: ``[priority] [type] subject``, then the body.

    Control characters other than tab and line feed are shown as ``�``.

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
        head = f"[{message.priority}] [{message.type}] {message.subject}".replace("\n", " ")
        stream = self._stream or sys.stdout
        stream.write(_CONTROL.sub("�", f"{head}\n{message.body.rstrip()}") + "\n")
        stream.flush()
