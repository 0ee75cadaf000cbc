"""Deliver to a stream that a person reads.

Deliver as a JSON line through the process's logging.

Deliver as files into a directory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import msgspec.json

from reconciler.errors import ConfigurationError
from reconciler.notification.errors import RetryableDeliveryError
from reconciler.notification.message import Message, message_json
from reconciler.notification.redaction.text import one_line, visible

__all__ = ["ConsoleChannel", "FileChannel", "LogChannel"]


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


_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")
_NAME_LENGTH = 120


class FileChannel:
    """Write each message as a JSON file of its own.

    The file is called ``<namespace>_<name>_<uid>_<attempt>.json`` and appears complete or not at all: it is written
    beside its place and renamed, though not synced to the disk. An attempt that is repeated because the process died
    replaces its own file.

    Args:
        directory: where the files go; made with its parents when it is missing.
        name: the channel's name.
        mode: permission bits of the files. Defaults to 0600, since messages may tell what not every account may read.
    """

    def __init__(self, directory: str | os.PathLike[str], *, name: str = "file", mode: int = 0o600) -> None:
        self.name = name
        self._directory = Path(directory)
        self._mode = mode

    def check(self) -> None:
        """Make the directory if it is missing, and try whether files can be written there.

        For a start that should fail at once rather than at the first message. `deliver` does not need it.

        Raises:
            ConfigurationError: they cannot; the message says why.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"the channel {self.name!r} cannot write into {self._directory}: {error.strerror or error}; "
                "give it a directory that this account may write"
            ) from error

    async def deliver(self, message: Message) -> None:
        """Write the message's file in a thread, so that a slow disk holds nobody up.

        Cancellation returns at once; the thread finishes the file, which the next attempt of the same number replaces.

        Raises:
            RetryableDeliveryError: the directory or the file cannot be written.
        """
        await asyncio.to_thread(self._write, message)

    def _write(self, message: Message) -> None:
        message.mark_sent()  # here, for a delivery that is stopped before a thread was free has written nothing
        target = self._directory / _file_name(message)
        content = msgspec.json.format(message_json(message), indent=2) + b"\n"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _write_whole(target, content, self._mode)
        except OSError as error:
            raise RetryableDeliveryError(f"cannot write {target}: {error.strerror or error}") from error


def _file_name(message: Message) -> str:
    # With the parts' own limits (namespace 63, uid 36) the name stays under the 255 bytes that file systems take.
    parts = (message.namespace[:63], message.name[:_NAME_LENGTH], message.uid[:36], str(message.attempt))
    return "_".join(_UNSAFE.sub("-", part) for part in parts) + ".json"


def _write_whole(target: Path, content: bytes, mode: int) -> None:
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        Path(beside).replace(target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
