"""The client against the embedded API server: in process under virtual time, and over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from reconciler import ConditionedStatus, Model, ObjectMeta, Resource, Unstructured
from reconciler.apiserver import APIServer
from reconciler.client import Client, Retries
from reconciler.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotServed,
    OutcomeUnknown,
)


class DatabaseSpec(Model):
    size: int = 1


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1"):
    """A database."""


def database(name: str = "db1", size: int = 3, **metadata: object) -> Database:
    return Database(
        metadata=ObjectMeta.model_validate({"name": name, "namespace": "default", **metadata}),
        spec=DatabaseSpec(size=size),
    )


@pytest_asyncio.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        await server.apply(Database)
        yield server


@pytest_asyncio.fixture
async def client(server: APIServer) -> AsyncIterator[Client]:
    async with Client(server) as client:
        yield client


virtual = pytest.mark.virtual_time

INITIAL_EVENTS = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}


# a life


@virtual
async def test_an_object_is_made_read_changed_and_deleted(client: Client) -> None:
    made = await client.create(database())
    assert made.uid
    with pytest.raises(AlreadyExists):
        await client.create(database())
    stale = await client.get(Database, "db1", "default")
    assert stale == made
    made.spec.size = 5
    updated = await client.update(made)
    assert (updated.spec.size, updated.generation) == (5, 2)
    with pytest.raises(Conflict):
        await client.update(stale)
    with pytest.raises(Conflict):
        await client.patch(Database, "db1", "default", patch={}, resource_version=stale.resource_version)
    labelled = await client.patch(Database, "db1", "default", patch={"metadata": {"labels": {"a": "b"}}})
    assert labelled.labels == {"a": "b"}
    await client.delete(labelled)
    with pytest.raises(NotFound) as caught:
        await client.get(Database, "db1", "default")
    assert not isinstance(caught.value, NotServed)


@virtual
async def test_a_json_patch_is_conditional_too(client: Client) -> None:
    made = await client.create(database())
    operations = [{"op": "replace", "path": "/spec/size", "value": 7}]
    changed = await client.patch(
        Database, "db1", "default", patch=operations, strategy="json", resource_version=made.resource_version
    )
    assert changed.spec.size == 7
    with pytest.raises(Conflict):
        await client.patch(
            Database, "db1", "default", patch=operations, strategy="json", resource_version=made.resource_version
        )


@virtual
async def test_the_status_is_written_by_its_subresource(client: Client) -> None:
    await client.create(database())
    db = await client.patch(Database, "db1", "default", patch={"status": {"phase": "A"}}, subresource="status")
    assert (db.status.phase, db.generation) == ("A", 1)
    db.status.phase = "B"
    assert (await client.update(db, subresource="status")).status.phase == "B"
    written = await client.status_writer(db).write({"status": {"phase": "C"}})
    assert written["status"] == {"phase": "C"}


@virtual
async def test_a_dry_run_stores_nothing(client: Client) -> None:
    assert (await client.create(database(), dry_run=True)).name == "db1"
    assert len(await client.list(Database)) == 0


@virtual
async def test_a_validation_error_names_the_fields(client: Client) -> None:
    with pytest.raises(Invalid) as caught:
        await client.create({**database().to_dict(), "spec": {"size": "many"}})
    assert caught.value.causes[0].field == "spec.size"


@virtual
async def test_a_list_over_pages_and_selectors(server: APIServer, client: Client) -> None:
    for number in range(7):
        await client.create(database(f"db{number}", labels={"parity": "even" if number % 2 == 0 else "odd"}))
    found = await client.list(Database, "default", limit=3)
    assert [db.name for db in found] == [f"db{number}" for number in range(7)]
    assert len(server.requests(verb="list", resource="databases")) == 3
    assert len(await client.list("example.com/v1/Database", label_selector={"parity": "odd"})) == 3
    await client.delete_all_of(Database, "default", label_selector="parity=odd")
    assert [db.name for db in await client.list(Database)] == ["db0", "db2", "db4", "db6"]


# watching and waiting


@virtual
async def test_a_watch_follows_a_list_without_missing_an_event(client: Client) -> None:
    await client.create(database("old"))
    found = await client.list(Database)
    db = await client.create(database("new"))
    await client.patch(Database, "new", "default", patch={"spec": {"size": 9}})
    await client.delete(db)
    events = [event async for event in client.watch(Database, resource_version=found.resource_version, timeout=5)]
    assert [(event.type, event.object.name) for event in events] == [
        ("ADDED", "new"),
        ("MODIFIED", "new"),
        ("DELETED", "new"),
    ]


@virtual
async def test_initial_events_end_with_a_bookmark(client: Client) -> None:
    await client.create(database())
    events = [event async for event in client.watch(Database, send_initial_events=True, timeout=5)]
    assert [event.type for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1].object.annotations == {"k8s.io/initial-events-end": "true"}


@virtual
async def test_waiting_for_an_object_that_does_not_exist_yet(client: Client) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            client.wait_for(Database, "db1", "default", until=lambda db: db.status.phase == "Ready", timeout=30)
        )
        await asyncio.sleep(5)
        await client.create(database("other"))
        await client.create(database())
        await asyncio.sleep(5)
        await client.patch(Database, "db1", "default", patch={"status": {"phase": "Ready"}}, subresource="status")
    assert waiting.result().status.phase == "Ready"
    assert asyncio.get_running_loop().time() < 11


@virtual
async def test_waiting_ends_at_once_if_the_state_is_reached(client: Client) -> None:
    await client.create(database())
    found = await client.wait_for("example.com/v1/Database", "db1", "default", until=lambda _: True, timeout=30)
    assert isinstance(found, Unstructured)
    assert asyncio.get_running_loop().time() == 0


@virtual
async def test_a_wait_that_times_out_names_the_last_state(client: Client) -> None:
    with pytest.raises(TimeoutError, match=r"^Database default/db1: not as wanted within 30 s; .*no such object$"):
        await client.wait_for(Database, "db1", "default", until=lambda _: True, timeout=30)
    assert asyncio.get_running_loop().time() == pytest.approx(30)
    await client.create(database(finalizers=["example.com/x"]))
    await client.patch(Database, "db1", "default", patch={"status": {"phase": "x" * 600}}, subresource="status")
    await client.delete(Database, "db1", "default")
    with pytest.raises(TimeoutError) as caught:
        await client.wait_for(Database, "db1", "default", until=lambda _: False, timeout=1)
    text = str(caught.value)
    assert '{"phase":"xxx' in text
    assert "finalizers ['example.com/x']" in text
    assert len(text) < 800


@virtual
async def test_a_wait_survives_broken_watches_and_transient_failures(server: APIServer, client: Client) -> None:
    await client.create(database())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            client.wait_for(Database, "db1", "default", until=lambda db: db.spec.size == 9, timeout=60)
        )
        await asyncio.sleep(1)
        server.faults.add(status=500, times=20, verb="list", resource="databases")
        server.faults.add(expired=True, times=1, verb="watch", resource="databases")
        server.cut_watches()
        await asyncio.sleep(1)
        await client.patch(Database, "db1", "default", patch={"spec": {"size": 9}})
    assert waiting.result().spec.size == 9


@virtual
async def test_a_wait_raises_permanent_failures(server: APIServer, client: Client) -> None:
    with pytest.raises(NotServed):
        await client.wait_for("example.com/v1/Nope", "x", "default", until=lambda _: True, timeout=30)
    server.faults.add(status=403, verb="list")
    with pytest.raises(Forbidden):
        await client.wait_for(Database, "x", "default", until=lambda _: True, timeout=30)
    await client.create(database())
    with pytest.raises(ZeroDivisionError):
        await client.wait_for(Database, "db1", "default", until=lambda _: 1 / 0, timeout=30)
    assert asyncio.get_running_loop().time() < 1


@virtual
async def test_a_wait_leaves_no_watch_behind(server: APIServer, client: Client) -> None:
    await client.create(database())
    with pytest.raises(TimeoutError):
        await client.wait_for(Database, "db1", "default", until=lambda _: False, timeout=3)
    assert server.statistics().watches == 0


@virtual
async def test_waiting_until_an_object_is_gone(client: Client) -> None:
    await client.create(database(finalizers=["example.com/x"]))
    assert (held := await client.delete(Database, "db1", "default")) is not None
    assert held.metadata.deletion_timestamp is not None
    with pytest.raises(TimeoutError, match="finalizers"):
        await client.wait_gone(Database, "db1", "default", timeout=5)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.wait_gone(Database, "db1", "default", timeout=5))
        await asyncio.sleep(1)
        await client.patch(Database, "db1", "default", patch={"metadata": {"finalizers": None}})


# failures


@virtual
async def test_a_throttled_request_is_retried_after_the_time_the_server_asks_for(
    server: APIServer, client: Client
) -> None:
    server.faults.add(status=429, times=2, retry_after=2, verb="create")
    await client.create(database())
    assert len(server.requests(verb="create", resource="databases")) == 3
    assert 4 < asyncio.get_running_loop().time() <= 4.4


@virtual
async def test_an_update_whose_answer_was_lost_is_raised_and_was_executed_once(
    server: APIServer, client: Client
) -> None:
    db = await client.create(database())
    db.spec.size = 9
    server.faults.add(lost=True, after_commit=True, verb="update")
    with pytest.raises(OutcomeUnknown):
        await client.update(db)
    assert len(server.requests(verb="update", resource="databases")) == 1
    assert (await client.get(Database, "db1", "default")).spec.size == 9


@virtual
async def test_a_deletion_whose_answer_was_lost_is_retried_with_a_uid(server: APIServer, client: Client) -> None:
    db = await client.create(database())
    server.faults.add(lost=True, after_commit=True, verb="delete")
    assert await client.delete(db) is None
    assert len(server.requests(verb="delete", name="db1")) == 2
    with pytest.raises(NotFound):
        await client.delete(Database, "db1", "default")


@virtual
async def test_a_server_that_never_answers_is_given_up_after_the_timeout(server: APIServer) -> None:
    server.faults.add(stall=True, verb="get", name="db1")
    client = Client(server, retries=Retries(attempts=1))
    with pytest.raises(OutcomeUnknown):
        await client.get(Database, "db1", "default")
    assert asyncio.get_running_loop().time() == pytest.approx(65)


@virtual
async def test_kinds_installed_at_run_time_are_found(server: APIServer, client: Client) -> None:
    class Late(Resource[Model], group="late.io", version="v1"):
        """A kind that comes late."""

    with pytest.raises(NotServed):
        await client.list("late.io/v1/Late")
    await server.apply(Late)
    assert len(await client.list("late.io/v1/Late")) == 0


# sockets


async def test_the_same_over_sockets(server: APIServer, tmp_path: Path) -> None:
    await server.listen()
    path = tmp_path / "kubeconfig"
    server.write_kubeconfig(path)
    async with Client.from_config(kubeconfig=path) as client:
        made = await client.create(database())
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(
                client.wait_for(Database, "db1", "default", until=lambda db: db.status.phase == "Ready", timeout=10)
            )
            await client.patch(Database, "db1", "default", patch={"status": {"phase": "Ready"}}, subresource="status")
        assert waiting.result().uid == made.uid
        with pytest.raises(Conflict):
            await client.update(made)
        rt = await client.resource_type("example.com/v1/Database")
        response = await client.session.open_watch(rt, "default", INITIAL_EVENTS)
        assert response.chunks is not None
        assert b'"ADDED"' in await anext(response.chunks)
        await response.close()
        await client.delete(made)
        await client.wait_gone(Database, "db1", "default", timeout=10)
    assert len(server.requests(verb="create", resource="databases", user_agent="kube-reconciler/")) == 1


@virtual
async def test_a_dry_run_client_stores_nothing_whatever_it_writes(server: APIServer, client: Client) -> None:
    db = await client.create(database(size=1))
    dry = Client(server, dry_run=True)
    before = server.statistics().resource_version
    await dry.create(database("db2"))
    db.spec.size = 9
    assert (await dry.update(db)).spec.size == 9
    await dry.patch(Database, "db1", "default", patch={"spec": {"size": 9}})
    await dry.status_writer(db).write({"status": {"phase": "A"}})
    await dry.delete(db)
    await dry.delete_all_of(Database, "default")
    assert server.statistics().resource_version == before
    assert [(found.name, found.spec.size) for found in await client.list(Database)] == [("db1", 1)]


@virtual
async def test_a_timeout_inside_until_is_not_the_timeout_of_the_wait(client: Client) -> None:
    await client.create(database())

    def until(db: Database) -> bool:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match=r"^mine$"):
        await client.wait_for(Database, "db1", "default", until=until, timeout=30)
