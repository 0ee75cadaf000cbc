"""Run one program of the control plane."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Process"]

_LAST_WILL = 'read -r pid && test "$pid" && { read -r _ || { kill -9 "$pid"; rm -rf "$1"; }; }'
"""Of a shell whose input is a pipe from this process: the second `read` fails when that ends without a word."""


class Process:
    """Be a running program whose output goes to a file.

    It does not outlive this process: when that is killed and cannot `stop` it, a shell that waits for this kills the
    program and removes the directory.

    Args:
        command: program and arguments.
        log: the file for its output, in a directory of the control plane's own; appended to.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.name = Path(command[0]).name
        self._log = log
        # Sessions of their own, so that Ctrl-C in the terminal reaches the tests alone, which then stop all in order.
        self._executor = subprocess.Popen(  # noqa: S603 - ours
            ["/bin/sh", "-c", _LAST_WILL, "sh", str(log.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _running.add(self)
        try:
            with log.open("ab") as output:
                self._popen = subprocess.Popen(  # noqa: S603 - ours
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
        except BaseException:
            self._dismiss()
            raise
        self._tell(f"{self._popen.pid}\n")

    @property
    def pid(self) -> int:
        """Return the program's process id."""
        return self._popen.pid

    def has_ended(self, *, within: float) -> bool:
        """Wait up to `within` seconds for the program's end; say whether it came."""
        try:
            self._popen.wait(within)
        except subprocess.TimeoutExpired:
            return False
        self._dismiss()  # before its number is given to another program
        return True

    def stop(self, *, patience: float) -> None:
        """Ask the program to end, and kill it after `patience` seconds; harmless when it has ended."""
        self._signal(signal.SIGTERM)
        if not self.has_ended(within=patience):
            self._signal(signal.SIGKILL)
            self._popen.wait()
            self._dismiss()

    def last_words(self, lines: int = 5) -> str:
        """Return the end of the program's output on one line."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return " | ".join(text.strip().splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._popen.pid, number)

    def _dismiss(self) -> None:
        """Let the shell go; harmless when it has gone."""
        if self._executor.poll() is None:
            self._tell("\n")
            self._let_go()
            self._executor.wait()

    def _tell(self, line: str) -> None:
        assert self._executor.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(BrokenPipeError):  # somebody has killed the shell
            self._executor.stdin.write(line.encode())
            self._executor.stdin.flush()

    def _let_go(self) -> None:
        assert self._executor.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(BrokenPipeError):
            self._executor.stdin.close()


_running: weakref.WeakSet[Process] = weakref.WeakSet()


def _forget_in_child() -> None:
    """Close this side of the pipes in a forked child, which would hold up the last will for as long as it lives."""
    for process in list(_running):
        process._let_go()  # noqa: SLF001 - beside it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
