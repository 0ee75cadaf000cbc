"""Creating what is missing, changing what differs, leaving alone what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from reconciler import Model, ObjectMeta, Resource
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import Conflict, NotServed

pytestmark = pytest.mark.virtual_time


class DatabaseSpec(Model):
    size: int = 1
    tags: list[str] = []


class Database(Resource[DatabaseSpec], group="example.com", version="v1"):
    """A database."""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        await server.apply(Database)
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


def writes(server: APIServer) -> list[str]:
    verbs = {"create", "update", "patch"}
    return [request.verb for request in server.requests(resource="databases") if request.verb in verbs]


async def test_what_is_missing_is_created_changed(server: APIServer, ensure: Any) -> None:
    db, done = await ensure(wanted(), grow)
    assert (type(db), db.spec.size, done) == (Database, 5, "created")
    assert writes(server) == ["create"]


async def test_what_is_as_wanted_is_not_written(server: APIServer, ensure: Any) -> None:
    first, _ = await ensure(wanted(), grow)
    second, done = await ensure(wanted(), grow)
    assert (second.resource_version, done) == (first.resource_version, "unchanged")
    assert writes(server) == ["create"]


async def test_what_differs_is_written_and_foreign_fields_stay(server: APIServer, client: Client, ensure: Any) -> None:
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


async def test_a_change_in_between_is_a_conflict(client: Client, ensure: Any) -> None:
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
