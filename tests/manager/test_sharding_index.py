"""Sharding by the hash of the uid: what each replica reconciles, and which options are invalid."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from reconciler import Manager, Request
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import Watch
from reconciler.errors import ConfigurationError, NotFound
from reconciler.manager import ShardByIndex
from tests.manager.working import RecordingReconciler, config_map

MAP = "v1/ConfigMap"


def replica(client: Client, index: int, working: RecordingReconciler, *, of: int = 3, **options: Any) -> Manager:
    manager = Manager(client, sharding=ShardByIndex(of, [MAP], index=index))
    manager.add_controller(working, resource=MAP, **options)
    return manager


@pytest.mark.virtual_time
async def test_each_object_is_reconciled_by_one_replica(server: APIServer, client: Client) -> None:
    for number in range(40):
        await client.create(config_map(f"listed-{number}"))
    workings = [RecordingReconciler() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for index, working in enumerate(workings):
            await stack.enter_async_context(replica(client, index, working).running())
        for number in range(40):
            await client.create(config_map(f"watched-{number}"))
        await asyncio.sleep(5)
    started = [name for working in workings for name in working.started]
    assert sorted(started) == sorted(f"{how}-{number}" for how in ("listed", "watched") for number in range(40))
    assert all(working.started for working in workings)


@pytest.mark.virtual_time
async def test_events_enqueue_only_on_the_replica_that_owns_the_object(server: APIServer, client: Client) -> None:
    for number in range(20):
        await client.create(config_map(f"map-{number}"))
    workings = [RecordingReconciler() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for index, working in enumerate(workings):
            await stack.enter_async_context(replica(client, index, working, watches=[Watch("v1/Secret")]).running())
        await asyncio.sleep(1)
        before = [set(working.started) for working in workings]
        for working in workings:
            working.started.clear()
        for number in range(20):
            metadata = {"name": f"map-{number}", "namespace": "default"}
            await client.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
        await asyncio.sleep(1)
        assert [set(working.started) for working in workings] == before


@pytest.mark.virtual_time
async def test_key_of_another_replica_is_never_reconciled(server: APIServer, client: Client) -> None:
    for number in range(20):
        await client.create(config_map(f"map-{number}"))
    manager = replica(client, 0, working := RecordingReconciler(), of=2)
    async with manager.running():
        await asyncio.sleep(1)
        own = set(working.started)
        for number in range(20):
            manager.controllers[0].enqueue(Request(f"map-{number}", "default"))
        await asyncio.sleep(1)
        assert set(working.started) == own
        assert 0 < len(own) < 20
        with pytest.raises(NotFound):
            await manager.client.get(MAP, next(f"map-{n}" for n in range(20) if f"map-{n}" not in own), "default")


@pytest.mark.virtual_time
async def test_single_replica_owns_everything(server: APIServer, client: Client) -> None:
    for number in range(10):
        await client.create(config_map(f"map-{number}"))
    async with replica(client, 0, working := RecordingReconciler(), of=1).running():
        await asyncio.sleep(1)
    assert len(working.started) == 10


async def test_metrics_and_queue_endpoint_show_the_shard(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    manager = Manager(client, sharding=ShardByIndex(3, [MAP], index=1), metrics="127.0.0.1:0")
    manager.add_controller(RecordingReconciler(), resource=MAP)
    async with manager.running(), aiohttp.ClientSession() as http:
        manager.controllers[0].enqueue(Request("nobody", "default"))
        while not manager.statistics().controllers[0].reconciles:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        async with http.get(f"{manager.metrics_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        async with http.get(f"{manager.metrics_url}/debug/queue") as answer:
            shard = json.loads(await answer.text())["shard"]
    assert 'reconciler_shard{ring="of 3",shard="1"} 1.0' in lines
    assert 'reconciler_shard_let_go_total{controller="configmap",shard="1"} 1.0' in lines
    assert shard == {
        "index": 1,
        "replicas": 3,
        "hashes": "0x5555555555555555 <= hash of uid < 0xaaaaaaaaaaaaaaaa",
    }
    assert manager.statistics().shard == "1"
    assert manager.statistics().leading is None


def test_index_is_the_ordinal_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "operator-12")
    assert ShardByIndex(20, [MAP]).index == 12


@pytest.mark.parametrize(
    ("host", "make", "message"),
    [
        ("operator-7f9c-x2b", lambda: ShardByIndex(3, [MAP]), "does not end with an ordinal"),
        ("operator-3", lambda: ShardByIndex(3, [MAP]), "index 3 of 3 replicas"),
        ("operator-0", lambda: ShardByIndex(0, [MAP]), "replicas must be 1 or more"),
        ("operator-0", lambda: ShardByIndex(3, [MAP], index=-1), "index -1"),
        ("operator-0", lambda: ShardByIndex(3, []), "is not a sequence of kinds"),
    ],
)
def test_invalid_index_is_refused(
    monkeypatch: pytest.MonkeyPatch, host: str, make: Callable[[], ShardByIndex], message: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    with pytest.raises(ConfigurationError, match=message):
        make()


async def test_owned_kind_cannot_be_sharded_by_its_own_uid(client: Client) -> None:
    manager = Manager(client, sharding=ShardByIndex(3, [MAP, "v1/Secret"], index=0))
    with pytest.raises(ConfigurationError, match=r"sharded by the hash of its own uid.* in a second manager"):
        manager.add_controller(RecordingReconciler(), resource=MAP, owns=["v1/Secret"])


async def test_sharding_by_index_uses_no_lease(client: Client) -> None:
    manager = Manager(client, sharding=ShardByIndex(3, [MAP], index=0))
    manager.add_controller(RecordingReconciler(), resource=MAP)
    resources = [rule["resources"] for each in manager.rbac("apps") for rule in each.get("rules", ())]
    assert ["leases"] not in resources
    async with manager.running():
        assert manager.statistics().leading is None
    assert len(await client.list("coordination.k8s.io/v1/Lease")) == 0
