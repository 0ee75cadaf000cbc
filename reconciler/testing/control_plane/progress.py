"""The progress of a build that takes minutes, for people who wait for it."""

from __future__ import annotations

import os
import re
from typing import TextIO

from reconciler.clock import Clock, current_clock

__all__ = ["TERMINAL_PERIOD", "BuildProgress", "is_package"]

SHORT = 2.0
"""Seconds of a build that shows nothing."""

TERMINAL_PERIOD = 1.0
"""Seconds between two updates of the line on a terminal."""

PERIOD = 30.0
"""Seconds between two lines, if the stream is not a terminal."""

_PACKAGE = re.compile(r"[\w.~+-]+(/[\w.~+-]+)*")
_DOWNLOAD = "go: downloading "


class BuildProgress:
    """A display of what ``go install -v`` does: a line that changes on a terminal, else a line every 30 s.

    Args:
        stream: where to write it; None for nowhere.
        clock: source of time. Default: the current clock.
    """

    def __init__(self, stream: TextIO | None, *, clock: Clock | None = None) -> None:
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._now = (clock or current_clock()).monotonic
        self._started = self._now()
        self._next = self._started + (SHORT if self._terminal else PERIOD)
        self._shown = False
        self._packages = 0
        self._modules = 0

    def add_line(self, line: str) -> None:
        """Count a line of Go's output."""
        self._packages += is_package(line)
        self._modules += line.startswith(_DOWNLOAD)

    def waiting(self) -> None:
        """Write that another process is building."""
        if self._stream is not None:
            print("another process is building etcd and kube-apiserver: waiting for it", file=self._stream, flush=True)

    def update(self) -> None:
        """Write the progress if it is time to."""
        now = self._now()
        if self._stream is None or now < self._next:
            return
        self._next = now + (TERMINAL_PERIOD if self._terminal else PERIOD)
        minutes, seconds = divmod(int(now - self._started), 60)
        text = f"{minutes}:{seconds:02} min, modules downloaded: {self._modules}, packages compiled: {self._packages}"
        whole = f"building etcd and kube-apiserver: {text}"
        self._write(f"\r{self._fitting(whole, f'building: {text}')}\x1b[K" if self._terminal else f"{whole}\n")
        self._shown = True

    def close(self) -> None:
        """Erase the line on a terminal."""
        if self._terminal and self._shown:
            self._write("\r\x1b[K")

    def _fitting(self, text: str, short: str) -> str:
        """Return what fits in a line of the terminal, since only one line can be written over."""
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns if self._stream is not None else 0
        except OSError:  # the stream has no descriptor
            width = 0
        if not width or len(text) < width:
            return text
        return short[: width - 1]

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def is_package(line: str) -> bool:
    """Return whether a line of ``go install -v`` is the name of a compiled package, not a message."""
    return _PACKAGE.fullmatch(line) is not None
