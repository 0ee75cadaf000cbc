"""etcd is restored from a backup under a running manager: the cache keeps no deleted objects and loses no change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client, Manager, Request, Watch
from reconciler.apiserver import APIServer
from reconciler.errors import NotFound, NotSent, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import GroupVersionKind
from reconciler.testing.control_plane import ControlPlane
from reconciler.testing.control_plane.process import ControlPlaneFailed
from tests import real_server
from tests.cache.test_on_both_servers import until
from tests.e2e.test_server_restart import Lamp, Lamps, lit, shining

pytestmark = pytest.mark.timeout(240)


class Gate:
    """A transport that fails while it is closed, like a network that is down for a while, or only holds requests."""

    def __init__(self, transport: Transport, *, fails: bool) -> None:
        self.transport = transport
        self.fails = fails
        self.opened = asyncio.Event()
        self.opened.set()

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if self.fails and not self.opened.is_set():
            raise NotSent("the network is cut")
        await self.opened.wait()
        response = await self.transport.send(request)
        if self.fails or response.chunks is None:
            return response
        return HTTPResponse(200, response.headers, chunks=self._chunks(response.chunks), on_close=response.close)

    async def _chunks(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks of a watch that ends cleanly, as the last act of a server."""
        with contextlib.suppress(OutcomeUnknown):
            async for chunk in chunks:
                yield chunk


def config_map(name: str, value: str = "1") -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"value": value},
    }


async def restored(
    client: Client,
    snapshot: Callable[[], Awaitable[Any]],
    restore: Callable[[Any], Awaitable[object]],
    *,
    pages: bool,
    fails: bool,
) -> None:
    """Restore a server from a backup under a manager, while the manager cannot reach it."""
    gates: list[Gate] = []
    through = client.through(lambda sends: gates.append(Gate(sends, fails=fails)) or gates[0])
    manager = Manager(through)
    manager.cache.list_in_pages = pages
    lamps = Lamps()
    named = Watch("v1/ConfigMap", mapper=lambda found: [Request(found.name, "default")])
    manager.add_controller(lamps, workers=4, watches=[named])
    async with manager.running():
        await lit(client, "changed", "deleted", "still")
        await client.create(config_map("still"))
        backup = await snapshot()
        await client.patch(Lamp, "changed", "default", patch={"spec": {"bright": 7}})
        await shining(client, "changed", bright=7)
        await client.delete(Lamp, "deleted", "default")
        await client.patch("v1/ConfigMap", "still", "default", patch={"data": {"value": "2"}})
        await lit(client, "made")
        await until(lambda: len(manager.cache.find(Lamp.gvk).store) == 3)
        before = await client.list(Lamp, "default")
        gates[0].opened.clear()
        await restore(backup)
        for number in range(100):  # beyond the version that the manager has seen
            past = await client.apply(config_map("filler", str(number)))
        assert int(past.resource_version) > int(before.resource_version)
        gates[0].opened.set()
        store = manager.cache.find(Lamp.gvk).store
        maps = manager.cache.find(GroupVersionKind.parse("v1/ConfigMap")).store
        await until(lambda: {found.name for found in store} == {"changed", "deleted", "still"})
        await until(lambda: store.get(Request("changed", "default")).decode()["spec"]["bright"] == 1)
        await until(lambda: maps.get(Request("still", "default")).decode()["data"] == {"value": "1"})
        with pytest.raises(NotFound):
            await manager.client.get(Lamp, "made", "default")
        assert (await manager.client.get(Lamp, "changed", "default")).spec.bright == 1
        await client.patch(Lamp, "changed", "default", patch={"spec": {"bright": 9}})
        await shining(client, "changed", bright=9)


on_both = [
    pytest.mark.parametrize("bump", [None, 1_000_000], ids=["plain", "bumped"]),
    pytest.mark.parametrize("pages", [False, True], ids=["streamed", "pages"]),
    pytest.mark.parametrize("fails", [True, False], ids=["failing", "clean end"]),
]


@pytest.mark.control_plane
@on_both[0]
@on_both[1]
@on_both[2]
async def test_restored_backup_leads_to_a_new_list(
    tmp_path: Path, *, bump: int | None, pages: bool, fails: bool
) -> None:
    async with ControlPlane() as plane, plane.client() as client:
        await real_server.install(client, plane, Lamp)
        snapshot = partial(plane.snapshot, tmp_path / "backup.db")
        await restored(client, snapshot, partial(plane.restore, bump_revision=bump), pages=pages, fails=fails)


@pytest.mark.virtual_time
@on_both[0]
@on_both[1]
@on_both[2]
async def test_restored_snapshot_leads_to_a_new_list(*, bump: int | None, pages: bool, fails: bool) -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Lamp)

        async def snapshot() -> bytes:
            return server.snapshot()

        await restored(client, snapshot, partial(server.restore, bump_revision=bump), pages=pages, fails=fails)


@pytest.mark.control_plane
async def test_invalid_snapshot_stops_nothing(tmp_path: Path) -> None:
    async with ControlPlane() as plane, plane.client() as client:
        await client.create(config_map("a"))
        with pytest.raises(ControlPlaneFailed, match="etcdutl failed to restore"):
            await plane.restore(tmp_path / "nothing.db")
        assert (await client.get("v1/ConfigMap", "a", "default")).name == "a"
