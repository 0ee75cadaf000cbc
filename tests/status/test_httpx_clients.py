"""The batcher over lightkube and kr8s, asynchronous and blocking, against the embedded API server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import kr8s
import kr8s.asyncio
import lightkube
import pytest
from kr8s._async_utils import as_sync_func
from kr8s.asyncio.objects import new_class
from lightkube.generic_resource import create_namespaced_resource

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import NotFound, NotSent, OutcomeUnknown
from reconciler.objects import ObjectMeta
from reconciler.status import StatusBatcher, StatusInvalid, StatusOutcomeUnknown
from reconciler.status.clients import from_httpx
from tests.status.test_clients import Database, DatabaseSpec

# This kr8s supports servers up to 1.35; the embedded one reports 1.36.
pytestmark = pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported:UserWarning")
KIND = "example.com/v1/Database"
CLIENTS = ("lightkube.AsyncClient", "lightkube.Client", "kr8s.asyncio", "kr8s")


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database)
        await client.create(Database(metadata=ObjectMeta(name="db", namespace="default"), spec=DatabaseSpec()))
        yield server


class Writer:
    """A client, and how a user writes a status over it."""

    def __init__(self, name: str, api: Any) -> None:
        self.name = name
        self.api = api
        self.blocking = name in ("lightkube.Client", "kr8s")

    async def write(self, *args: Any, record: Callable[[Any], object], **options: Any) -> Any:
        def block() -> Any:
            with StatusBatcher(self.api, *args, **options) as status:
                record(status)
            return status

        if self.blocking:
            return await asyncio.to_thread(block)
        async with StatusBatcher(self.api, *args, **options) as status:
            record(status)
        return status


@pytest.fixture(params=CLIENTS)
async def writer(request: pytest.FixtureRequest, server: APIServer, tmp_path: Path) -> AsyncIterator[Writer]:
    await server.listen()
    file = str(server.write_kubeconfig(tmp_path / "config"))
    config = lightkube.KubeConfig.from_file(file)
    match request.param:
        case "lightkube.AsyncClient":
            api: Any = lightkube.AsyncClient(config=config)
            yield Writer(request.param, api)
            await api.close()
        case "lightkube.Client":
            api = lightkube.Client(config=config)
            yield Writer(request.param, api)
            api.close()
        case "kr8s.asyncio":
            api = await kr8s.asyncio.api(kubeconfig=file)
            yield Writer(request.param, api)
            await api._session.aclose()
        case _:
            api = await asyncio.to_thread(kr8s.api, kubeconfig=file)
            yield Writer(request.param, api)
            await asyncio.to_thread(as_sync_func(api._session.aclose))


async def status_of(server: APIServer) -> dict[str, Any]:
    async with Client(server) as client:
        return (await client.get(KIND, "db", "default")).to_dict()["status"]


async def test_a_status_is_written_once(server: APIServer, writer: Writer) -> None:
    def record(status: Any) -> None:
        status.set(phase="Ready")
        status.increment("total")
        status.set_condition("Ready", True, reason="Provisioned")

    status = await writer.write(KIND, name="db", namespace="default", record=record)
    assert status.written
    found = await status_of(server)
    assert (found["phase"], found["total"], found["conditions"][0]["reason"]) == ("Ready", 1, "Provisioned")
    [request] = server.requests(subresource="status")
    assert (request.verb, request.name) == ("patch", "db")
    again = await writer.write(KIND, name="db", namespace="default", record=lambda s: s.set(phase="Ready"))
    assert not again.written
    assert len(server.requests(subresource="status")) == 1


@pytest.mark.parametrize("strategy", ["merge", "apply", "update"])
async def test_strategies(server: APIServer, writer: Writer, strategy: str) -> None:
    if strategy == "update":
        with pytest.raises(ValueError, match=r"needs a reconciler\.Client"):
            await writer.write(KIND, name="db", namespace="default", strategy=strategy, record=lambda _: None)
        return
    for phase in ("One", "Two"):
        await writer.write(
            KIND, name="db", namespace="default", strategy=strategy, record=lambda s, phase=phase: s.set(phase=phase)
        )
    assert (await status_of(server))["phase"] == "Two"


async def test_a_conflict_is_replayed(server: APIServer, writer: Writer) -> None:
    server.faults.add(subresource="status", status=409, times=1)
    await writer.write(KIND, name="db", namespace="default", record=lambda s: s.increment("total"))
    assert (await status_of(server))["total"] == 1
    assert len(server.requests(subresource="status")) == 2


async def test_objects_of_the_client_are_accepted(server: APIServer, writer: Writer) -> None:
    if writer.name.startswith("lightkube"):
        kind = create_namespaced_resource("example.com", "v1", "Database", "databases")
        found = writer.api.get(kind, "db", namespace="default") if not writer.blocking else None
        obj = await asyncio.to_thread(writer.api.get, kind, "db", namespace="default") if found is None else await found
    else:
        cls = new_class("Database", "example.com/v1", asyncio=not writer.blocking, namespaced=True)
        if writer.blocking:
            obj = await asyncio.to_thread(cls.get, "db", namespace="default", api=writer.api)
        else:
            obj = await cls.get("db", namespace="default", api=writer.api)
    await writer.write(obj, record=lambda s: s.set(phase="Seen"))
    assert (await status_of(server))["phase"] == "Seen"


async def test_errors_are_typed(server: APIServer, writer: Writer) -> None:
    with pytest.raises(StatusInvalid, match="total"):
        await writer.write(KIND, name="db", namespace="default", record=lambda s: s.set(total="many"))
    with pytest.raises(NotFound, match='"gone" not found'):
        await writer.write(KIND, name="gone", namespace="default", record=lambda s: s.set(phase="x"))
    server.faults.add(subresource="status", status=503, times=None)
    with pytest.raises(StatusOutcomeUnknown):
        await writer.write(
            KIND, name="db", namespace="default", flush_timeout=0.5, record=lambda s: s.set(phase="Late")
        )


async def test_a_lost_response_is_not_written_twice(server: APIServer, writer: Writer) -> None:
    server.faults.add(subresource="status", lost=True, times=1)
    await writer.write(KIND, name="db", namespace="default", record=lambda s: s.increment("total"))
    assert (await status_of(server))["total"] == 1


def test_what_an_error_means_for_the_request() -> None:
    for error in (httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("busy")):
        assert isinstance(from_httpx("GET /", error), NotSent)
    for error in (httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("broken"), kr8s.APITimeoutError("slow")):
        assert isinstance(from_httpx("GET /", error), OutcomeUnknown)
    assert from_httpx("GET /", KeyError("other")) is None


def test_neither_library_is_imported() -> None:
    code = "import sys, reconciler.status; print({'kr8s', 'lightkube', 'httpx'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
