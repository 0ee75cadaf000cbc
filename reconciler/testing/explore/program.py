"""A program in any language as the operator of a world: started, killed and started again, in real time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from reconciler.apiserver.serving.request_log import LoggedRequest
from reconciler.client import Client
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager
from reconciler.testing.trace import TraceEvent
from reconciler.testing.world import NotSettled, OperatorFailed, World, is_bookkeeping

USER = "operator"
"""The user as which the program connects."""

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


def _no_controllers(_manager: Manager) -> None:
    """Add nothing: the operator is another process."""


class ProgramWorld(World):
    """A world in real time, whose server listens on sockets, and whose operator is a program in any language.

    Args:
        command: the program and its arguments; it finds the server through the variable KUBECONFIG.
        resource: the plural name of the kind that it must list or watch when it has connected.
        directory: where the kubeconfig is written.
        definitions: CustomResourceDefinitions and other objects to apply first.
        seed: the seed of the server. Default 0.
        quiet: seconds without a request, after which the program has done its work. Default 1.
        limit: seconds that it has to connect, and to come to rest. Default 60.
    """

    def __init__(
        self,
        command: Sequence[str],
        resource: str,
        directory: Path,
        *,
        definitions: Sequence[object] = (),
        seed: int = 0,
        quiet: float = 1.0,
        limit: float = 60.0,
    ) -> None:
        super().__init__(_no_controllers, definitions=definitions, seed=seed)
        self._command = command
        self._resource = resource
        self._kubeconfig = directory / "kubeconfig"
        self._quiet = quiet
        self._limit = limit
        self._programs: list[Program] = []
        self._connected = self._seen = self._writes = 0
        self._restarting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start the server. Cancellation closes it."""
        self._began = asyncio.get_running_loop().time()
        await self.server.__aenter__()
        self.client = Client(self.server, user_agent="user")
        self.server.log.follow(self._record_request)
        await self.server.apply(*self._definitions)
        self.server.user(USER, groups=["system:masters"]).write_kubeconfig(self._kubeconfig)
        return self

    async def close(self) -> None:
        """Kill the program, and close the server."""
        self.crash()
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait({self._restarting})
            self.crash()
        for program in self._programs:
            await program.ended()
        await self.server.close()

    async def ensure_started(self) -> None:
        """Start the program, unless it has been started before, and wait until it has connected.

        Raises:
            OperatorFailed: it ended, or did not connect in time.
        """
        if not self._programs:
            await self._launch()
        await self._connect()

    async def _launch(self) -> None:
        program = Program(self._command, {"KUBECONFIG": str(self._kubeconfig)})
        self._programs.append(program)
        self.happened(TraceEvent(what="started", at=self.now, process=len(self._programs)))
        await program.start()

    def crash(self) -> None:
        """Kill the program with SIGKILL."""
        if self._programs:
            self._programs[-1].kill()
            self.happened(TraceEvent(what="ended", at=self.now, process=len(self._programs), text="killed"))

    def crash_and_restart(self, delay: float = 1.0) -> None:
        """Kill the program, and start it again after some seconds; `settle` waits for that."""
        self.crash()
        self._restarting = asyncio.get_running_loop().create_task(self._restart(delay))

    async def _restart(self, delay: float) -> None:
        await self._programs[-1].ended()
        await asyncio.sleep(delay)
        await self._launch()

    async def settle(self, **_bounds: float) -> None:
        """Wait until the program has sent no request for a while, except those that keep watches, Leases and Events.

        Raises:
            NotSettled: it still writes after the limit. A program that only reads has settled by then.
            OperatorFailed: it ended, or did not connect in time.
        """
        until = self.now + self._limit
        while True:
            await self.ensure_started()
            activity, writes = self._activity, self._writes
            await asyncio.sleep(self._quiet)
            await self._check_running()
            if self._restarting is not None and not self._restarting.done():
                continue
            if activity == self._activity:
                return
            if self.now >= until:
                if writes == self._writes:
                    return
                last = "; ".join(each.request.summary() for each in self.trace.writes()[-3:] if each.request)
                raise NotSettled(f"the program still writes after {self._limit:g} s. Its latest writes: {last}")

    async def _connect(self) -> None:
        if self._restarting is not None:
            await self._restarting
            self._restarting = None
        until = self.now + self._limit
        while self._connected < len(self._programs):
            await self._check_running()
            if self.now >= until:
                asked = "it lists no " + self._resource if self._seen == len(self._programs) else "no request came"
                raise OperatorFailed(f"the program did not connect within {self._limit:g} s: {asked}{self._said()}")
            await asyncio.sleep(0.05)

    async def _check_running(self) -> None:
        code = self._programs[-1].exit_code
        if code is not None and (self._restarting is None or self._restarting.done()):
            await self._programs[-1].ended()
            raise OperatorFailed(f"the program ended with exit code {code}{self._said()}")

    def _said(self) -> str:
        lines = [line for line in self._programs[-1].output if line.strip()][-5:]
        return "; it printed:\n  " + "\n  ".join(lines) if lines else ", and printed nothing"

    def _record_request(self, entry: LoggedRequest) -> None:
        by_program = entry.user == USER
        if by_program:
            self._seen = len(self._programs)
            if entry.resource == self._resource and entry.verb in ("list", "watch"):
                self._connected = len(self._programs)
            self._writes += entry.writes and not is_bookkeeping(entry)
        self.happened(
            TraceEvent(what="request", at=self.now, process=len(self._programs) if by_program else 0, request=entry)
        )
