"""Options that a manager passes to its controllers: sources and debounce; and names in its manifests."""

from __future__ import annotations

import asyncio

import pytest

from reconciler import Client, Manager, Request
from reconciler.apiserver import APIServer
from reconciler.controller import ChannelSource
from reconciler.errors import ConfigurationError
from tests.manager.working import RecordingReconciler, config_map

pytestmark = pytest.mark.virtual_time


async def test_burst_of_changes_is_one_reconcile_and_a_source_enqueues_immediately() -> None:
    working = RecordingReconciler()
    keys: asyncio.Queue[Request] = asyncio.Queue()
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        manager.add_controller(working, resource="v1/ConfigMap", debounce=2, sources=[ChannelSource(keys)])
        async with manager.running():
            await client.create(config_map("a"))
            for number in range(3):
                await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"n": str(number)}})
            keys.put_nowait(Request("b", "default"))
            await asyncio.sleep(1)
            assert working.ended == ["b"]
            await asyncio.sleep(10)
    assert working.ended == ["b", "a"]


async def test_failing_source_stops_the_manager() -> None:
    async def breaks(enqueue) -> None:
        raise ConnectionError("the broker is gone")

    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        manager.add_controller(RecordingReconciler(), resource="v1/ConfigMap", sources=[breaks])
        with pytest.raises(ConnectionError, match="broker"):
            async with asyncio.timeout(60), manager.running():
                await asyncio.sleep(3600)


async def test_invalid_service_account_name_is_refused() -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        manager.add_controller(RecordingReconciler(), resource="v1/ConfigMap")
        with pytest.raises(ConfigurationError, match="'My Operator' is not a valid name"):
            manager.rbac("My Operator")
        assert [document["kind"] for document in manager.rbac("mine")] == [
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
        ]
