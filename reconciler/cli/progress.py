"""What a command is doing, on stderr."""

from __future__ import annotations

from typing import Self, TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from reconciler.clock import Clock, current_clock

_LINE_PERIOD = 10.0
"""Seconds between two lines of a phase, if the stream is not a terminal."""
_REFRESH_PERIOD = 0.1
"""Seconds between two changes of the line on a terminal."""


class Progress:
    """What a command is doing: one line that changes on a terminal, elsewhere a line for each phase and every 10 s.

    It has no thread: nothing changes between two calls. As a context manager it removes the line at the end.

    Args:
        stream: where to show it. Default: stderr.
        clock: source of time. Default: the current clock, so create it before a block of virtual time.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Clock | None = None) -> None:
        self._console = Console(file=stream, stderr=True, highlight=False)
        self._on_terminal = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._now = (clock or current_clock()).monotonic
        self._phase = ""
        self._began = self._next = self._now()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Remove the line."""
        self.close()

    def phase(self, text: str) -> None:
        """Begin a phase, such as "copying the cluster", and show it at once."""
        self._phase, self._began = text, self._now()
        self._show(text)

    def update(self, text: str) -> None:
        """Show how far the phase is, if the last line is old enough; call it as often as you like."""
        if self._now() >= self._next:
            self._show(f"{self._phase}: {text}" if self._phase else text)

    def close(self) -> None:
        """Remove the line from a terminal."""
        if self._on_terminal:
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))

    def _show(self, text: str) -> None:
        now = self._now()
        self._next = now + (_REFRESH_PERIOD if self._on_terminal else _LINE_PERIOD)
        self.close()
        if self._on_terminal:
            minutes, seconds = divmod(int(now - self._began), 60)
            line = Text(f"{minutes}:{seconds:02} {text}")
            self._console.print(line, end="\r", no_wrap=True, overflow="ellipsis")
        else:
            print(text, file=self._console.file, flush=True)
