"""A program in any language as the operator of a world: started, killed and started again, in real time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer, LoggedRequest
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import Manager
from reconciler.testing.explore.enclosure import ClusterAccess, Enclosure, HostNames
from reconciler.testing.explore.run import Run, RunInterrupted, Subject
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
        enclosure: the namespaces that it runs in. Default: those of this process.
        serve: serves the sockets of the enclosure.

    Attributes:
        output: the last lines of its standard output and error.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        enclosure: Enclosure | None = None,
        serve: Callable[[Sequence[socket.socket]], Awaitable[None]] | None = None,
    ) -> None:
        self._command = list(command)
        self._enclosure = enclosure
        self._serve = serve
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._group: int | None = None
        self.output: deque[str] = deque(maxlen=_LINES)

    async def start(self) -> None:
        """Start it. Cancellation kills it.

        Raises:
            ConfigurationError: the system cannot start processes, or set up the enclosure.
        """
        enclosure = self._enclosure
        command = self._command if enclosure is None else enclosure.command(self._command)
        try:
            self._process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _GUARD,
                "sh",
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=_LINE_BYTES,
                env=self._environment,
                start_new_session=True,
                pass_fds=() if enclosure is None else (enclosure.descriptor,),
            )
        except OSError as error:
            raise ConfigurationError(f"cannot start {self._command[0]}: {error.strerror}") from error
        self._group = self._process.pid
        self._reading = asyncio.create_task(self._read(self._process))
        if enclosure is not None and self._serve is not None:
            opening = asyncio.create_task(enclosure.open(self._serve))
            ending = asyncio.create_task(self._process.wait())
            try:
                await asyncio.wait({opening, ending}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                opening.cancel()
                raise
            finally:
                ending.cancel()
                enclosure.close()  # if the namespaces have ended, nothing comes from them any more
            await opening

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

    @property
    def connected(self) -> bool:
        """Return whether the program has listed or watched its kind."""
        return self._connected.is_set()

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

    def __init__(self, world: ProgramWorld, seed: int, *, tls: bool, served_until: str | None) -> None:
        super().__init__(seed=seed, tls=tls, served_until=served_until)
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
        resources: the plural names of kinds of which it lists or watches one when it has connected.
        definitions: CustomResourceDefinitions and other objects to apply first.
        environment: the variables that it has besides those of this process. Default: none.
        enclosed: whether it runs in a network and mount namespace of its own; see `Enclosure`. Default False.
        served_until: as for `APIServer`. Default: removed versions of kinds are not served.
        seed: the seed of the server. Default 0.
        limit: seconds that it has to connect, and to come to rest. Default 30.

    Attributes:
        limit: as given.
    """

    lag = 3.0

    def __init__(
        self,
        command: Sequence[str],
        resources: Collection[str],
        *,
        definitions: Sequence[object] = (),
        environment: Mapping[str, str] | None = None,
        enclosed: bool = False,
        served_until: str | None = None,
        seed: int = 0,
        limit: float = 30.0,
    ) -> None:
        self._enclosed = enclosed
        self._served_until = served_until
        super().__init__(_no_controllers, definitions=definitions, seed=seed)
        self.limit = limit
        self._command = command
        self._resources = resources
        self._environment = dict(environment or {})
        self._services: dict[tuple[str, int], Any] = {}
        self._runners: list[web.AppRunner] = []

    async def __aenter__(self) -> Self:
        """Start the server, and write its kubeconfig. Cancellation closes it."""
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._names = HostNames(Path(self._directory.name, "hosts"))
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
        for runner in self._runners:
            await runner.cleanup()
        self._directory.cleanup()

    @property
    def _kubeconfig(self) -> Path:
        return Path(self._directory.name, "kubeconfig")

    def _check_time(self) -> None:
        """Accept real time."""

    def _new_server(self, seed: int, *, rbac: bool) -> APIServer:  # noqa: ARG002 - a program has no roles here
        return _ProgramServer(self, seed, tls=self._enclosed, served_until=self._served_until)

    def _new_process(self) -> OperatorProcess:
        home = Path(self._directory.name, "home")
        home.mkdir(exist_ok=True)
        environment = {"KUBECONFIG": str(self._kubeconfig), "HOME": str(home), "TMPDIR": str(home)}
        enclosure = None
        if self._enclosed:
            authority = base64.b64decode(self.server.authority).decode()
            access = ClusterAccess(int(self.server.url.rpartition(":")[2]), self.server.token, authority)
            environment |= access.environment
            enclosure = Enclosure(access, self._names, list(self._services))
        program = Program(self._command, environment | self._environment, enclosure, self._serve_sockets)
        return ProgramProcess(len(self.processes) + 1, self, program)

    def service(self, name: str, app: web.Application, *, port: int = 80) -> None:
        """Let an aiohttp application stand in for a Service or pod. Call it before the first step of the user.

        The requests to it that are not GET or HEAD are effects in the trace.

        Args:
            name: its name with the namespace, such as ``"queue-client.default"``.
            app: the application.
            port: the port. Default 80.

        Raises:
            ConfigurationError: the world is open, so that names lead elsewhere; or the program has been started.
        """
        if not self._enclosed:
            raise ConfigurationError("a stand-in service needs a closed world: run the program without --open")
        if self.processes:
            raise ConfigurationError(f"service({name!r}): add services before the first step")

        async def note(request: web.Request, _response: web.StreamResponse) -> None:
            if request.method not in ("GET", "HEAD"):
                self.effect(f"{request.method} {name}", request.path)

        app.on_response_prepare.append(note)
        self._services[self._names.address(name), port] = app

    async def _serve_sockets(self, sockets: Sequence[socket.socket]) -> None:
        await self.server.serve(sockets[0])
        for app, listening in zip(self._services.values(), sockets[1:], strict=True):
            runner = web.AppRunner(app)
            self._runners.append(runner)
            await runner.setup()
            await web.SockSite(runner, listening).start()

    def _record_change(self, before: JSONObject | None, after: JSONObject | None) -> None:
        super()._record_change(before, after)
        if before is None and after is not None and self._enclosed:
            for name in _names_of(after):
                self._names.address(name)

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
            if entry.resource in self._resources and entry.verb in ("list", "watch") and not process.connected:
                process.connect()
                self._activity += 1  # it reconciles what it has read, and rests a while after that


def _names_of(document: JSONObject) -> list[str]:
    """Return the names that resolve because an object exists."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    if document.get("kind") == "Service":
        return [f"{metadata['name']}.{metadata['namespace']}"]
    if document.get("kind") == "Pod" and spec.get("subdomain"):
        return [f"{spec.get('hostname') or metadata['name']}.{spec['subdomain']}.{metadata['namespace']}"]
    return []


@dataclass(frozen=True)
class ProgramSubject(Subject):
    """A program that is explored in real time.

    Attributes:
        command: the program and its arguments.
        resources: the plural names of kinds of which it lists or watches one.
        limit: seconds that it has to connect, and to come to rest.
        environment: the variables that it has besides those of this process.
        enclosed: whether it runs in a network and mount namespace of its own.
        served_until: as for `APIServer`.
        running: the runs in progress, each with its event loop.
    """

    command: Sequence[str] = ()
    resources: Collection[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    enclosed: bool = False
    served_until: str | None = None
    limit: float = 30.0
    running: set[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = field(default_factory=set, compare=False)

    def new_world(self, *, seed: int, roles: bool, options: Mapping[str, Any], manager: Mapping[str, Any]) -> World:  # noqa: ARG002
        """Return a new world with the program; the options of controllers do not concern it."""
        return ProgramWorld(
            self.command,
            self.resources,
            definitions=self.definitions,
            environment=self.environment,
            enclosed=self.enclosed,
            served_until=self.served_until,
            seed=seed,
            limit=self.limit,
        )

    def run(self, life: Coroutine[Any, Any, Run], *, seed: int) -> Run:  # noqa: ARG002 - a program draws its own numbers
        """Run a life of the program in real time.

        Raises:
            RunInterrupted: `interrupt` was called.
        """
        try:
            return asyncio.run(self._interruptible(life))
        except asyncio.CancelledError:
            raise RunInterrupted("the run was interrupted") from None

    async def _interruptible(self, life: Coroutine[Any, Any, Run]) -> Run:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run makes one
        here = asyncio.get_running_loop(), task
        self.running.add(here)
        try:
            return await life
        finally:
            self.running.discard(here)

    def interrupt(self) -> None:
        """Interrupt the runs, also from another thread: their programs are killed."""
        for loop, task in list(self.running):
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
