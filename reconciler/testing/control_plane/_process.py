"""Run one program of the control plane."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Process"]


class Process:
    """Be a running program whose output goes to a file.

    Args:
        command: program and arguments.
        log: the file for its output; appended to.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.name = Path(command[0]).name
        self._log = log
        with log.open("ab") as output:
            # A session of its own, so that Ctrl-C in the terminal reaches the tests alone, which then stop it in order.
            self._popen = subprocess.Popen(  # noqa: S603 - ours
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def has_ended(self, *, within: float) -> bool:
        """Wait up to `within` seconds for the program's end; say whether it came."""
        try:
            self._popen.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, *, patience: float) -> None:
        """Ask the program to end, and kill it after `patience` seconds; harmless when it has ended."""
        self._signal(signal.SIGTERM)
        if not self.has_ended(within=patience):
            self._signal(signal.SIGKILL)
            self._popen.wait()

    def last_words(self, lines: int = 5) -> str:
        """Return the end of the program's output on one line."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return " | ".join(text.strip().splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._popen.pid, number)
