"""The commands that run an API server: ``reconciler apiserver`` and ``reconciler envtest``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from reconciler.apiserver import APIServer, LoggedRequest
from reconciler.apiserver.encoding.versions import NEWEST, VERSIONS
from reconciler.cli.options import Controllers, Data, Format, NewKubeconfig
from reconciler.cli.output import KUBECONFIG, write_kubeconfig
from reconciler.cli.progress import Progress
from reconciler.cli.targets import load_resource
from reconciler.errors import ConfigurationError

envtest = App(name="envtest", help="Find, build or start a real etcd and kube-apiserver for tests.")

ControllerManager = Annotated[
    bool, Parameter(help="Include kube-controller-manager: garbage collection, Deployments, Jobs.", negative=())
]
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class APIServerOptions:
    """The options of ``reconciler apiserver``.

    Attributes:
        port: Port on the loopback interface; 0 for a free one.
        log: Requests to print: who, what and result, one per line.
        chaos: Fraction of requests that fail, from 0 to 1.
        seed: Seed of uids, generated names and --chaos.
        tls: Serve over TLS; the kubeconfig contains the CA.
        rbac: Users may do only what roles allow. The user of the kubeconfig may do everything.
        served_until: Also serve the versions that this release of Kubernetes served, such as 1.21, removed later.
        command: Run this shell command with KUBECONFIG set, then stop with its exit code.
    """

    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 0
    kubeconfig: NewKubeconfig = KUBECONFIG
    log: Literal["none", "writes", "requests"] = "none"
    chaos: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.0
    seed: int = 0
    data: Data = None
    controllers: Controllers = ()
    tls: Annotated[bool, Parameter(negative=())] = False
    rbac: Annotated[bool, Parameter(negative="")] = False
    version: Annotated[
        str | None,
        Parameter(help=f"Version of Kubernetes: {', '.join(VERSIONS)}. Default: {NEWEST}.", show_default=False),
    ] = None
    served_until: str | None = None
    command: Annotated[str | None, Parameter(name="--exec")] = None


def apiserver(
    *objects: str,
    options: APIServerOptions = APIServerOptions(),
) -> int:
    """Run the embedded API server on the loopback interface until interrupted, or for one command.

    kubectl and any other client can use it through the kubeconfig. Without --data, its data is lost when it stops.

    Args:
        objects: Objects to create at the start: YAML or JSON file, directory, MODULE:CLASS, 'notification'.
    """
    return asyncio.run(_run_apiserver(objects, options))


def played_controllers(chosen: Sequence[str]) -> Collection[str]:
    """Return the controllers that a server plays: those that a cluster needs and the chosen ones, or none, or all.

    Raises:
        ConfigurationError: ``none`` or ``all`` is chosen together with others.
    """
    for word in {"none", "all"}.intersection(chosen):
        if len(chosen) > 1:
            raise ConfigurationError(f"--controller {word} excludes other controllers: leave it out, or the others")
        return () if word == "none" else word
    return ("garbage", "namespaces", *chosen)


async def _run_apiserver(names: Sequence[str], options: APIServerOptions) -> int:
    objects = [*map(load_object, names)]
    async with APIServer(
        seed=options.seed,
        data=options.data,
        controllers=played_controllers(options.controllers),
        rbac=options.rbac,
        tls=options.tls,
        version=options.version,
        served_until=options.served_until,
    ) as server:
        await server.listen(port=options.port)
        await server.apply(*objects)
        write_kubeconfig(server.write_kubeconfig, options.kubeconfig)
        if options.log != "none":
            server.log.follow(partial(_print, writes=options.log == "writes"))
        if options.chaos:
            server.faults.chaos(seed=options.seed, rate=options.chaos)
        if options.command is not None:
            return await _execute(options.command, options.kubeconfig.resolve())
        print(f"API server on {server.url}; {describe_data(options.data)}")
        print("In another terminal:")
        print(f"  export KUBECONFIG={options.kubeconfig.resolve()}")
        print("  kubectl get crd,ns", flush=True)
        await _wait_for_signal()
    return 0


async def _execute(command: str, kubeconfig: Path) -> int:
    """Run a shell command that finds the server, and return its exit code. Cancellation kills it.

    SIGINT and SIGTERM are passed on to it.
    """
    found = {"KUBECONFIG": str(kubeconfig), "USE_EXISTING_CLUSTER": "true"}  # the second is what envtest reads
    with _signalled() as stop:
        process = await asyncio.create_subprocess_shell(command, env={**os.environ, **found}, start_new_session=True)
        ended, interrupted = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ended, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                os.killpg(process.pid, signal.SIGTERM)
            code = await ended
            return code if code >= 0 else 128 - code  # as a shell does for a signal
        finally:
            interrupted.cancel()
            if not ended.done():
                os.killpg(process.pid, signal.SIGKILL)


def describe_data(data: Path | None) -> str:
    """Return where the state of a server is after it has stopped."""
    return "its data is lost when it stops" if data is None else f"its data is kept in {data}"


def _print(entry: LoggedRequest, *, writes: bool) -> None:
    if entry.writes or not writes:
        print(entry, flush=True)


def load_object(name: str) -> object:
    """Return what a name on the command line stands for: a path, or a class.

    Raises:
        ConfigurationError: there is no such file, or no such class.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.suffix in _SUFFIXES:
        if not path.is_file():
            raise ConfigurationError(
                f"no such file: {name}: name a YAML or JSON file, a directory, MODULE:CLASS, or 'notification'"
            )
        return path
    return load_resource(name)


@contextlib.contextmanager
def _signalled() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _wait_for_signal() -> None:
    """Wait for SIGINT or SIGTERM. Cancellation removes the signal handlers."""
    with _signalled() as stop:
        await stop.wait()


@envtest.command
def path(*, output: Format = "text") -> int:
    """Print the directory of the etcd, kube-apiserver and kubectl binaries."""
    from reconciler.testing.control_plane.binaries import binaries_path

    found = str(binaries_path())
    sys.stdout.write((msgspec.json.encode({"path": found}).decode() if output == "json" else found) + "\n")
    return 0


@envtest.command
def build(*, controller_manager: ControllerManager = False) -> int:
    """Build etcd, etcdutl, kube-apiserver and kubectl with Go into the user's cache, unless they exist."""
    from reconciler.testing import control_plane

    with Progress() as progress:
        directory = control_plane.build(controller_manager=controller_manager, progress=progress.update)
    print(directory)
    return 0


@envtest.command
def up(*, kubeconfig: NewKubeconfig = KUBECONFIG, controller_manager: ControllerManager = False) -> int:
    """Run a real control plane on the loopback interface until interrupted."""
    from reconciler.testing import control_plane

    if controller_manager and "KUBEBUILDER_ASSETS" not in os.environ:
        with Progress() as progress:
            control_plane.build(controller_manager=True, progress=progress.update)
    asyncio.run(_run_control_plane(kubeconfig, controller_manager=controller_manager))
    return 0


async def _run_control_plane(kubeconfig: Path, *, controller_manager: bool) -> None:
    from reconciler.testing import control_plane

    async with contextlib.AsyncExitStack() as stack:
        with Progress() as progress:
            progress.phase("starting etcd and kube-apiserver")
            plane = await stack.enter_async_context(control_plane.ControlPlane(controller_manager=controller_manager))
        write_kubeconfig(plane.write_kubeconfig, kubeconfig)
        print(f"kube-apiserver on {plane.url}; its data is lost when it stops")
        print("In another terminal:")
        print(f"  export KUBECONFIG={kubeconfig.resolve()}")
        await _wait_for_signal()
