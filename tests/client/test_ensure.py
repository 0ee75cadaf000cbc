"""`create_or_update` and `create_or_patch` write only what differs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from reconciler import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.client.memory import WrittenDocuments
from reconciler.errors import Conflict, NotServed

pytestmark = pytest.mark.virtual_time


class DatabaseSpec(Model):
    size: int = 1
    tags: list[str] = []


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1"):
    """A database."""


class Port(Model):
    port: int
    protocol: str = "TCP"


class ServiceSpec(Model):
    ports: list[Port] = []
    type: str = "ClusterIP"
    selector: dict[str, str] = {}


class Service(Resource[ServiceSpec], group="example.com", version="v1"):
    """A service, with defaults in its list too."""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        await server.apply(Database, Service)
        yield server


@pytest.fixture
def client(server: APIServer) -> Client:
    return Client(server)


@pytest.fixture(params=["create_or_update", "create_or_patch"])
def ensure(client: Client, request: pytest.FixtureRequest) -> Any:
    return getattr(client, request.param)


def wanted() -> Database:
    return Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=DatabaseSpec())


def grow(db: Database) -> None:
    db.spec.size = 5


def writes(server: APIServer, resource: str = "databases") -> list[str]:
    verbs = {"create", "update", "patch"}
    return [request.verb for request in server.requests(resource=resource) if request.verb in verbs]


async def test_a_missing_object_is_created_with_the_changes(server: APIServer, ensure: Any) -> None:
    db, done = await ensure(wanted(), grow)
    assert (type(db), db.spec.size, done) == (Database, 5, "created")
    assert writes(server) == ["create"]


async def test_an_object_in_the_desired_state_is_not_written(server: APIServer, ensure: Any) -> None:
    first, _ = await ensure(wanted(), grow)
    second, done = await ensure(wanted(), grow)
    assert (second.resource_version, done) == (first.resource_version, "unchanged")
    assert writes(server) == ["create"]


async def test_differences_are_written_and_fields_of_others_stay(
    server: APIServer, client: Client, ensure: Any
) -> None:
    await client.create(wanted())
    await client.patch(Database, "db1", "default", patch={"spec": {"tags": ["foreign"]}})
    db, done = await ensure(wanted(), grow)
    assert (db.spec.size, db.spec.tags, done) == (5, ["foreign"], "updated")
    assert len(writes(server)) == 3


async def test_plain_documents_work_too(client: Client, ensure: Any) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}}

    def fill(obj: Any) -> None:
        obj["data"] = {"a": "b"}

    assert (await ensure(config_map, fill))[1] == "created"
    assert (await ensure(config_map, fill))[1] == "unchanged"
    assert "data" not in config_map
    assert (await client.get("v1/ConfigMap", "c", "default"))["data"] == {"a": "b"}


async def test_a_concurrent_change_is_a_conflict(client: Client, ensure: Any) -> None:
    await client.create(wanted())
    read = client.get

    async def stale(*args: Any) -> Any:
        found = await read(*args)
        await client.patch(Database, "db1", "default", patch={"spec": {"tags": ["foreign"]}})
        return found

    client.get = stale  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await ensure(wanted(), grow)


async def test_mutate_must_not_rename(ensure: Any) -> None:
    def rename(db: Database) -> None:
        db.metadata.name = "db2"

    with pytest.raises(ValueError, match="default/db1 became default/db2"):
        await ensure(wanted(), rename)


async def test_a_kind_that_is_not_served_is_not_created(ensure: Any) -> None:
    class Nope(Resource[Model], group="example.com", version="v1"):
        pass

    with pytest.raises(NotServed):
        await ensure(Nope(metadata=ObjectMeta(name="n", namespace="default"), spec=Model()), lambda _: None)


# what is not a difference

SERVICE = {"apiVersion": "example.com/v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}}


def expose(port: int = 80) -> Any:
    def mutate(obj: Any) -> None:
        obj["spec"] = {**(obj.get("spec") or {}), "ports": [{"port": port}, {"port": 443}]}

    return mutate


async def test_a_server_default_is_not_a_difference_even_if_reset_each_time(
    server: APIServer, client: Client, ensure: Any
) -> None:
    stored, done = await ensure(SERVICE, expose())
    assert (done, stored["spec"]["ports"][0]) == ("created", {"port": 80, "protocol": "TCP"})
    for _ in range(3):
        assert (await ensure(SERVICE, expose()))[1] == "unchanged"
    assert writes(server, "services") == ["create"]
    assert (await ensure(SERVICE, expose(81)))[1] == "updated"
    for _ in range(3):
        assert (await ensure(SERVICE, expose(81)))[1] == "unchanged"
    assert len(writes(server, "services")) == 2
    await client.patch("example.com/v1/Service", "s", "default", patch={"spec": {"selector": {"foreign": "yes"}}})
    assert (await ensure(SERVICE, expose(81)))[0]["spec"]["selector"] == {"foreign": "yes"}


async def test_after_a_restart_a_default_costs_one_write_that_changes_nothing(server: APIServer, ensure: Any) -> None:
    await ensure(SERVICE, expose())
    name = ensure.__name__
    restarted = getattr(Client(server), name)
    server.log.clear()
    assert [(await restarted(SERVICE, expose()))[1] for _ in range(3)] == ["unchanged"] * 3
    (write,) = [entry for entry in server.requests(resource="services") if entry.verb != "get"]
    assert not write.changed


async def test_a_changed_desired_state_is_a_difference_whatever_was_sent_before(client: Client, ensure: Any) -> None:
    def label(value: str | None) -> Any:
        def mutate(obj: Any) -> None:
            expose()(obj)
            obj["metadata"]["labels"] = {} if value is None else {"a": value}

        return mutate

    await ensure(SERVICE, label("1"))
    assert (await ensure(SERVICE, label("1")))[1] == "unchanged"
    assert (await ensure(SERVICE, label("2")))[0].labels == {"a": "2"}
    assert (await ensure(SERVICE, label("1")))[0].labels == {"a": "1"}
    stored, done = await ensure(SERVICE, label(None))
    assert (dict(stored.labels), done) == ({}, "updated")


async def test_a_change_by_others_is_corrected(client: Client, ensure: Any) -> None:
    await ensure(SERVICE, expose())
    await client.patch("example.com/v1/Service", "s", "default", patch={"spec": {"ports": [{"port": 1}]}})
    stored, done = await ensure(SERVICE, expose())
    assert ([port["port"] for port in stored["spec"]["ports"]], done) == ([80, 443], "updated")


async def test_the_memory_of_written_documents_is_bounded() -> None:
    written = WrittenDocuments(most=2)
    for number in range(5):
        written.record(number, {"spec": {}}, {"metadata": {"resourceVersion": "1"}, "spec": {"a": 1}})
    assert len(written) == 2
    written.record(4, {"spec": {}}, {"metadata": {"resourceVersion": "2"}, "spec": {}})
    assert len(written) == 1


async def test_a_dry_run_client_reports_what_would_be_done(server: APIServer, client: Client, ensure: Any) -> None:
    dry = getattr(client.with_options(dry_run=True), ensure.__name__)
    assert (await dry(wanted(), grow))[1] == "created"
    await ensure(wanted(), grow)
    assert (await dry(wanted(), grow))[1] == "unchanged"

    def shrink(db: Database) -> None:
        db.spec.size = 1

    assert (await dry(wanted(), shrink))[1] == "updated"
    assert (await client.get(Database, "db1", "default")).spec.size == 5


# the status


def ready(db: Database) -> None:
    grow(db)
    db.status.phase = "Ready"


async def test_an_update_ignores_the_status(server: APIServer, client: Client) -> None:
    await client.create_or_update(wanted(), grow)
    assert [(await client.create_or_update(wanted(), ready))[1] for _ in range(2)] == ["unchanged"] * 2
    assert writes(server) == ["create"]


async def test_a_patch_writes_object_and_status_each_only_if_it_differs(server: APIServer, client: Client) -> None:
    db, done = await client.create_or_patch(wanted(), ready)
    assert (db.status.phase, done) == ("Ready", "created")
    assert (await client.create_or_patch(wanted(), ready))[1] == "unchanged"

    def status_only(db: Database) -> None:
        db.status.phase = "Failed"

    def both(db: Database) -> None:
        db.spec.size, db.status.phase = 6, "Ready"

    assert (await client.create_or_patch(wanted(), status_only))[1] == "updatedStatusOnly"
    db, done = await client.create_or_patch(wanted(), both)
    assert (db.spec.size, db.status.phase, done) == (6, "Ready", "updatedStatus")
    parts = [(entry.verb, entry.subresource or "") for entry in server.requests(resource="databases")]
    assert [part for part in parts if part[0] != "get"] == [
        ("create", ""),
        ("patch", "status"),
        ("patch", "status"),
        ("patch", ""),
        ("patch", "status"),
    ]


async def test_ensuring_works_in_the_one_namespace_of_a_client(client: Client, ensure: Any) -> None:
    method = getattr(client.in_namespace("default"), ensure.__name__)
    db, _ = await method(Database(metadata=ObjectMeta(name="db1"), spec=DatabaseSpec()), grow)
    assert (db.key, (await method(wanted(), grow))[1]) == (("db1", "default"), "unchanged")
