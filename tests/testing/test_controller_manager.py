"""The real kube-controller-manager beside the real API server; ``nox -s controllers`` builds it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from reconciler import Client
from reconciler.testing.control_plane import ControlPlane
from reconciler.testing.control_plane.binaries import BinariesMissing, binaries_path

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(180)]

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
    },
}


def built() -> ControlPlane:
    """Return a control plane with controllers; skip the test if they are not built."""
    try:
        binaries = binaries_path()
    except BinariesMissing as error:
        pytest.fail(str(error), pytrace=False)
    if not (binaries / "kube-controller-manager").exists():
        pytest.skip("kube-controller-manager is not built: reconciler envtest build --controller-manager")
    return ControlPlane(binaries=binaries, controller_manager=True)


async def pods(client: Client, count: int) -> None:
    """Wait until there are some pods."""
    async with asyncio.timeout(60):
        while len(list(await client.list("v1/Pod", "default"))) != count:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.1)


async def test_the_clusters_own_controllers_run_and_are_stopped_with_it() -> None:
    plane = built()
    async with plane, plane.client() as client:
        await client.create(DEPLOYMENT)
        await pods(client, 2)

        def observed(found: Any) -> bool:
            return (found.to_dict().get("status") or {}).get("unavailableReplicas") == 2

        await client.wait_for("apps/v1/Deployment", "web", "default", until=observed, timeout=60)
        assert plane.audit(verb="create", resource="pods", user="system:kube-controller-manager")
        os.kill(plane.pid("kube-controller-manager"), signal.SIGKILL)
        await plane.revive()
        await plane.restart()
        await client.delete("apps/v1/Deployment", "web", "default")
        await pods(client, 0)
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "short-lived"}})
        await client.delete("v1/Namespace", "short-lived")
        await client.wait_gone("v1/Namespace", "short-lived", timeout=60)
        running = plane.pid("kube-controller-manager")
    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)
