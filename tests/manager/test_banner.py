"""The first log line of a manager."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.manager import EndpointSecurity, LeaderElection, ShardByIndex
from reconciler.telemetry import JSONFormatter, TextFormatter
from tests.manager.working import RecordingReconciler


def banner(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [each.getMessage() for each in caplog.records if each.getMessage().startswith("kube-reconciler ")]
    return line


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reconciler.manager")


@pytest.mark.virtual_time
async def test_default_options(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource="v1/ConfigMap")
    manager.add_controller(RecordingReconciler(), resource="v1/Secret")
    async with manager.running():
        assert banner(caplog) == (
            "kube-reconciler 0.1.0: cluster in this process, namespaces all, controllers configmap secret, "
            "metrics not served, health not served, leader election none"
        )


@pytest.mark.virtual_time
async def test_options_are_named(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    election = LeaderElection("operator", namespace="ops", identity="one")
    async with Manager(client, namespaces=["a", "b"], leader_election=election).running():
        assert ", namespaces a b, controllers none, " in banner(caplog)
        assert banner(caplog).endswith(", lease ops/operator as one")


async def test_authentication_of_the_endpoints_is_named(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    security = EndpointSecurity(token="s3cret")
    async with Manager(client, metrics="127.0.0.1:0", security=security).running() as manager:
        assert f"metrics {manager.metrics_url}, health not served, authentication token, " in banner(caplog)
        assert "s3cret" not in banner(caplog)


@pytest.mark.virtual_time
async def test_shard_is_named(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    sharding = ShardByIndex(replicas=3, index=1, kinds=["v1/ConfigMap"])
    async with Manager(client, sharding=sharding).running():
        assert ", shard 1" in banner(caplog)


async def test_cluster_and_addresses_without_credentials(
    server: APIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await server.listen()
    kubeconfig = server.write_kubeconfig(tmp_path / "kubeconfig")
    kubeconfig.write_text(kubeconfig.read_text().replace("http://", "http://user:secret@"))
    async with Client.from_config(kubeconfig=kubeconfig) as client:
        manager = Manager(client, metrics="127.0.0.1:0", health="127.0.0.1:0")
        async with manager.running():
            line = banner(caplog)
            assert f"cluster {server.url.partition('://')[2]}, " in line
            assert f"metrics {manager.metrics_url}, health {manager.health_url}, " in line
    assert "secret" in kubeconfig.read_text()
    assert "secret" not in line


@pytest.mark.virtual_time
async def test_on_a_terminal_each_value_has_its_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async with Manager(client, namespaces=["a", "b"]).running():
        (record,) = [each for each in caplog.records if each.getMessage().startswith("kube-reconciler ")]
    assert TextFormatter(aligned=True).format(record).partition("kube-reconciler")[2].splitlines() == [
        " 0.1.0",
        "  cluster          in this process",
        "  namespaces       a b",
        "  controllers      none",
        "  metrics          not served",
        "  health           not served",
        "  leader election  none",
    ]
    assert "\n" not in TextFormatter().format(record)
    document = json.loads(JSONFormatter().format(record))
    assert document["message"] == record.getMessage()
    assert document["facts"]["namespaces"] == "a b"
