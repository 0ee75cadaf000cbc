"""Serve the embedded API server for a person, kubectl, or another process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from reconciler.apiserver import APIServer, LoggedRequest
from reconciler.cli.crd import load_resource
from reconciler.errors import ConfigurationError

__all__ = ["ServeOptions", "serve", "wait_for_signal"]

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Hold the options of ``reconciler apiserver``.

    Attributes:
        port: on the loopback interface; 0 takes a free one.
        kubeconfig: where to write the kubeconfig.
        log: which requests are printed.
        chaos: the share of the requests that go wrong.
        seed: of all chance.
    """

    port: int
    kubeconfig: Path
    log: Literal["none", "writes", "requests"]
    chaos: float
    seed: int


def serve(names: Sequence[str], options: ServeOptions) -> int:
    """Serve until SIGINT or SIGTERM."""
    asyncio.run(_serve(names, options))
    return 0


async def _serve(names: Sequence[str], options: ServeOptions) -> None:
    things = [thing for name in names for thing in _things(name)]
    async with APIServer(seed=options.seed) as server:
        await server.listen(port=options.port)
        await server.apply(*things)
        write_kubeconfig(server, options.kubeconfig)
        print(f"API server on {server.url}; its data lives as long as this process. In another terminal:")
        print(f"  export KUBECONFIG={options.kubeconfig.resolve()}")
        print("  kubectl get crd,ns", flush=True)
        if options.log != "none":
            server.log.follow(partial(_print, writes=options.log == "writes"))
        if options.chaos:
            server.faults.chaos(seed=options.seed, rate=options.chaos)
        await wait_for_signal()


def _print(entry: LoggedRequest, *, writes: bool) -> None:
    if entry.writes or not writes:
        print(entry, flush=True)


def write_kubeconfig(server: APIServer, kubeconfig: Path) -> None:
    """Write the kubeconfig of a server where a person asked for it.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        server.write_kubeconfig(kubeconfig)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the kubeconfig to {kubeconfig}: {error.strerror}; choose another place with --kubeconfig"
        ) from error


def _things(name: str) -> list[object]:
    path = Path(name)
    if path.is_dir():
        found: list[object] = [each for each in sorted(path.iterdir()) if each.suffix in _SUFFIXES]
        if not found:
            raise ConfigurationError(f"there is no YAML or JSON file in {name}")
        return found
    if path.suffix in _SUFFIXES:
        if not path.is_file():
            raise ConfigurationError(
                f"there is no file {name}: name a YAML or JSON file, a directory, MODULE:CLASS, or 'notification'"
            )
        return [path]
    return [load_resource(name)]


async def wait_for_signal() -> None:
    """Return at the first SIGINT or SIGTERM.

    Cancellation removes the handlers and leaves nothing behind.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
