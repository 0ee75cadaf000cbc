"""Channels that need no receiver: console, log and file."""

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
from reconciler.notification.channel import Message, RetryableDeliveryError, message_json
from reconciler.notification.redaction import visible, visible_line

_HEAD_BEGIN = re.compile(r"^(?=[^\S\n]*\[)", re.MULTILINE)


class ConsoleChannel:
    """A channel that prints messages: ``[priority] [type] subject``, then the body.

    Only the first line of a message starts with ``[``: such lines of a body are indented by a space. Control
    characters, unusual line separators and bidirectional controls are printed as ``�``.

    Args:
        stream: the text stream to write to. Default: the value of `sys.stdout` at each message.
        name: the channel's name.
    """

    def __init__(self, stream: TextIO | None = None, *, name: str = "console") -> None:
        self.name = name
        self._stream = stream

    async def deliver(self, message: Message) -> None:
        """Write the message in one step; cancellation cannot interrupt it.

        Raises:
            OSError: the stream cannot be written; the attempt has failed and is retried.
        """
        head = visible_line(f"[{message.priority}] [{message.type}] {message.subject}")
        body = _HEAD_BEGIN.sub(" ", visible(message.body.rstrip()))
        stream = self._stream or sys.stdout
        stream.write(f"{head}\n{body}\n")
        stream.flush()


class LogChannel:
    """A channel that logs each message as one line of JSON, at level INFO; the keys are those of `message_document`.

    Control characters and unusual line separators are escaped.

    Args:
        logger: the logger. Default: ``reconciler.notification.delivered``.
        name: the channel's name.
    """

    def __init__(self, logger: logging.Logger | None = None, *, name: str = "log") -> None:
        self.name = name
        self._logger = logger or logging.getLogger("reconciler.notification.delivered")

    async def deliver(self, message: Message) -> None:
        """Log the message in one step; cancellation cannot interrupt it."""
        self._logger.info("%s", message_json(message).decode())


_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")
_NAME_LENGTH = 120


class FileChannel:
    """A channel that writes each message to a JSON file.

    The file is named ``<namespace>_<name>_<uid>_<attempt>.json`` and appears complete or not at all: it is written to a
    temporary file and renamed, without fsync. An attempt that is repeated because the process died replaces its own
    file.

    Args:
        directory: the directory of the files; created with its parents if it does not exist.
        name: the channel's name.
        mode: permission bits of the files. Default 0600, since messages may be confidential.
    """

    def __init__(self, directory: str | os.PathLike[str], *, name: str = "file", mode: int = 0o600) -> None:
        self.name = name
        self._directory = Path(directory)
        self._mode = mode

    def check(self) -> None:
        """Create the directory if necessary, and check that files can be written to it.

        Call it at startup to fail early; `deliver` does not need it.

        Raises:
            ConfigurationError: the directory cannot be created or written; the message says why.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"channel {self.name!r} cannot write to {self._directory}: {error.strerror or error}; "
                "use a directory that this user can write to"
            ) from error

    async def deliver(self, message: Message) -> None:
        """Write the message's file in a thread, so that a slow disk does not block the event loop.

        If cancelled, it returns at once. The thread still finishes the file, which the next attempt with the same
        number replaces.

        Raises:
            RetryableDeliveryError: the directory or the file cannot be written.
        """
        await asyncio.to_thread(self._write, message)

    def _write(self, message: Message) -> None:
        message.mark_sent()  # in the thread, because a delivery cancelled before has written nothing
        target = self._directory / _file_name(message)
        content = msgspec.json.format(message_json(message), indent=2) + b"\n"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _write_atomically(target, content, self._mode)
        except OSError as error:
            raise RetryableDeliveryError(f"cannot write {target}: {error.strerror or error}") from error


def _file_name(message: Message) -> str:
    # With the limits of its parts (namespace 63, uid 36) the name stays below the 255 bytes that file systems allow.
    parts = (message.namespace[:63], message.name[:_NAME_LENGTH], message.uid[:36], str(message.attempt))
    return "_".join(_UNSAFE.sub("-", part) for part in parts) + ".json"


def _write_atomically(target: Path, content: bytes, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
