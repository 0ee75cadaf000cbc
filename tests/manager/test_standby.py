"""A replica that waits for its election: it watches, catches up when it is elected, and then works at once."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from tests.manager.test_leader import elected, in_background, replica
from tests.manager.working import Working, config_map

pytestmark = pytest.mark.virtual_time


async def test_a_standby_watches_and_reconciles_nothing(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working = Working()
    async with replica(server, "one").running(), replica(server, "two", working).running() as second:
        await asyncio.sleep(100)
        assert second.cache.statistics().objects == 1
        assert second.statistics().controllers[0].queue.ready == 1
        assert working.started == []


async def test_a_cold_standby_watches_nothing_until_it_is_elected(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    async with replica(server, "one").running(), replica(server, "two", warm_up=False).running() as second:
        await asyncio.sleep(100)
        assert second.cache.statistics().objects == 0


async def test_a_new_leader_works_on_what_the_leader_before_wrote_last(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    seen: list[str] = []
    second = replica(server, "two", working := Working())

    async def note(request: object) -> None:
        found = await second.client.get("v1/ConfigMap", "a", "default")
        seen.append(str((found.to_dict().get("data") or {}).get("by")))

    working._work = note
    async with in_background(first := replica(server, "one")) as running:
        await elected(first)
        async with second.running():
            await asyncio.sleep(50)
            server.faults.add(stall=True, verb="watch", user_agent="two")
            server.faults.add(cut_watches=True, verb="create")
            await client.create(config_map("b"))
            await asyncio.sleep(5)  # the watch of the standby was opened again, and hears nothing
            await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"by": "one"}})
            first.stop()
            await running
            await elected(second)
            await asyncio.sleep(1)
    assert seen[0] == "one"


async def test_a_standby_that_cannot_watch_says_so_before_it_is_needed(server: APIServer) -> None:
    async with replica(server, "one").running():
        second = replica(server, "two")
        second.add_controller(Working(), resource="example.com/v1/Nothing", sync_timeout=5)
        with pytest.raises(Exception, match=r"example\.com/v1/Nothing could not be listed"):
            await second.run()
