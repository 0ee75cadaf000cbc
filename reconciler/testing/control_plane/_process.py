"""Run one program of the control plane."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Process"]

_LAST_WILL = 'read -r _ || { kill -9 "$1"; rm -rf "$2"; }'
"""Of a shell whose input is a pipe from this process: `read` fails when that ends without a word."""


class Process:
    """Be a running program whose output goes to a file.

    It does not outlive this process: when that is killed and cannot `stop` it, a shell that waits for this kills the
    program and removes the directory.

    Args:
        command: program and arguments.
        log: the file for its output, in a directory of the control plane's own; appended to.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.name = Path(command[0]).name
        self._log = log
        with log.open("ab") as output:
            # A session of its own, so that Ctrl-C in the terminal reaches the tests alone, which then stop it in order.
            self._popen = subprocess.Popen(  # noqa: S603 - ours
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._executor = subprocess.Popen(  # noqa: S603 - ours
            ["/bin/sh", "-c", _LAST_WILL, "sh", str(self._popen.pid), str(log.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
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
        self._executor.communicate(b"\n" if self._executor.poll() is None else None)

    def last_words(self, lines: int = 5) -> str:
        """Return the end of the program's output on one line."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return " | ".join(text.strip().splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._popen.pid, number)
