"""A program in any language that is started, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence

from reconciler.errors import ConfigurationError

_GUARD = 'exec 3<&0; (read _ <&3; kill -9 0) 2>&- & exec "$@" 3<&- </dev/null'
"""A shell script that runs its arguments, and kills its process group when the process that started it has ended."""
_LINES = 50
_LINE_BYTES = 65_536


class Program:
    """A program in a process group of its own, which ends with it, and with the process that started it.

    A program that leaves its process group, as a daemon does, is not found again.

    Args:
        command: the program and its arguments.
        environment: the variables that are set besides those of this process.

    Attributes:
        output: the last lines of its standard output and error.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._group: int | None = None
        self.output: deque[str] = deque(maxlen=_LINES)

    async def start(self) -> None:
        """Start it. Cancellation kills it.

        Raises:
            ConfigurationError: the system cannot start processes.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _GUARD,
                "sh",
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=_LINE_BYTES,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError(f"cannot start {self._command[0]}: {error.strerror}") from error
        self._group = self._process.pid
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a longer line, of which the rest follows
                continue
            if not line:
                return
            self.output.append(line.decode(errors="replace").rstrip())

    @property
    def exit_code(self) -> int | None:
        """Return the code with which it has ended, negative for a signal; None while it runs or before it starts."""
        return None if self._process is None else self._process.returncode

    def kill(self) -> None:
        """Send SIGKILL to its process group; harmless if it has ended."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until a killed program has ended, and its output is read. Cancellation leaves it killed."""
        self._group = None  # the system may give its number to others
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            with contextlib.suppress(TimeoutError):  # a process outside the group holds the pipe open
                await asyncio.wait_for(self._reading, 1.0)
