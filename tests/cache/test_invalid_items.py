"""Objects that do not fit their class or cannot be decoded: lists return the others and report these."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler import Client, Manager, Outcome, Reconciler, Request, Watch
from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient
from reconciler.client import ListResult
from reconciler.client.requests import InvalidItem
from reconciler.objects import InvalidObject, Model, Resource, Unstructured
from tests.controller.test_unreadable import BROKEN, CRD, Breaking, crate

pytestmark = pytest.mark.virtual_time

GARBLED = Request("garbled", "default")


class CrateContent(Model):
    weight: int = 0


class Crate(Resource[CrateContent], group="unreadable.reconciler.dev", version="v1"):
    """A crate; the server allows more than the class."""


async def filled(apiserver: APIServer, client: Client) -> None:
    await apiserver.apply(CRD)
    await client.create(crate("a", spec={"weight": 1}))
    await client.create(crate("heavy", spec={"weight": "very"}))
    await client.create(crate("garbled", content="MARK"))
    await client.create(crate("z", spec={"weight": 2}))


def summary(found: ListResult[Any]) -> tuple[list[str], list[tuple[str, str | None]]]:
    return [one.name for one in found], sorted((item.name, item.namespace) for item in found.invalid)


@pytest.fixture(params=["live", "pages", "cached", "idle", "cached live"])
async def reader(
    apiserver: APIServer, client: Client, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setattr("reconciler.cache.store.LEAST_HELD", 0)
    await filled(apiserver, client)
    idle = request.param == "idle"
    breaking = Client(Breaking(apiserver, b"1e999" if idle else BROKEN))  # a number that only a whole decode rejects
    async with Cache(breaking) as cache:
        await cache.informer(Crate)
        await cache.wait_synced(30)
        cached = CachedClient(breaking, cache)
        if idle:
            await asyncio.sleep(300)

        async def pages(kind: Any, namespace: str | None = None) -> ListResult[Any]:
            read = [page async for page in breaking.list_pages(kind, namespace, limit=1)]
            return ListResult(
                [one for page in read for one in page], "", [one for page in read for one in page.invalid]
            )

        readers = {"live": breaking.list, "pages": pages, "cached live": cached.live.list}
        yield readers.get(request.param, cached.list)


async def test_a_typed_list_reports_invalid_objects_and_returns_the_others(reader: Any) -> None:
    found = await reader(Crate, "default")
    assert summary(found) == (["a", "z"], [("garbled", "default"), ("heavy", "default")])
    heavy = next(item for item in found.invalid if item.name == "heavy")
    assert isinstance(heavy, InvalidItem)
    assert int(heavy.resource_version) > 0
    assert heavy.key == Request("heavy", "default")
    assert [path for path, _ in heavy.error.problems] == ["spec.weight"]
    assert "default/heavy" in str(heavy.error)


async def test_an_untyped_list_reports_objects_that_cannot_be_decoded(reader: Any) -> None:
    found = await reader("unreadable.reconciler.dev/v1/Crate", "default")
    assert summary(found) == (["a", "heavy", "z"], [("garbled", "default")])
    assert "default/garbled cannot be decoded" in str(found.invalid[0].error)


async def test_each_version_is_logged_once(
    apiserver: APIServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(apiserver, client)
    for _ in range(3):
        await client.list(Crate, "default")
        await client.list(Crate)
    await client.patch("unreadable.reconciler.dev/v1/Crate", "heavy", "default", patch={"spec": {"weight": "little"}})
    await client.list(Crate)
    told = [record.getMessage() for record in caplog.records if "leaves out" in record.getMessage()]
    assert len(told) == 2
    assert all("default/heavy" in text and "spec.weight" in text for text in told)
    assert not any("very" in text for text in told), "an error holds no values"


async def test_a_get_names_object_and_field(apiserver: APIServer, client: Client) -> None:
    await filled(apiserver, client)
    breaking = Client(Breaking(apiserver, BROKEN))
    async with Cache(breaking) as cache:
        await cache.informer(Crate)
        cached = CachedClient(breaking, cache)
        for reads in (breaking, cached, cached.live):
            with pytest.raises(InvalidObject, match=r"Crate default/heavy does not fit its model: spec\.weight: "):
                await reads.get(Crate, "heavy", "default")
            with pytest.raises(InvalidObject, match=r"garbled cannot be decoded"):
                await reads.get(Crate, "garbled", "default")
            with pytest.raises(InvalidObject, match=r"spec\.weight"):
                await reads.wait_for(Crate, "heavy", "default", until=lambda _: True, timeout=5)


async def test_a_read_from_the_server_does_not_mistake_an_invalid_object_for_a_deleted_one(
    apiserver: APIServer, client: Client
) -> None:
    await filled(apiserver, client)
    breaking = Client(Breaking(apiserver, BROKEN))
    async with Cache(breaking) as cache:
        informer = await cache.informer(Crate)
        await cache.wait_synced(30)
        cached = CachedClient(breaking, cache)
        informer.overlay.invalidate(GARBLED)
        informer.overlay.invalidate_all("default")
        assert summary(await cached.list(Crate)) == (["a", "z"], [("garbled", "default"), ("heavy", "default")])


@pytest.mark.parametrize("levels", [100, 700])
async def test_a_read_from_the_server_confirms_objects_of_any_depth(
    apiserver: APIServer, client: Client, levels: int
) -> None:
    await filled(apiserver, client)
    breaking = Client(Breaking(apiserver, b'{"a":' * levels + b"1" + b"}" * levels))
    async with Cache(breaking) as cache:
        informer = await cache.informer(Crate)
        await cache.wait_synced(30)
        cached = CachedClient(breaking, cache)
        for invalidate in (informer.overlay.invalidate_all, lambda _: informer.overlay.invalidate(GARBLED)):
            invalidate("default")
            assert summary(await cached.list(Crate)) == (["a", "garbled", "z"], [("heavy", "default")])


class Noting(Reconciler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def reconcile(self, request: Request, /) -> Outcome:
        self.seen.append(request.name)
        return None


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_mapper_gets_the_readable_parts(apiserver: APIServer, client: Client, *, is_async: bool) -> None:
    await filled(apiserver, client)
    types: dict[str, type] = {}

    def plain(found: Any) -> list[Request]:
        types[found.name] = type(found)
        return [Request(found.name, found.namespace)]

    async def waiting(found: Any) -> list[Request]:
        return plain(found)

    manager = Manager(Client(Breaking(apiserver, BROKEN)))
    noting = Noting()
    manager.add_controller(
        noting,
        resource="v1/ConfigMap",
        watches=[Watch(Crate, mapper=waiting if is_async else plain, predicates=[lambda event: event.object.decode()])],
    )
    async with manager.running():
        await asyncio.sleep(5)
        assert sorted(noting.seen) == ["a", "garbled", "heavy", "z"]
    assert types == {"a": Crate, "z": Crate, "heavy": Crate, "garbled": Unstructured}
