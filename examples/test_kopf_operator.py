"""Tests of an unmodified kopf operator on the embedded API server: pytest examples/test_kopf_operator.py.

kube-reconciler provides the fixtures ``apiserver`` and ``client``. kopf's own runner starts the operator in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kopf.testing import KopfRunner

from reconciler import Client
from reconciler.apiserver import APIServer

pytestmark = pytest.mark.usefixtures("operator")

CABINET = "example.com/v1/Cabinet"
OPERATOR = Path(__file__).with_name("kopf_operator.py")
CRD = Path(__file__).with_name("cabinet.yaml")


@pytest.fixture
async def operator(apiserver: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Run the operator against the server, as `kopf run` does against a cluster."""
    await apiserver.apply(CRD)
    kubeconfig = apiserver.write_kubeconfig(tmp_path / "kubeconfig")
    # The official client, through which kopf logs in, has read KUBECONFIG when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    command = ["run", "--standalone", "--namespace=before", "--namespace=after", str(OPERATOR)]
    runner = KopfRunner(command, timeout=30)
    await asyncio.to_thread(runner.__enter__)
    yield
    await asyncio.to_thread(runner.__exit__, None, None, None)


def cabinet(namespace: str) -> dict[str, Any]:
    metadata = {"name": "oak", "namespace": namespace}
    return {"apiVersion": "example.com/v1", "kind": "Cabinet", "metadata": metadata, "spec": {"drawers": 3}}


def is_done(obj: Any) -> bool:
    return (obj.to_dict().get("status") or {}).get("drawers") == 3


@pytest.mark.parametrize("version", ["before", "after"])
async def test_creates_the_config_map(client: Client, version: str) -> None:
    await client.create(cabinet(version))
    await client.wait_for(CABINET, "oak", version, until=is_done, timeout=30)
    child = (await client.get("v1/ConfigMap", "oak", version)).to_dict()
    assert child["data"] == {"drawers": "3"}
    assert child["metadata"]["ownerReferences"][0]["kind"] == "Cabinet"


async def test_before_gets_stuck_after_a_lost_response(apiserver: APIServer, client: Client) -> None:
    apiserver.faults.add(verb="create", resource="configmaps", lost=True, after_commit=True)
    await client.create(cabinet("before"))
    while len(apiserver.log.writes("ConfigMap", "oak")) < 3:  # noqa: ASYNC110 - the lost one, and two retries
        await asyncio.sleep(0.05)
    assert not is_done(await client.get(CABINET, "oak", "before"))
    first, *others = apiserver.log.writes("ConfigMap", "oak")
    assert first.fault == "response lost after it took effect"
    assert {(write.status, write.reason) for write in others} == {(409, "AlreadyExists")}


async def test_after_recovers_from_a_lost_response(apiserver: APIServer, client: Client) -> None:
    lost = apiserver.faults.add(verb="create", resource="configmaps", lost=True, after_commit=True)
    await client.create(cabinet("after"))
    await client.wait_for(CABINET, "oak", "after", until=is_done, timeout=30)
    assert lost.hits == 1
    assert [write.status for write in apiserver.log.writes("ConfigMap", "oak")] == [201, 409]


async def test_each_cycle_writes_the_object_once_and_its_status_once(apiserver: APIServer, client: Client) -> None:
    await client.create(cabinet("after"))
    await client.wait_for(CABINET, "oak", "after", until=is_done, timeout=30)
    (cycle,) = apiserver.log.cycles("Cabinet", "oak", by="kopf")
    assert [write.subresource for write in cycle] == ["", "status"]
