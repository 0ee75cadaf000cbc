"""A program in any language as the operator of a world: started, killed and started again, in real time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from reconciler._core.durations import DurationLike, seconds_of
from reconciler.apiserver import APIServer, LoggedRequest
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import Manager
from reconciler.testing.explore.run import Run, Subject
from reconciler.testing.operator_process import OperatorFailed, OperatorProcess, has_sender, sent_by
from reconciler.testing.world import World

_GUARD = 'exec 3<&0; (read _ <&3; kill -9 0) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'
"""A shell script that runs its arguments, and kills its process group when the process that started it has ended.

The guard does not hold the program's output open, or the end of the program would not be seen.
"""
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

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal, SIGKILL by default, to its process group; harmless if it has ended."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal_number)

    async def ended(self) -> None:
        """Wait until it has ended, kill what is left of its process group, and read the rest of its output."""
        if self._process is None or self._reading is None:
            return
        await self._process.wait()
        self.kill()
        self._group = None  # the system may give its number to others
        await asyncio.wait({self._reading}, timeout=1.0)  # a process outside the group may hold the pipe open


class ProgramProcess(OperatorProcess):
    """A program in any language as a process of the operator.

    Args:
        number: from 1, in the order of the starts.
        world: its world.
        program: the program.
    """

    def __init__(self, number: int, world: ProgramWorld, program: Program) -> None:
        super().__init__(number, world)
        self.program = program
        self._limit = world.limit
        self._connected = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.seen = False

    async def start(self) -> None:
        """Start the program, and return when it has listed or watched its kind.

        Raises:
            OperatorFailed: it ended, or it did not connect in time.
        """
        await self.program.start()
        self._watching = asyncio.create_task(self._watch())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), self._limit)
        if self.failure is not None:
            raise OperatorFailed(f"the operator did not start: {self.failure}")
        if not self._connected.is_set():
            asked = "it sends requests, but does not list or watch the kind" if self.seen else "it sent no request"
            raise OperatorFailed(f"the program did not connect within {self._limit:g} s: {asked}{self._printed()}")

    async def _watch(self) -> None:
        await self.program.ended()
        if not self.life.ended:
            self.life.end()
            self.failure = OperatorFailed(f"it ended with exit code {self.program.exit_code}{self._printed()}")
            self._connected.set()

    def _printed(self) -> str:
        lines = [line for line in self.program.output if line.strip()][-5:]
        return "; it printed:\n  " + "\n  ".join(lines) if lines else ", and printed nothing"

    def connect(self) -> None:
        """Record that the program has listed or watched its kind."""
        self._connected.set()

    async def stop(self) -> None:
        """Send SIGTERM, and wait until the program has ended; kill it if it does not."""
        if self.running:
            self.life.end()
            self.program.kill(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.program.ended(), self._limit)
        self.program.kill()

    def kill(self) -> None:
        """Kill the program with SIGKILL."""
        super().kill()
        self.program.kill()

    @property
    def running(self) -> bool:
        """Return whether the program runs."""
        return not self.life.ended

    def unfinished(self, horizon: float) -> list[tuple[float, str]]:  # noqa: ARG002 - nobody sees its timers
        """Return what keeps the program from being at rest."""
        return [] if self._connected.is_set() else [(0.0, "the program has not connected")]


class _ProgramServer(APIServer):
    """A server whose requests over sockets are those of a program.

    Args:
        world: the world of the program.
        seed: the seed of the server.
    """

    def __init__(self, world: ProgramWorld, seed: int) -> None:
        super().__init__(seed=seed)
        self._world = world

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if has_sender():
            return await super().send(request)
        process = self._world.processes[-1]
        agent = f"{self._world.name}/{process.number} {request.headers.get('user-agent', '')}"
        text = "at version 0" if ("resourceVersion", "0") in request.query else ""
        with sent_by("operator", process.number, text=text):
            return await super().send(replace(request, headers={**request.headers, "user-agent": agent}))


def _no_controllers(_manager: Manager) -> None:
    """Add nothing: the operator is another process."""


class ProgramWorld(World):
    """A world in real time, whose operator is a program in any language, which reaches the server over sockets.

    Args:
        command: the program and its arguments; it finds the server by the variable KUBECONFIG.
        resource: the plural name of the kind that it lists or watches when it has connected.
        definitions: CustomResourceDefinitions and other objects to apply first.
        seed: the seed of the server. Default 0.
        limit: seconds that it has to connect, and to come to rest. Default 30.

    Attributes:
        limit: as given.
    """

    lag = 3.0

    def __init__(
        self,
        command: Sequence[str],
        resource: str,
        *,
        definitions: Sequence[object] = (),
        seed: int = 0,
        limit: float = 30.0,
    ) -> None:
        super().__init__(_no_controllers, definitions=definitions, seed=seed)
        self.limit = limit
        self._command = command
        self._resource = resource
        self._directory = tempfile.TemporaryDirectory()

    async def __aenter__(self) -> Self:
        """Start the server, and write its kubeconfig. Cancellation closes it."""
        await super().__aenter__()
        await self.server.listen()
        self.server.write_kubeconfig(self._kubeconfig)
        return self

    async def close(self) -> None:
        """Kill the program, and close the server."""
        await super().close()
        for process in self.processes:
            if isinstance(process, ProgramProcess):
                await process.program.ended()
        self._directory.cleanup()

    @property
    def _kubeconfig(self) -> Path:
        return Path(self._directory.name, "kubeconfig")

    def _check_time(self) -> None:
        """Accept real time."""

    def _new_server(self, seed: int, *, rbac: bool) -> APIServer:  # noqa: ARG002 - a program has no roles here
        return _ProgramServer(self, seed)

    def _new_process(self) -> OperatorProcess:
        program = Program(self._command, {"KUBECONFIG": str(self._kubeconfig)})
        return ProgramProcess(len(self.processes) + 1, self, program)

    async def reconcile_all(self) -> None:
        """Start the program again, which then reads all its objects anew."""
        self.crash(restart_after=0.0)

    async def settle(
        self, *, horizon: DurationLike | None = 60.0, limit: DurationLike = 3600.0, reconciles: int | None = 1000
    ) -> None:
        """Wait until the program has written nothing for a second, except what keeps Leases and Events.

        Raises:
            NotSettled: it still writes after the limit.
            OperatorFailed: it ended.
        """
        await super().settle(horizon=horizon, limit=min(seconds_of("limit", limit), self.limit), reconciles=reconciles)

    def _is_activity(self, entry: LoggedRequest) -> bool:
        return entry.writes and super()._is_activity(entry)

    def _record_request(self, entry: LoggedRequest) -> None:
        super()._record_request(entry)
        process = self.processes[-1] if self.processes else None
        if isinstance(process, ProgramProcess) and entry.user_agent.startswith(f"{self.name}/{process.number} "):
            process.seen = True
            if entry.resource == self._resource and entry.verb in ("list", "watch"):
                process.connect()
                self._activity += 1  # it reconciles what it has read, and rests a while after that


@dataclass(frozen=True)
class ProgramSubject(Subject):
    """A program that is explored in real time.

    Attributes:
        command: the program and its arguments.
        resource: the plural name of the kind that it lists or watches.
        limit: seconds that it has to connect, and to come to rest.
    """

    command: Sequence[str] = ()
    resource: str = ""
    limit: float = 30.0

    def new_world(self, *, seed: int, roles: bool, options: Mapping[str, Any], manager: Mapping[str, Any]) -> World:  # noqa: ARG002
        """Return a new world with the program; the options of controllers do not concern it."""
        return ProgramWorld(self.command, self.resource, definitions=self.definitions, seed=seed, limit=self.limit)

    def run(self, life: Coroutine[Any, Any, Run], *, seed: int) -> Run:  # noqa: ARG002 - a program draws its own numbers
        """Run a life of the program in real time."""
        return asyncio.run(life)
