"""Deliver as files into a directory."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from pathlib import Path

import msgspec.json

from reconciler.errors import ConfigurationError
from reconciler.notification.channels.document import message_json
from reconciler.notification.errors import RetryableDeliveryError
from reconciler.notification.message import Message

__all__ = ["FileChannel"]

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
