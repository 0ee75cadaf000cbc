"""Find, build and start a real control plane."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from reconciler.cli.servers import wait_for_signal
from reconciler.testing import control_plane

__all__ = ["bring_up", "build_binaries", "print_path"]


def print_path(*, as_json: bool) -> int:
    """Print where the binaries are."""
    path = control_plane.binaries_path()
    sys.stdout.write(msgspec.json.encode({"path": str(path)}).decode() + "\n" if as_json else f"{path}\n")
    return 0


def build_binaries() -> int:
    """Build the binaries unless they are there; print where they are."""
    print(control_plane.build())
    return 0


def bring_up(*, kubeconfig: Path) -> int:
    """Serve a real control plane until SIGINT or SIGTERM."""
    asyncio.run(_bring_up(kubeconfig))
    return 0


async def _bring_up(kubeconfig: Path) -> None:
    async with control_plane.ControlPlane() as plane:
        plane.write_kubeconfig(kubeconfig)
        print(f"kube-apiserver on {plane.url}; its data lives as long as this process. In another terminal:")
        print(f"  export KUBECONFIG={kubeconfig.resolve()}")
        await wait_for_signal()
