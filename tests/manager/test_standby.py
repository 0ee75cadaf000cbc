"""A standby: it watches, catches up when it is elected, and then reconciles immediately."""

from __future__ import annotations

import asyncio
import random

import pytest

from reconciler import Manager, Request, Watch
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.http import HTTPRequest, HTTPResponse
from tests.manager.test_leader import elected, election, in_background, replica
from tests.manager.working import RecordingReconciler, config_map

pytestmark = pytest.mark.virtual_time


async def test_standby_watches_but_does_not_reconcile(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler()
    async with replica(server, "one").running(), replica(server, "two", working).running() as second:
        await asyncio.sleep(100)
        assert second.cache.statistics().objects == 1
        assert second.statistics().controllers[0].queue.ready == 1
        assert working.started == []


async def test_cold_standby_watches_nothing_before_it_is_elected(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    async with replica(server, "one").running(), replica(server, "two", times={"warm_up": False}).running() as second:
        await asyncio.sleep(100)
        assert second.cache.statistics().objects == 0


async def test_new_leader_sees_the_last_write_of_the_previous_leader(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    seen: list[str] = []
    second = replica(server, "two", working := RecordingReconciler())

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
            await asyncio.sleep(5)  # the standby has opened its watch again and receives nothing
            await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"by": "one"}})
            first.stop()
            await running
            await elected(second)
            await asyncio.sleep(1)
    assert seen[0] == "one"


class SlowLists:
    """A transport that delays the responses to lists of ConfigMaps in a namespace after the server has read them."""

    def __init__(self, server: APIServer, namespace: str) -> None:
        self.server = server
        self.namespace = namespace
        self.held: asyncio.Event | None = None

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self.server.send(request)
        is_list = request.path.endswith("/configmaps") and ("watch", "true") not in request.query
        if self.held is not None and is_list and self.namespace in request.path:
            held, self.held = self.held, None
            await held.wait()
        return response


@pytest.mark.parametrize("namespaces", [None, ["default"], ["default", "other"]])
@pytest.mark.parametrize("role", ["primary", "watched"])
@pytest.mark.parametrize("failures", [0, 3])
async def test_list_read_before_the_election_is_repeated(
    server: APIServer, client: Client, role: str, namespaces: list[str] | None, failures: int
) -> None:
    for namespace in ("default", "other"):
        await client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await client.create(config_map("a"))
    slow = SlowLists(server, "/default/" if namespaces else "/")
    seen: list[str] = []

    async def note(request: object) -> None:
        found = await second.client.get("v1/ConfigMap", "a", "default")
        seen.append(str((found.to_dict().get("data") or {}).get("by")))

    second = Manager(
        Client(slow, rng=random.Random(2), user_agent="two"),
        leader_election=election("two"),
        namespaces=namespaces,
    )
    second.cache.list_in_pages = True
    if role == "primary":
        second.add_controller(
            RecordingReconciler(note), resource="v1/ConfigMap", predicates=[lambda event: event.object.name == "a"]
        )
    else:
        await client.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "default"}})
        named = Watch("v1/ConfigMap", mapper=lambda found: [Request("a", "default")])
        second.add_controller(RecordingReconciler(note), resource="v1/Secret", watches=[named])
    async with in_background(first := replica(server, "one")) as running:
        await elected(first)
        held = slow.held = asyncio.Event()
        async with second.running():
            await asyncio.sleep(50)
            server.faults.add(stall=True, verb="watch", user_agent="two", times=None, resource="configmaps")
            await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"by": "one"}})
            first.stop()
            await running
            server.faults.add(status=500, verb="list", user_agent="two", times=failures, resource="configmaps")
            await elected(second)
            held.set()
            await asyncio.sleep(60)
    assert seen
    assert set(seen) == {"one"}


async def test_catch_up_covers_every_kind_that_a_controller_reads(server: APIServer, client: Client) -> None:
    kinds = ["v1/ConfigMap", "v1/Secret", "v1/Service"]
    for kind in kinds:
        await client.create(of_kind(kind))
    seen: list[list[str]] = []

    async def note(request: object) -> None:
        found = [(await second.client.get(kind, "a", "default")).to_dict()["metadata"] for kind in kinds]
        seen.append([metadata.get("labels", {}).get("by", "") for metadata in found])

    second = Manager(Client(server, rng=random.Random(2), user_agent="two"), leader_election=election("two"))
    second.cache.list_in_pages = True
    named = [Watch(kind, mapper=lambda found: []) for kind in kinds[1:]]
    second.add_controller(RecordingReconciler(note), resource=kinds[0], watches=named)
    async with in_background(first := replica(server, "one")) as running:
        await elected(first)
        async with second.running():
            await asyncio.sleep(50)
            server.faults.add(stall=True, verb="watch", user_agent="two", times=None)
            server.cut_watches()
            await asyncio.sleep(5)
            for kind in kinds:
                await client.patch(kind, "a", "default", patch={"metadata": {"labels": {"by": "one"}}})
            first.stop()
            await running
            await elected(second)
            await asyncio.sleep(5)
    assert seen[0] == ["one", "one", "one"]


def of_kind(kind: str) -> dict[str, object]:
    more = {"spec": {"ports": [{"port": 80}]}} if kind.endswith("Service") else {}
    name = kind.partition("/")[2]
    return {"apiVersion": "v1", "kind": name, "metadata": {"name": "a", "namespace": "default"}, **more}


async def test_kind_that_is_not_served_does_not_block_the_election(server: APIServer, client: Client) -> None:
    second = replica(server, "two", working := RecordingReconciler())
    await client.create(config_map("a"))
    async with in_background(first := replica(server, "one")) as running:
        await elected(first)
        async with second.running():
            await second.cache.informer("example.com/v1/Nothing")
            await asyncio.sleep(50)
            first.stop()
            await running
            await elected(second)
            await asyncio.sleep(200)
            assert working.ended == ["a"]


async def test_standby_that_cannot_watch_fails_before_it_is_elected(server: APIServer) -> None:
    async with replica(server, "one").running():
        second = replica(server, "two")
        second.add_controller(RecordingReconciler(), resource="example.com/v1/Nothing", sync_timeout=5)
        with pytest.raises(Exception, match=r"example\.com/v1/Nothing could not be listed"):
            await second.run()
