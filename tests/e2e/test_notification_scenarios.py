"""The 22 scenarios: on the embedded server under virtual time, and on a real kube-apiserver in real time."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.notification import NotificationRequest
from reconciler.testing.cluster import embedded_cluster, real_cluster
from reconciler.testing.control_plane import ControlPlane
from tests.e2e.scenarios import SCENARIOS, Stage


def test_there_are_22_scenarios() -> None:
    assert len(SCENARIOS) == 22


@pytest.mark.virtual_time
@pytest.mark.parametrize("name", SCENARIOS)
async def test_embedded(name: str, tmp_path: Path) -> None:
    async with embedded_cluster() as cluster:
        await cluster.install(NotificationRequest)
        await SCENARIOS[name](Stage(cluster, tmp_path))


@pytest.mark.control_plane
@pytest.mark.parametrize("name", SCENARIOS)
async def test_real(name: str, tmp_path: Path, control_plane: ControlPlane) -> None:
    async with real_cluster(control_plane) as cluster:
        await cluster.install(NotificationRequest)
        await SCENARIOS[name](Stage(cluster, tmp_path))
