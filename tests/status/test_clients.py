"""The batcher over the official clients and this library's, against the embedded API server.

Each test with `family` runs once per official client, over sockets. A blocking client runs in a thread, not on the
server's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes.aio
import kubernetes_asyncio
import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import ConfigurationError, NotFound
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.status import (
    StatusBatcher,
    StatusConflict,
    StatusInvalid,
    StatusRejected,
    StatusSubresourceMissing,
    StatusUnavailable,
)


class DatabaseSpec(Model):
    size: int = 1


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None
    total: int = 0
    log: list[str] = []


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1"):
    """A database."""


@dataclass
class Family:
    """One client library, and how it is used."""

    name: str
    api_client: Any
    custom_objects: Any
    apps: Any
    blocking: bool = False

    async def write(self, api: Any, *args: Any, record: Callable[[Any], object], **options: Any) -> Any:
        """Run a block over the client, as a user would write it."""
        if self.blocking:
            return await asyncio.to_thread(self._write_blocking, api, args, record, options)
        async with StatusBatcher(api, *args, **options) as status:
            record(status)
        return status

    def _write_blocking(self, api: Any, args: Any, record: Callable[[Any], object], options: Any) -> Any:
        with StatusBatcher(api, *args, **options) as status:
            record(status)
        return status


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        await server.apply(Database)
        yield server


@pytest.fixture(params=["kubernetes_asyncio", "kubernetes.aio", "kubernetes"])
async def family(request: pytest.FixtureRequest, server: APIServer, tmp_path: Path) -> AsyncIterator[Family]:
    config = str(server.write_kubeconfig(tmp_path / "config"))
    if request.param == "kubernetes":
        client = kubernetes.config.new_client_from_config(config)
        yield Family(
            request.param, client, kubernetes.client.CustomObjectsApi(client), kubernetes.client.AppsV1Api(client), True
        )
        await asyncio.to_thread(client.close)  # in a thread, so that the server's event loop can run
        return
    library = kubernetes_asyncio if request.param == "kubernetes_asyncio" else kubernetes.aio
    configuration = library.client.Configuration()
    await library.config.load_kube_config(config_file=config, client_configuration=configuration)
    async with library.client.ApiClient(configuration) as client:
        yield Family(request.param, client, library.client.CustomObjectsApi(client), library.client.AppsV1Api(client))


@pytest.fixture
async def database(server: APIServer) -> dict[str, Any]:
    client = Client(server)
    created = await client.create(
        Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=DatabaseSpec(size=3))
    )
    return created.to_dict()


async def stored(server: APIServer) -> dict[str, Any]:
    found = await Client(server).get("example.com/v1/Database", "db1", "default")
    return dict(found["status"])


def record_all(status: Any) -> None:
    status.set(phase="Ready")
    status.increment("total", 2)
    status.append("log", "a")
    status.set_condition("Ready", True, reason="Done")


async def test_many_mutations_are_one_request(server, family, database):
    status = await family.write(family.custom_objects, database, record=record_all)
    after = await stored(server)
    assert (after["phase"], after["total"], after["log"]) == ("Ready", 2, ["a"])
    assert len(server.requests(name="db1", verb="patch")) == 1
    assert status.written is True
    assert status.object["status"]["phase"] == "Ready"


async def test_the_plural_is_discovered_once(server, family, database):
    server.log.clear()
    for _ in range(3):
        database = (await family.write(family.api_client, database, record=lambda s: s.increment("total"))).object
    paths = [r.path for r in server.requests()]
    assert paths[0] == "/apis/example.com/v1"
    assert paths[1:] == ["/apis/example.com/v1/namespaces/default/databases/db1/status"] * 3
    assert (await stored(server))["total"] == 3


async def test_a_typed_class_needs_no_discovery(server, family, database):
    server.log.clear()
    status = await family.write(
        family.api_client, Database, name="db1", namespace="default", record=lambda s: s.set(phase="Ready")
    )
    assert isinstance(status.object, Database)
    assert [(r.verb, r.subresource) for r in server.requests()] == [("get", ""), ("patch", "status")]


async def test_a_kind_by_its_name(server, family, database):
    await family.write(
        family.custom_objects,
        "example.com/v1/Database",
        name="db1",
        namespace="default",
        record=lambda s: s.mutate(lambda d: d.update(phase="Mutated")),
    )
    assert (await stored(server))["phase"] == "Mutated"


async def test_no_change_makes_no_request(server, family, database):
    await family.write(family.custom_objects, database, record=record_all)
    fresh = (await Client(server).get("example.com/v1/Database", "db1", "default")).to_dict()
    server.log.clear()
    status = await family.write(family.custom_objects, fresh, record=lambda s: s.set(phase="Ready"))
    assert status.written is False
    assert server.requests() == []


async def test_a_conflict_is_replayed(server, family, database):
    await Client(server).patch(
        "example.com/v1/Database", "db1", "default", patch={"status": {"total": 5}}, subresource="status"
    )
    status = await family.write(family.custom_objects, database, record=lambda s: s.increment("total"))
    assert (await stored(server))["total"] == 6
    assert (status.statistics().conflicts, status.statistics().attempts) == (1, 2)


async def test_endless_conflicts_are_an_error(server, family, database):
    server.faults.add(status=409, times=None, verb="patch", subresource="status")
    with pytest.raises(StatusConflict):
        await family.write(family.custom_objects, database, record=lambda s: s.increment("total"))
    assert len(server.requests(verb="patch", name="db1")) == 5


@pytest.mark.parametrize("how", ["500", "cut"])
async def test_a_write_whose_answer_is_lost_is_counted_once(server, family, database, how):
    fault = {"status": 500} if how == "500" else {"lost": True}
    server.faults.add(**fault, after_commit=True, verb="patch", subresource="status")
    status = await family.write(family.custom_objects, database, record=lambda s: s.increment("total"))
    assert (await stored(server))["total"] == 1
    assert status.written is True
    assert status.statistics().unknown == 1
    assert len(server.requests(verb="patch", name="db1")) == 1, "no lower layer repeats it"


async def test_a_write_that_was_cut_before_it_was_executed_is_sent_again(server, family, database):
    server.faults.add(lost=True, verb="patch", subresource="status")
    status = await family.write(family.custom_objects, database, record=lambda s: s.increment("total"))
    assert (await stored(server))["total"] == 1
    assert (status.statistics().unknown, status.statistics().attempts) == (1, 2)


async def test_a_request_is_retried_on_an_overloaded_server(server, family, database):
    server.faults.add(status=429, retry_after=0, verb="patch", subresource="status")
    status = await family.write(family.custom_objects, database, record=lambda s: s.increment("total"))
    assert (await stored(server))["total"] == 1
    assert (status.statistics().unknown, status.statistics().reads) == (0, 0)


async def test_nothing_was_written_if_the_server_does_not_listen(server, family, database):
    await server.close()
    obj = Database.from_dict(database)  # its plural does not need discovery
    with pytest.raises(StatusUnavailable, match="NotSent"):
        await family.write(family.api_client, obj, record=lambda s: s.set(phase="Ready"), max_conflicts=2)


async def test_an_invalid_status_names_its_field(server, family, database):
    with pytest.raises(StatusInvalid) as caught:
        await family.write(family.custom_objects, database, record=lambda s: s.set(total="many"))
    assert caught.value.fields == ("status.total",)


async def test_an_unknown_field_is_pruned_reported_and_not_sent_again(server, family, database, caplog):
    for _ in range(2):
        await family.write(family.custom_objects, database, record=lambda s: s.set(phase="Ready", extra=1))
        database = (await Client(server).get("example.com/v1/Database", "db1", "default")).to_dict()
    assert len(server.requests(verb="patch", name="db1")) == 1
    assert "status.extra" in caplog.text
    assert "unknown field" in caplog.text
    assert "its schema has no such field. Write names as on the wire" in caplog.text


async def test_a_client_created_for_each_reconcile_does_not_report_it_again(server, family, database, caplog):
    for _ in range(3):
        api_client = type(family.api_client)(family.api_client.configuration)
        await family.write(api_client, database, record=lambda s: s.set(extra=1))
        await asyncio.to_thread(api_client.close) if family.blocking else await api_client.close()
    assert len(server.requests(verb="patch", name="db1")) == 1
    assert caplog.text.count("did not store") == 1


async def test_a_deleted_object_is_dropped(server, family, database):
    await Client(server).delete("example.com/v1/Database", "db1", "default")
    status = await family.write(family.custom_objects, database, record=lambda s: s.set(phase="Ready"))
    assert (status.written, status.statistics().dropped) == (False, 1)


async def test_a_recreated_object_is_dropped(server, family, database):
    client = Client(server)
    await client.delete("example.com/v1/Database", "db1", "default")
    await client.create({**database, "metadata": {"name": "db1", "namespace": "default"}})
    status = await family.write(family.custom_objects, database, record=lambda s: s.set(phase="Ready"))
    assert (status.written, status.statistics().dropped) == (False, 1)


async def test_a_missing_status_subresource_is_distinguished_from_a_deleted_object(server, family):
    crd = Database.crd()
    crd["metadata"]["name"] = "plains.example.com"
    crd["spec"]["names"] = {"plural": "plains", "singular": "plain", "kind": "Plain", "listKind": "PlainList"}
    del crd["spec"]["versions"][0]["subresources"]
    await server.apply(crd)
    obj = {
        "apiVersion": "example.com/v1",
        "kind": "Plain",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"size": 1},
    }
    created = (await Client(server).create(obj)).to_dict()
    with pytest.raises(StatusSubresourceMissing):
        await family.write(family.custom_objects, created, record=lambda s: s.set(phase="Ready"))
    status = await family.write(family.custom_objects, created, subresource=None, record=lambda s: s.set(phase="Ready"))
    assert status.object["status"] == {"phase": "Ready"}


async def test_a_kind_that_is_not_served_is_named(server, family):
    obj = {"apiVersion": "example.com/v1", "kind": "Nonsense", "metadata": {"name": "n", "namespace": "default"}}
    with pytest.raises((ConfigurationError, StatusRejected), match=r"does not serve example\.com/v1/Nonsense"):
        await family.write(family.custom_objects, obj, record=lambda s: s.set(phase="Ready"))


async def test_a_namespaced_kind_without_namespace_says_so(server, family, database):
    with pytest.raises(ConfigurationError, match="needs a namespace: pass namespace="):
        await family.write(family.custom_objects, Database, name="db1", record=lambda s: s.set(phase="Ready"))


async def test_opening_a_missing_object_raises(server, family):
    with pytest.raises(NotFound):
        await family.write(family.api_client, Database, name="no", namespace="default", record=lambda s: None)


async def test_a_model_of_the_client_is_an_object(server, family):
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    await Client(server).create(document)
    read = family.apps.read_namespaced_deployment("web", "default") if not family.blocking else None
    model = (
        await read
        if read is not None
        else await asyncio.to_thread(family.apps.read_namespaced_deployment, "web", "default")
    )
    status = await family.write(family.apps, model, record=lambda s: s.set(readyReplicas=1, replicas=1))
    assert status.object["status"]["readyReplicas"] == 1
    assert len(server.requests(verb="patch", name="web", subresource="status")) == 1
    assert len(server.requests(verb="get", name="web")) == 1, "the model has its version"


async def test_the_wrong_kind_of_with_names_the_right_one(server, family, database):
    status = StatusBatcher(family.custom_objects, database)
    if family.blocking:
        with pytest.raises(TypeError, match="CustomObjectsApi is a blocking client: write 'with"):
            await status.__aenter__()
    else:
        with pytest.raises(TypeError, match="CustomObjectsApi is an asynchronous client: write 'async with"):
            status.__enter__()


async def test_two_apis_of_one_client_share_a_write(server, family, database):
    def nested(outer: Any) -> None:
        outer.increment("total")
        if family.blocking:
            with StatusBatcher(family.api_client, database) as inner:
                inner.increment("total")
                assert inner.joined

    await family.write(family.custom_objects, database, record=nested)
    if not family.blocking:
        async with StatusBatcher(family.custom_objects, (await current(server))) as outer:
            outer.increment("total")
            async with StatusBatcher(family.api_client, database) as inner:
                inner.append("log", "x")
                assert inner.joined
    assert (await stored(server))["total"] == 2


async def current(server: APIServer) -> dict[str, Any]:
    return (await Client(server).get("example.com/v1/Database", "db1", "default")).to_dict()


async def test_the_clients_retries_are_disabled_for_a_write(server, tmp_path, database):
    """The client may be configured to repeat everything."""
    config = str(server.write_kubeconfig(tmp_path / "config"))
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(config, client_configuration=configuration)
    import urllib3

    configuration.retries = urllib3.Retry(total=5, allowed_methods=None, status_forcelist=[500], backoff_factor=0)
    client = kubernetes.client.ApiClient(configuration)
    family = Family("kubernetes", client, None, None, blocking=True)
    server.faults.add(lost=True, after_commit=True, verb="patch", subresource="status")
    server.faults.add(status=500, times=2, verb="patch", subresource="status")
    status = await family.write(client, database, record=lambda s: s.increment("total"))
    assert (await stored(server))["total"] == 1
    assert len(server.requests(verb="patch", name="db1")) == 1
    assert status.statistics().attempts == 1
    await asyncio.to_thread(client.close)


@pytest.mark.virtual_time
async def test_this_librarys_client_in_process(database, server):
    async with Client(server) as client:
        async with StatusBatcher(client, await client.get(Database, "db1", "default")) as status:
            status.set(DatabaseStatus(phase="Ready"))
            status.increment("total")
        assert status.object.status.phase == "Ready"
        server.faults.add(lost=True, after_commit=True, verb="patch", subresource="status")
        server.faults.add(status=409, times=2, verb="patch", subresource="status")
        async with StatusBatcher(client, status.object) as status:
            status.increment("total")
        assert (await client.get(Database, "db1", "default")).status.total == 2
    assert status.statistics().unknown == 1
    assert status.statistics().conflicts == 0
