"""The guard finds controllers that write a status more than once per cycle, over every client."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import kopf
import kubernetes
import kubernetes.aio
import kubernetes_asyncio
import lightkube
import pytest
import requests
from lightkube.generic_resource import create_namespaced_resource

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.meta import Request
from reconciler.meta.cycle import current_cycle
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.status import StatusBatcher, TooManyStatusWrites, guard
from reconciler.status.write_interception import status_write
from tests.status.test_cycle import FakeCycle


class Spec(Model):
    size: int = 1


class Status(ConditionedStatus):
    phase: str | None = None
    total: int | None = None


class Database(Resource[Spec, Status], group="example.com", version="v1"):
    """A database."""


KIND = "example.com/v1/Database"
ARGS = ("example.com", "v1", "default", "databases", "db1")
PATH = "/apis/example.com/v1/namespaces/default/databases/db1/status"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        await server.apply(Database)
        await Client(server).create(Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=Spec()))
        yield server


async def write(client: Client, phase: str, name: str = "db1") -> None:
    await client.patch(KIND, name, "default", patch={"status": {"phase": phase}}, subresource="status")


async def write_all(client: Client, phases: str) -> None:
    for phase in phases:
        await write(client, phase)


# Every client, over sockets.


def config_of(server: APIServer, tmp_path: Path) -> str:
    return str(server.write_kubeconfig(tmp_path / "config"))


async def by_kubernetes(server: APIServer, config: str) -> None:
    def storm() -> None:
        with kubernetes.config.new_client_from_config(config) as api_client:
            api = kubernetes.client.CustomObjectsApi(api_client)
            for phase in "ab":
                api.patch_namespaced_custom_object_status(*ARGS, {"status": {"phase": phase}})

    await asyncio.to_thread(storm)


async def by_requests(server: APIServer, config: str) -> None:
    def storm() -> None:
        with requests.Session() as session:
            for phase in "ab":
                body = {"status": {"phase": phase}}
                session.patch(server.url + PATH, json=body, headers=MERGE | bearer(config)).raise_for_status()

    await asyncio.to_thread(storm)


def bearer(config: str) -> dict[str, str]:
    loaded = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(config, client_configuration=loaded)
    return {"Authorization": loaded.get_api_key_with_prefix("authorization") or loaded.api_key["BearerToken"]}


async def by_httpx(server: APIServer, config: str) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers=MERGE | bearer(config)) as session:
        (await session.patch(PATH, json={"status": {"phase": "a"}})).raise_for_status()

    def second() -> None:
        with httpx.Client(base_url=server.url, headers=MERGE | bearer(config)) as session:
            session.patch(PATH, json={"status": {"phase": "b"}}).raise_for_status()

    await asyncio.to_thread(second)


async def by_lightkube(server: APIServer, config: str) -> None:
    kind = create_namespaced_resource("example.com", "v1", "Database", "databases")
    client = lightkube.AsyncClient(config=lightkube.KubeConfig.from_file(config))
    for phase in "ab":
        await client.patch(
            kind.Status,
            "db1",
            {"status": {"phase": phase}},
            namespace="default",
            patch_type=lightkube.types.PatchType.MERGE,
        )
    await client.close()


async def by_kubernetes_asyncio(server: APIServer, config: str) -> None:
    await by_asyncio_client(kubernetes_asyncio, config)


async def by_kubernetes_aio(server: APIServer, config: str) -> None:
    await by_asyncio_client(kubernetes.aio, config)


async def by_asyncio_client(library: Any, config: str) -> None:
    configuration = library.client.Configuration()
    await library.config.load_kube_config(config_file=config, client_configuration=configuration)
    async with library.client.ApiClient(configuration) as api_client:
        api = library.client.CustomObjectsApi(api_client)
        for phase in "ab":
            body = await api.get_namespaced_custom_object(*ARGS)
            body["status"] = {"phase": phase}
            await api.replace_namespaced_custom_object_status(*ARGS, body)


async def by_this_librarys_client(server: APIServer, config: str) -> None:
    async with Client.from_config(kubeconfig=config) as client:
        for phase in "ab":
            await write(client, phase)


async def by_aiohttp(server: APIServer, config: str) -> None:
    async with aiohttp.ClientSession(headers=MERGE | bearer(config)) as session:
        for phase in "ab":
            async with session.patch(server.url + PATH, json={"status": {"phase": phase}}) as response:
                assert response.status == 200


CLIENTS = [
    by_kubernetes,
    by_requests,
    by_httpx,
    by_lightkube,
    by_kubernetes_asyncio,
    by_kubernetes_aio,
    by_this_librarys_client,
    by_aiohttp,
]


@pytest.mark.parametrize("storm", CLIENTS, ids=lambda storm: storm.__name__)
async def test_two_writes_of_one_cycle_are_found_whatever_client_makes_them(
    server: APIServer, tmp_path: Path, storm: Callable[[APIServer, str], Awaitable[None]]
) -> None:
    config = config_of(server, tmp_path)
    with guard(window=60) as watching:
        await storm(server, config)
    (found,) = watching.found
    assert (found.object, found.kind, found.count) == ("databases.example.com default/db1", "cycle", 2)
    assert watching.statistics().writes == 2, "each is reported once, however many layers it goes through"
    assert len([r for r in server.requests(name="db1", subresource="status") if r.verb in {"patch", "update"}]) == 2
    assert all("test_guard.py" in write.stack[-1] for write in found.writes), "the last frame is the caller's own"


@pytest.mark.parametrize("family", ["kubernetes", "kubernetes_asyncio"])
async def test_the_same_work_in_a_batcher_is_found_to_be_one_write(
    server: APIServer, tmp_path: Path, family: str
) -> None:
    config = config_of(server, tmp_path)
    obj = (await Client(server).get(KIND, "db1", "default")).to_dict()

    def blocking() -> None:
        with kubernetes.config.new_client_from_config(config) as api_client, StatusBatcher(api_client, obj) as status:
            status.set(phase="a")
            status.set(phase="b")

    with guard(fail=True, window=60) as watching:
        if family == "kubernetes":
            await asyncio.to_thread(blocking)
        else:
            configuration = kubernetes_asyncio.client.Configuration()
            await kubernetes_asyncio.config.load_kube_config(config, client_configuration=configuration)
            async with (
                kubernetes_asyncio.client.ApiClient(configuration) as api_client,
                StatusBatcher(api_client, obj) as status,
            ):
                status.set(phase="a")
                status.set(phase="b")
    assert watching.statistics().writes == 1


async def test_a_kopf_operator_that_writes_beside_kopf_is_found(
    server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler patches with its own client, and kopf patches what it returned."""
    config = config_of(server, tmp_path)
    registry = kopf.OperatorRegistry()
    done = asyncio.Event()

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        token = bearer(config)["Authorization"].removeprefix("Bearer ")
        return kopf.ConnectionInfo(server=server.url, token=token, scheme="Bearer")

    @kopf.on.event("example.com", "v1", "databases", registry=registry)
    async def handle(patch: kopf.Patch, status: Any, **_: Any) -> None:
        if status.get("phase") is None:
            await write(Client(server), "Working")
            patch.status["phase"] = "Ready"
        elif status.get("phase") == "Ready":
            done.set()

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    stop = asyncio.Event()
    with guard(window=60) as watching:
        operator = asyncio.create_task(
            kopf.operator(registry=registry, settings=settings, namespaces=["default"], standalone=True, stop_flag=stop)
        )
        await asyncio.wait_for(done.wait(), 20)
        stop.set()
        await operator
    (found,) = watching.found
    assert [w.request for w in found.writes] == [f"PATCH {PATH}"] * 2, "the rest of a URL may contain a password"
    assert "test_guard.py" in found.writes[0].stack[-1]
    assert "kopf" in found.writes[1].stack[-1]


# What a write is.


@pytest.mark.parametrize(
    ("method", "url", "body", "expected"),
    [
        ("PATCH", PATH, b"", "databases.example.com default/db1"),
        (
            "PUT",
            "https://host:6443/prefix/of/a/proxy" + PATH + "?fieldManager=x",
            b"",
            "databases.example.com default/db1",
        ),
        ("PATCH", "/api/v1/namespaces/prod/pods/web-0/status", b"", "pods prod/web-0"),
        ("PATCH", "/api/v1/nodes/n1/status", b"", "nodes n1"),
        ("PATCH", "/api/v1/namespaces/prod/status", b"", "namespaces prod"),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/web", b'{"status":{}}', "deployments.apps a/web"),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/web", {"status": {}}, "deployments.apps a/web"),
        ("PATCH", "/apis/g.io/v1/things/a%3Ab", '[{"op":"add","path":"/status/x","value":1}]', "things.g.io a:b"),
        ("PATCH", "/apis/g.io/v1/things/a", '[{"op":"test","path":"/status/x","value":1}]', None),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/web", b'{"spec":{}}', None),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/web", b"\xff", None),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/web", object(), None),
        ("PUT", "/apis/apps/v1/namespaces/a/deployments/web", b'{"status":{}}', None),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/web/scale", b'{"status":{}}', None),
        ("GET", PATH, b"", None),
        ("POST", "/apis/apps/v1/namespaces/a/deployments", b'{"status":{}}', None),
        ("PATCH", PATH + "?dryRun=All", b"", None),
        ("PATCH", "https://elsewhere.example.com/status", b"", None),
    ],
)
def test_what_counts_as_a_status_write(method: str, url: str, body: object, expected: str | None) -> None:
    found = status_write(method, url, lambda: body)
    assert (None if found is None else str(found)) == expected


async def test_a_refused_write_is_a_request_but_not_a_write(server: APIServer) -> None:
    client = Client(server)
    server.faults.add(status=409, times=2, verb="patch", subresource="status")
    with guard(fail=True) as watching:
        async with StatusBatcher(client, (await client.get(KIND, "db1", "default")).to_dict()) as status:
            status.set(phase="a")
    assert status.statistics().conflicts == 2
    assert (watching.statistics().requests, watching.statistics().writes) == (3, 1)


async def test_a_request_without_an_answer_is_not_a_write(server: APIServer) -> None:
    client = Client(server)
    with guard() as watching:
        server.faults.add(lost=True, verb="patch", subresource="status")
        with pytest.raises(Exception, match="db1"):
            await write(client, "a")
    assert (watching.statistics().requests, watching.statistics().writes) == (1, 0)


# What a cycle is.


@pytest.mark.virtual_time
async def test_without_marks_writes_that_follow_each_other_closely_are_one_cycle(server: APIServer) -> None:
    client = Client(server)
    with guard() as watching:
        for phase in "abc":
            await write(client, phase)
            await asyncio.sleep(0.5)
    (found,) = watching.found
    assert found.count == 3


@pytest.mark.virtual_time
async def test_the_pause_counts_from_the_answer(server: APIServer) -> None:
    """A slow response is not a pause between two writes."""
    client = Client(server)
    server.faults.add(latency=5, times=None, verb="patch")
    with guard() as watching:
        await write_all(client, "abc")
    assert [found.count for found in watching.found] == [3]


@pytest.mark.virtual_time
async def test_without_marks_a_pause_ends_a_cycle(server: APIServer) -> None:
    client = Client(server)
    with guard(fail=True) as watching:
        for phase in "abc":
            await write(client, phase)
            await asyncio.sleep(1.0)
    assert watching.statistics().writes == 3


@pytest.mark.virtual_time
async def test_a_mark_makes_one_cycle_of_work_that_takes_longer(server: APIServer) -> None:
    client = Client(server)
    with guard() as watching, guard.cycle():
        for phase in "ab":
            await write(client, phase)
            await asyncio.sleep(60)
    assert [found.count for found in watching.found] == [2]


@pytest.mark.virtual_time
async def test_marked_cycles_are_distinguished_however_close(server: APIServer) -> None:
    client = Client(server)
    with guard(fail=True):
        for phase in "ab":
            with guard.cycle():
                await asyncio.create_task(write(client, phase))


@pytest.mark.virtual_time
async def test_cycles_of_two_workers_are_distinguished(server: APIServer) -> None:
    client = Client(server)

    async def worker(phase: str) -> None:
        with guard.cycle():
            await write(client, phase)
            await asyncio.sleep(0.1)

    with guard(fail=True):
        await asyncio.gather(worker("a"), worker("b"))
    with guard() as watching:
        await asyncio.gather(*(twice(client, phase) for phase in "ab"))
    assert [found.count for found in watching.found] == [2, 2]


async def twice(client: Client, phase: str) -> None:
    with guard.cycle():
        await write(client, phase + "1")
        await asyncio.sleep(0.1)
        await write(client, phase + "2")


@pytest.mark.virtual_time
@pytest.mark.parametrize("form", ["dict", "request", "resource"])
async def test_a_mark_for_an_object_leaves_the_others_unmarked(server: APIServer, form: str) -> None:
    client = Client(server)
    await client.create(Database(metadata=ObjectMeta(name="db2", namespace="default"), spec=Spec()))
    read = await client.get(Database, "db1", "default")
    obj = {"dict": read.to_dict(), "request": Request("db1", "default"), "resource": read}[form]
    with guard() as watching, guard.cycle(obj):
        for name in ("db1", "db2"):
            await write(client, "a", name)
        await asyncio.sleep(60)
        for name in ("db1", "db2"):
            await write(client, "b", name)
    assert [found.object for found in watching.found] == ["databases.example.com default/db1"]


@pytest.mark.virtual_time
async def test_a_reconcile_of_this_librarys_controllers_is_a_cycle(server: APIServer) -> None:
    client = Client(server)

    async def reconcile(*phases: str) -> None:
        token = current_cycle.set(FakeCycle())
        try:
            for phase in phases:
                await write(client, phase)
                await asyncio.sleep(60)
        finally:
            current_cycle.reset(token)

    with guard() as watching:
        await reconcile("a")
        await reconcile("b")
        assert not watching.found
        await reconcile("c", "d")
    assert [found.count for found in watching.found] == [2]


@pytest.mark.virtual_time
async def test_a_storm_of_single_writes_that_trigger_their_own_controller_is_found(server: APIServer) -> None:
    """A controller that is triggered by the event of its own write, and writes each time."""
    client = Client(server)
    with guard(burst=5) as watching:
        for attempt in range(12):
            with guard.cycle():
                await write(client, f"attempt-{attempt}")
            await asyncio.sleep(0.1)
    (found,) = watching.found
    assert (found.kind, found.count) == ("storm", 12)
    assert "the events of your own writes" in str(found)


@pytest.mark.virtual_time
async def test_marked_cycles_with_pauses_in_between_are_not_a_storm(server: APIServer) -> None:
    client = Client(server)
    with guard(fail=True, burst=2):
        for attempt in range(12):
            with guard.cycle():
                await write(client, f"attempt-{attempt}")
            await asyncio.sleep(1.5)


# Reporting.


@pytest.mark.virtual_time
async def test_a_warning_has_the_stack_of_each_write_and_is_repeated_when_their_number_doubles(
    server: APIServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(server)

    async def deliver_to_slack() -> None:
        await write(client, "secret-1")

    async def deliver_to_mail() -> None:
        await write(client, "secret-2")

    with guard() as watching:
        await deliver_to_slack()
        await deliver_to_mail()
        assert len(caplog.records) == 1
        for number in range(14):
            await write(client, f"more-{number}")
    text = caplog.records[0].getMessage()
    assert text.startswith("2 status writes to databases.example.com default/db1 in one cycle (0.000 s)")
    assert "in deliver_to_slack\n    await write(client" in text
    assert "in deliver_to_mail\n    await write(client" in text
    assert "StatusBatcher" in text
    assert "secret" not in text.replace('"secret-1"', "").replace('"secret-2"', ""), "no contents, only source lines"
    assert [r.getMessage().split()[0] for r in caplog.records] == ["2", "3", "5", "9"]
    assert watching.found[0].count == 16
    last = str(watching.found[0])
    assert "write 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16: PATCH" in last, "each place is listed once"
    assert last.count("more-{number}") == 1


@pytest.mark.virtual_time
async def test_fail_raises_at_the_end_and_does_not_disturb_the_work(server: APIServer) -> None:
    watching = guard.install(fail=True)
    await write_all(Client(server), "ab")
    with pytest.raises(TooManyStatusWrites, match="2 status writes to databases"):
        watching.__exit__(None, None, None)


@pytest.mark.virtual_time
async def test_an_exception_of_the_work_is_raised_with_the_finding_as_a_note(server: APIServer) -> None:
    async def work() -> None:
        with guard(fail=True):
            await write_all(Client(server), "ab")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await work()
    assert "2 status writes" in caught.value.__notes__[0]


@pytest.mark.virtual_time
async def test_limit_allows_more(server: APIServer) -> None:
    client = Client(server)
    with guard(limit=2, fail=True):
        await write_all(client, "ab")
    watching = guard.install(limit=2)
    await write_all(client, "abc")
    watching.uninstall()
    with pytest.raises(TooManyStatusWrites, match="3 status writes"):
        watching.check()


@pytest.mark.virtual_time
async def test_what_is_kept_is_bounded(server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.status import write_guard as _guard

    monkeypatch.setattr(_guard, "MAX_OBJECTS", 2)
    monkeypatch.setattr(_guard, "MAX_WRITES", 3)
    monkeypatch.setattr(_guard, "MAX_FOUND", 1)
    client = Client(server)
    for name in ("db2", "db3", "db4"):
        await client.create(Database(metadata=ObjectMeta(name=name, namespace="default"), spec=Spec()))
    with guard() as watching:
        for name in ("db2", "db3", "db4"):
            for phase in "abcde":
                await write(client, phase, name)
    statistics = watching.statistics()
    assert (statistics.objects, statistics.found, len(watching.found)) == (2, 3, 1)
    assert (watching.found[0].count, len(watching.found[0].writes)) == (5, 3)
    assert str(watching.found[0]).endswith("and 2 more")


@pytest.mark.parametrize("options", [{"limit": 0}, {"burst": 0}, {"window": -1}, {"window": float("nan")}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        guard(**options)


# Installing and uninstalling.


async def test_the_libraries_are_restored_at_the_end(server: APIServer) -> None:
    import urllib3.connectionpool

    before = (aiohttp.ClientSession._request, urllib3.connectionpool.HTTPConnectionPool.urlopen, list(sys.meta_path))
    outer = guard.install()
    with guard():
        assert aiohttp.ClientSession._request is not before[0]
    assert aiohttp.ClientSession._request is not before[0], "the outer one still watches"
    outer.uninstall()
    outer.uninstall()
    assert before == (
        aiohttp.ClientSession._request,
        urllib3.connectionpool.HTTPConnectionPool.urlopen,
        list(sys.meta_path),
    )


@pytest.mark.virtual_time
async def test_nested_guards_both_count(server: APIServer) -> None:
    client = Client(server)
    with guard() as outer, guard() as inner:
        await write(client, "a")
    assert outer.statistics().writes == inner.statistics().writes == 1


async def test_a_wrapper_installed_by_someone_else_stays(
    server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example tracing, which wraps the same methods and may be installed after the guard and removed after it."""
    config, calls = config_of(server, tmp_path), []
    first = guard.install()
    ours = aiohttp.ClientSession._request

    async def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args[0])
        return await ours(self, *args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", traced)
    first.uninstall()
    await by_aiohttp(server, config)
    assert (len(calls), first.statistics().requests) == (2, 0)
    with guard(window=60) as second:
        await by_aiohttp(server, config)
    assert second.statistics().writes == 2
    monkeypatch.undo()
    with guard():
        pass
    assert not hasattr(aiohttp.ClientSession._request, "__wrapped__")


PROGRAM = """
import sys
from reconciler.status import guard
watching = guard.install()
assert not {"aiohttp", "urllib3", "requests", "httpx", "kubernetes", "kubernetes_asyncio"} & set(sys.modules)
import urllib3
assert watching.statistics().libraries == ("urllib3",)
assert hasattr(urllib3.connectionpool.HTTPConnectionPool.urlopen, "__wrapped__")
assert type(urllib3.connectionpool.__spec__.loader).__name__ == "SourceFileLoader"
watching.uninstall()
assert not hasattr(urllib3.connectionpool.HTTPConnectionPool.urlopen, "__wrapped__")
print("as it was")
"""


def test_a_library_imported_later_is_watched_and_the_guard_imports_none() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "as it was", done.stderr


def test_a_guard_without_any_supported_library_warns() -> None:
    program = "from reconciler.status import guard\nwith guard(): pass"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "the status guard saw nothing: none of the HTTP libraries" in done.stderr


async def test_threads_are_counted_without_loss(server: APIServer, tmp_path: Path) -> None:
    config = config_of(server, tmp_path)
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        with kubernetes.config.new_client_from_config(config) as api_client, guard.cycle():
            barrier.wait()
            kubernetes.client.CustomObjectsApi(api_client).patch_namespaced_custom_object_status(
                *ARGS, {"status": {"phase": str(number)}}
            )

    with guard(burst=100) as watching:
        await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
    assert watching.statistics().writes == 4
    assert not watching.found
