"""Look up credentials in a mounted directory, at the moment of use, so that a rotation needs no restart."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from reconciler.clock import Clock, current_clock
from reconciler.errors import ConfigurationError
from reconciler.notification.errors import RetryableDeliveryError

__all__ = ["Credentials"]

_log = logging.getLogger("reconciler.notification")

SIZE_LIMIT = 65_536
"""Most bytes of a credential; a longer file is none."""

VALUE_LIMIT = 10_000
"""Values that are remembered for redaction; those that were not seen for longest go first."""

LOOK_AGAIN = 5.0
"""Seconds for which the values of all files are taken as known, for redaction."""


class Credentials:
    """Read credentials from a directory: each file is one, named like it, its content without outer white space.

    That is the form of a mounted Secret. Names that begin with a dot, and directories, are none. A file that cannot be
    read for a moment keeps the value that it had.

    Every value that was ever seen is known to `values`, so that one that was just rotated does not leave either.

    Args:
        directory: where they are; None for no credentials at all.
        clock: defaults to the clock in force at each use.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None, *, clock: Clock | None = None) -> None:
        self._directory = Path(directory) if directory is not None else None
        self._clock = clock
        self._last: dict[str, str] = {}
        self._values: OrderedDict[str, None] = OrderedDict()
        self._looked = float("-inf")

    def __repr__(self) -> str:
        return f"Credentials({str(self._directory)!r})"

    def check(self) -> None:
        """Raise unless the directory can be read, for a start that should fail at once.

        Raises:
            ConfigurationError: it cannot.
        """
        if self._directory is None:
            return
        try:
            next(self._directory.iterdir(), None)
        except OSError as error:
            raise ConfigurationError(
                f"the credentials directory {self._directory} cannot be read: {error.strerror}"
            ) from error

    def missing(self, names: Iterable[str]) -> Sequence[str]:
        """Return what is wrong with these names, a sentence each; nothing when every one has a value."""
        return [self._absence(name) for name in dict.fromkeys(names) if self._read(name) is None]

    def get(self, name: str) -> str:
        """Return the value that a credential has now.

        Raises:
            RetryableDeliveryError: there is none of this name; it may come.
        """
        value = self._read(name)
        if value is None:
            raise RetryableDeliveryError(self._absence(name))
        return value

    def values(self) -> Iterable[str]:
        """Return every value that was seen, for redaction."""
        now = (self._clock or current_clock()).monotonic()
        if self._directory is not None and now - self._looked >= LOOK_AGAIN:
            self._looked = now
            for name in self._names():
                self._read(name)
        return tuple(self._values)

    def _names(self) -> list[str]:
        try:
            return [each.name for each in self._directory.iterdir()] if self._directory is not None else []
        except OSError:
            return list(self._last)

    def _read(self, name: str) -> str | None:
        if self._directory is None or not name or name.startswith(".") or os.sep in name:
            return None
        file = self._directory / name
        try:
            if file.is_dir() or file.stat().st_size > SIZE_LIMIT:
                return None
            value = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            self._last.pop(name, None)
            return None
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("credential %s cannot be read, and keeps its value: %s", name, type(error).__name__)
            return self._last.get(name)
        if not value:
            return None
        self._last[name] = value
        self._values[value] = None
        self._values.move_to_end(value)
        if len(self._values) > VALUE_LIMIT:
            self._values.popitem(last=False)
        return value

    def _absence(self, name: str) -> str:
        where = f"in {self._directory}" if self._directory is not None else "since no credentials directory is given"
        return f"there is no credential {name!r} {where}"
