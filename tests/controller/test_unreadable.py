"""Objects that cannot be decoded: nested 2,000 deep, or with text that is not Unicode. All others are reconciled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler import Client, Manager, Outcome, Reconciler, Request, Watch
from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind
from reconciler.objects import InvalidObject
from reconciler.testing.control_plane import ControlPlane
from tests import real_server
from tests.cache.test_on_both_servers import until
from tests.definitions import definition, version

CRATE = "unreadable.reconciler.dev/v1/Crate"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
CRD = definition("unreadable.reconciler.dev", "Crate", version("v1", ANYTHING))
GVK = GroupVersionKind.parse(CRATE)
BROKEN = b'"\\ud800"'
# More levels than the decoder takes: about 1,000 in Python 3.11, and 10,000 since 3.12.
DEEP = b'{"a":' * 12_000 + b"1" + b"}" * 12_000
DEEP_ON_A_SERVER = b'{"a":' * 2000 + b"1" + b"}" * 2000
"""kube-apiserver refuses more than 10,000 levels."""


def crate(name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "unreadable.reconciler.dev/v1", "kind": "Crate", "metadata": metadata, **more}


class Breaking:
    """A transport that returns an undecodable document for each object with the text MARK."""

    def __init__(self, server: APIServer, value: bytes) -> None:
        self.server = server
        self.value = value

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self.server.send(request)
        if response.chunks is None:
            return HTTPResponse(response.status, response.headers, self._broken(response.body))
        return HTTPResponse(
            response.status, response.headers, chunks=self._chunks(response.chunks), on_close=response.close
        )

    def _broken(self, body: bytes) -> bytes:
        return body.replace(b'"MARK"', self.value)

    async def _chunks(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield self._broken(chunk)


class Opening(Reconciler):
    """A reconciler that records what could be read of each crate."""

    def __init__(self) -> None:
        self.read: dict[str, Any] = {}

    async def reconcile(self, request: Request, /) -> Outcome:
        try:
            self.read[request.name] = (await self.client.get(CRATE, request.name, request.namespace)).to_dict()
        except (InvalidObject, RecursionError) as error:
            self.read[request.name] = str(error)
        return None


@pytest.mark.virtual_time
@pytest.mark.parametrize("value", [DEEP, BROKEN, b"1e999", b'"\xff"', b"9" * 5000], ids=lambda value: value[:6])
@pytest.mark.parametrize("pages", [False, True], ids=["streamed", "pages"])
async def test_every_other_object_is_reconciled(
    apiserver: APIServer, client: Client, value: bytes, *, pages: bool
) -> None:
    await apiserver.apply(CRD)
    for name in ("a", "z"):
        await client.create(crate(name))
    await client.create(crate("broken", content="MARK"))
    manager = Manager(Client(Breaking(apiserver, value)))
    manager.cache.list_in_pages = pages
    opening, others = Opening(), Opening()
    manager.add_controller(opening, resource=CRATE)
    named = Watch(CRATE, mapper=lambda found: [Request(found.name, "default")])
    manager.add_controller(others, resource="v1/ConfigMap", watches=[named])
    async with manager.running():
        await asyncio.sleep(1)
        await client.create(crate("later"))
        await client.create(crate("broken-later", content="MARK"))
        await client.create(crate("last"))
        await asyncio.sleep(1)
        broken = {name for name, read in opening.read.items() if isinstance(read, str)}
        assert broken == {"broken", "broken-later"}
        assert opening.read.keys() == {"a", "z", "broken", "later", "broken-later", "last"}
        problem = "{} cannot be decoded|recursion depth exceeded" if value == DEEP else "{} cannot be decoded"
        assert all(re.search(problem.format(f"default/{name}"), opening.read[name]) for name in broken)
        await client.patch(CRATE, "broken", "default", patch={"content": {}})
        await client.delete(CRATE, "broken-later", "default")
        await asyncio.sleep(1)
        assert opening.read["broken"]["content"] == {}
        assert {cached.name for cached in manager.cache.find(GVK).store} == {"a", "z", "broken", "later", "last"}


@pytest.mark.virtual_time
async def test_it_is_counted_logged_and_reported_by_an_event(
    apiserver: APIServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await apiserver.apply(CRD)
    await client.create(crate("broken", content="MARK"))
    manager = Manager(Client(Breaking(apiserver, BROKEN)))
    manager.add_controller(Opening(), resource=CRATE)
    async with manager.running():
        await asyncio.sleep(30)
        assert manager.statistics().cache.informers[0].store.unreadable == 1
        _, metrics = manager.metrics.render()
        assert b'reconciler_cache_unreadable_objects{kind="unreadable.reconciler.dev/v1/Crate"} 1.0' in metrics
    (event,) = [each.to_dict() for each in await client.list("v1/Event", "default")]
    assert (event["type"], event["reason"], event["involvedObject"]["name"]) == ("Warning", "Unreadable", "broken")
    assert [record.levelname for record in caplog.records if "default/broken" in record.getMessage()] == ["WARNING"]


@pytest.mark.control_plane
async def test_real(control_plane: ControlPlane) -> None:
    async with control_plane.client() as client:
        await real_server.install(client, control_plane, CRD)
        manager = Manager(client)
        opening = Opening()
        manager.add_controller(opening, resource=CRATE)
        async with manager.running():
            await client.create(crate("a"))
            await until(lambda: "a" in opening.read)
            deep = await _create_raw(
                control_plane,
                b'{"apiVersion":"unreadable.reconciler.dev/v1","kind":"Crate",'
                b'"metadata":{"name":"deep","namespace":"default"},"content":' + DEEP_ON_A_SERVER + b"}",
            )
            assert deep == 201
            await client.create(crate("b"))
            await until(lambda: opening.read.keys() == {"a", "deep", "b"})
            assert isinstance(opening.read["deep"], str)
            await manager.cache.refresh(30)
            await client.delete(CRATE, "a", "default")
            store = manager.cache.find(GVK).store
            await until(lambda: {cached.name for cached in store} == {"b", "deep"})


async def _create_raw(plane: ControlPlane, body: bytes) -> int:
    async with plane.client() as client:
        path = "/apis/unreadable.reconciler.dev/v1/namespaces/default/crates"
        headers = {"content-type": "application/json"}
        request = HTTPRequest("POST", path, headers=headers, body=body)
        response = await client.session.connection.transport.send(request)
        return response.status
