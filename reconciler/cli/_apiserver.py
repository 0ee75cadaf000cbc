"""Serve the embedded API server for a person, kubectl, or another process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

from reconciler.apiserver import APIServer
from reconciler.cli._crd import load_resource
from reconciler.errors import ConfigurationError

__all__ = ["serve", "wait_for_signal"]


def serve(crds: Sequence[str], *, port: int, kubeconfig: Path) -> int:
    """Serve until SIGINT or SIGTERM."""
    asyncio.run(_serve(crds, port=port, kubeconfig=kubeconfig))
    return 0


async def _serve(crds: Sequence[str], *, port: int, kubeconfig: Path) -> None:
    things = [_thing(crd) for crd in crds]
    async with APIServer() as server:
        await server.listen(port=port)
        await server.apply(*things)
        write_kubeconfig(server, kubeconfig)
        print(f"API server on {server.url}; its data lives as long as this process. In another terminal:")
        print(f"  export KUBECONFIG={kubeconfig.resolve()}")
        print("  kubectl get crd,ns")
        await wait_for_signal()


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


def _thing(name: str) -> object:
    path = Path(name)
    if path.suffix in {".yaml", ".yml", ".json"}:
        if not path.is_file():
            raise ConfigurationError(
                f"there is no file {name}: name a YAML or JSON file, MODULE:CLASS, or 'notification'"
            )
        return path
    return load_resource(name)


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
