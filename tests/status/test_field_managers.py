"""The name that a batcher writes under."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_asyncio
import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import ResourceReconciler
from reconciler.manager import Manager
from reconciler.meta.field_managers import program_name
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.status import StatusBatcher


class Spec(Model):
    size: int = 1


class Status(ConditionedStatus):
    phase: str | None = None
    one: str | None = None
    two: str | None = None


class Database(Resource[Spec, Status], group="example.com", version="v1"):
    """A database."""


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        await server.apply(Database)
        yield server


async def created(server: APIServer) -> dict[str, Any]:
    db = Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=Spec())
    return (await Client(server, user_agent="creator").create(db)).to_dict()


async def stored(server: APIServer) -> dict[str, Any]:
    return (await Client(server).get("example.com/v1/Database", "db1", "default")).to_dict()


def managers_of_status(document: dict[str, Any]) -> set[tuple[str, str]]:
    entries = document["metadata"]["managedFields"]
    return {(entry["manager"], entry["operation"]) for entry in entries if "f:status" in entry["fieldsV1"]}


class SetsOne(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[Status]) -> None:
        status.set(one="1")

    async def finalize(self, db: Database, status: StatusBatcher[Status]) -> None: ...


class SetsTwo(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[Status]) -> None:
        status.set(two="2")


@pytest.mark.virtual_time
@pytest.mark.parametrize("strategy", ["merge", "apply"])
async def test_two_controllers_of_a_process_write_their_fields_of_a_status_side_by_side(server, strategy):
    one, two = SetsOne(), SetsTwo()
    one.status_strategy = two.status_strategy = strategy
    async with Client(server, user_agent="prog") as client:
        manager = Manager(client)
        manager.add_controller(one, name="one")
        manager.add_controller(two, name="two")
        async with manager.running():
            await created(server)
            await client.wait_for(
                Database, "db1", "default", until=lambda db: (db.status.one, db.status.two) == ("1", "2"), timeout=60
            )
    document = await stored(server)
    operation = "Apply" if strategy == "apply" else "Update"
    assert managers_of_status(document) == {("prog/one", operation), ("prog/two", operation)}
    finalizers = {e["manager"] for e in document["metadata"]["managedFields"] if "f:metadata" in e["fieldsV1"]}
    assert finalizers == {"prog/one"}, "the finalizer helper writes under the controller's name"


async def test_an_official_client_writes_under_the_programs_name_or_the_given_one(server, tmp_path: Path):
    configuration = kubernetes_asyncio.client.Configuration()
    path = str(server.write_kubeconfig(tmp_path / "config"))
    await kubernetes_asyncio.config.load_kube_config(path, client_configuration=configuration)
    async with kubernetes_asyncio.client.ApiClient(configuration) as api:
        async with StatusBatcher(api, await created(server)) as status:
            status.set(phase="Ready")
        async with StatusBatcher(api, status.object, field_manager="chosen") as status:
            status.set(one="1")
        with pytest.raises(ValueError, match="1 to 128 bytes"):
            StatusBatcher(api, status.object, field_manager="x" * 129)
    assert managers_of_status(await stored(server)) == {(program_name(), "Update"), ("chosen", "Update")}


@pytest.mark.virtual_time
async def test_an_apply_to_a_kind_without_subresource_keeps_finalizers_and_spec(server):
    crd = Database.crd()
    crd["metadata"]["name"] = "plains.example.com"
    crd["spec"]["names"] = {"kind": "Plain", "plural": "plains", "singular": "plain", "listKind": "PlainList"}
    del crd["spec"]["versions"][0]["subresources"]
    await server.apply(crd)
    client = Client(server, field_manager="me")
    metadata = {"name": "a", "namespace": "default", "finalizers": ["example.com/a"]}
    obj = {"apiVersion": "example.com/v1", "kind": "Plain", "metadata": metadata, "spec": {"size": 3}}
    document = (await client.create(obj)).to_dict()
    for strategy in ("merge", "apply"):
        async with StatusBatcher(client, document, strategy=strategy, subresource=None) as status:
            status.set(phase=strategy)
        document = status.object
    assert document["metadata"]["finalizers"] == ["example.com/a"]
    assert document["spec"] == {"size": 3}
    assert document["status"] == {"phase": "apply"}
