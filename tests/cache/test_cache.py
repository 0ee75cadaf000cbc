"""Shared informers, their life cycle, and the faults of the embedded server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedObject, CacheEvent, CacheNotSynced, EventType
from reconciler.cache.informer import Informer
from reconciler.client import Client
from reconciler.errors import ReconcilerError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import Request
from reconciler.objects import Model, Resource
from reconciler.testing import virtual_time
from tests.depth import examples

pytestmark = pytest.mark.virtual_time

MAP = "v1/ConfigMap"


class WidgetSpec(Model):
    size: int = 1


class Widget(Resource[WidgetSpec], group="example.com", version="v1"):
    """A widget."""


def config_map(name: str, namespace: str = "default", value: str = "", **metadata: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": value}}


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        yield server


@pytest.fixture
def client(server: APIServer) -> Client:
    return Client(server)


@pytest.fixture
async def cache(client: Client) -> AsyncIterator[Cache]:
    async with Cache(client, rng=random.Random(0)) as cache:
        yield cache


class Replay:
    """A handler that rebuilds the state from its events, and rejects events that do not fit."""

    def __init__(self, informer: Informer) -> None:
        self.state: dict[Request, CachedObject] = {}
        self.informer = informer
        informer.add_handler(self)

    def __call__(self, event: CacheEvent) -> None:
        request = event.object.request
        if event.type is EventType.ADDED:
            assert request not in self.state, event
            assert event.new is not None
            self.state[request] = event.new
        elif event.type is EventType.DELETED:
            assert event.old is not None
            assert event.old.uid == self.state.pop(request).uid
        else:
            assert event.old is self.state[request], event
            assert event.new is not None
            assert event.new.uid == event.old.uid
            self.state[request] = event.new

    def check(self) -> None:
        assert self.informer.statistics().handler_errors == 0
        assert self.state == {cached.request: cached for cached in self.informer.store}


async def truth(client: Client, kind: str = MAP, labels: str | None = None) -> dict[Request, str]:
    found = await client.list(kind, label_selector=labels)
    return {Request(obj.name, obj.namespace): obj.resource_version or "" for obj in found}


def held(informer: Informer) -> dict[Request, str]:
    return {cached.request: str(cached.version) for cached in informer.store}


# identity


async def test_equal_scopes_share_an_informer(server: APIServer, cache: Cache) -> None:
    await server.apply(Widget)
    assert await cache.informer(Widget) is await cache.informer("example.com/v1/Widget")
    assert await cache.informer(Widget) is await cache.informer(Widget.gvk)
    assert await cache.informer(Widget) is await cache.informer(Widget.resource_type)
    assert await cache.informer(MAP, label_selector="a=b") is await cache.informer(MAP, label_selector={"a": "b"})
    assert await cache.informer(MAP, namespaces=["y", "x"]) is await cache.informer(MAP, namespaces=["x", "y", "x"])
    assert await cache.informer(MAP, label_selector="") is await cache.informer(MAP)


def _same(doc: dict[str, Any]) -> dict[str, Any]:
    return doc


@pytest.mark.parametrize(
    "option",
    [
        {"namespaces": ["x"]},
        {"label_selector": "a=b"},
        {"field_selector": "metadata.name=a"},
        {"managed_fields": True},
        {"transform": _same},
    ],
    ids=lambda option: next(iter(option)),
)
async def test_different_scopes_get_different_informers(cache: Cache, option: dict[str, Any]) -> None:
    plain, other = await cache.informer(MAP), await cache.informer(MAP, **option)
    assert plain is not other
    assert await cache.informer(MAP, **option) is other


async def test_a_metadata_only_request_is_served_by_an_informer_of_whole_objects_but_not_vice_versa(
    cache: Cache,
) -> None:
    alone = await cache.informer(MAP, metadata_only=True)
    whole = await cache.informer(MAP)
    assert alone is not whole
    assert await cache.informer("v1/Secret") is await cache.informer("v1/Secret", metadata_only=True)


async def test_concurrent_requests_share_one_watch(server: APIServer, cache: Cache) -> None:
    first, second = await asyncio.gather(cache.informer(MAP), cache.informer(MAP))
    await cache.wait_synced(5)
    assert first is second
    assert len(server.requests(verb="list", resource="configmaps")) == 1


async def test_default_namespaces_apply_only_to_namespaced_kinds(server: APIServer, client: Client) -> None:
    async with Cache(client, namespaces=["default", "kube-system"]) as cache:
        maps, nodes = await cache.informer(MAP), await cache.informer("v1/Namespace")
        everywhere = await cache.informer(MAP, namespaces=None)
        await client.create(config_map("a"))
        await client.create(config_map("b", "kube-public"))
        await cache.wait_synced(5)
        assert [obj.name for obj in maps.store] == ["a"]
        assert len(everywhere.store) == 2
        assert len(nodes.store) >= 4
        await asyncio.sleep(1)
        watched = sorted(str(asked.namespace) for asked in server.requests(verb="watch"))
        assert watched == ["None", "None", "default", "kube-system"]


@pytest.mark.parametrize("namespaces", [[], "prod", [""]])
async def test_an_empty_list_of_namespaces_is_an_error(client: Client, cache: Cache, namespaces: Any) -> None:
    with pytest.raises(ValueError, match="must be a sequence of names, or None for all"):
        Cache(client, namespaces=namespaces)
    with pytest.raises(ValueError, match="must be a sequence of names, or None for all"):
        await cache.informer(MAP, namespaces=namespaces)


# life cycle


async def test_an_informer_requested_after_the_start_starts_immediately(client: Client, cache: Cache) -> None:
    await client.create(config_map("a"))
    informer = await cache.informer(MAP)
    await informer.wait_synced(5)
    assert len(informer.store) == 1


async def test_no_request_is_sent_before_the_start(server: APIServer, client: Client) -> None:
    cache = Cache(client)
    await cache.informer(MAP)
    await asyncio.sleep(10)
    assert server.requests(verb={"watch", "list"}) == [
        asked for asked in server.requests(verb={"watch", "list"}) if not asked.resource
    ]
    with pytest.raises(CacheNotSynced, match=r"after 1 s \(the cache is not started\): v1/ConfigMap: no response yet"):
        await cache.wait_synced(1)
    await cache.start()
    await cache.start()
    await cache.wait_synced(5)
    assert len(server.requests(verb="list", resource="configmaps")) == 1
    await cache.stop()


async def test_a_stopped_cache_remains_readable_and_cannot_be_restarted(server: APIServer, client: Client) -> None:
    cache = Cache(client)
    informer = await cache.informer(MAP)
    await client.create(config_map("a"))
    async with cache:
        await cache.wait_synced(5)
    await client.create(config_map("b"))
    await asyncio.sleep(1000)
    assert [obj.name for obj in informer.store] == ["a"]
    assert len(server.requests(verb="watch")) == 1
    assert server.statistics().watches == 0
    with pytest.raises(ReconcilerError, match="the cache is stopped"):
        await cache.start()
    with pytest.raises(ReconcilerError, match="the cache is stopped"):
        await cache.informer("v1/Secret")


async def test_a_kind_installed_later_is_discovered(server: APIServer, client: Client, cache: Cache) -> None:
    by_name, by_class = await cache.informer("example.com/v1/Widget"), await cache.informer(Widget, label_selector="a")
    with pytest.raises(CacheNotSynced) as caught:
        await cache.wait_synced(20)
    assert "discover example.com/v1/Widget: 404 Not Found" in str(caught.value)
    assert "list widgets.example.com in all namespaces: 404" in str(caught.value)
    await server.apply(Widget)
    await client.create(
        Widget.from_dict({"metadata": {"name": "w", "namespace": "default", "labels": {"a": "b"}}, "spec": {}})
    )
    await cache.wait_synced(60)
    assert len(by_name.store) == len(by_class.store) == 1


async def test_a_permanent_refusal_is_reported_with_kind_verb_and_answer(server: APIServer, client: Client) -> None:
    server.faults.add(status=403, message="you may not", resource="configmaps", times=None)
    async with Cache(client, namespaces=["default"]) as cache:
        informer = await cache.informer(MAP)
        await cache.informer("v1/Secret")
        with pytest.raises(CacheNotSynced) as caught:
            await cache.wait_synced(10)
        assert str(caught.value) == (
            "the cache is not synced after 10 s: list configmaps in namespace default: 403 Forbidden: you may not"
        )
        assert informer.last_error is not None
        asked = [entry for entry in server.requests() if entry.resource == "configmaps"]
        assert sum((entry.time - asked[0].time).total_seconds() < 1 for entry in asked) <= 2


async def test_a_removed_informer_is_stopped_and_a_later_request_creates_a_new_one(
    server: APIServer, client: Client, cache: Cache
) -> None:
    await client.create(config_map("a"))
    informer = await cache.informer(MAP)
    heard: list[CacheEvent] = []
    informer.add_handler(heard.append)
    await cache.wait_synced(5)
    await cache.remove(informer)
    await cache.remove(informer)
    assert cache.informers == ()
    assert server.statistics().watches == 0
    await client.create(config_map("b"))
    await asyncio.sleep(5)
    assert [event.object.name for event in heard] == ["a"]
    again = await cache.informer(MAP)
    assert again is not informer
    await cache.wait_synced(5)
    assert len(again.store) == 2
    await cache.remove(informer)
    assert cache.informers == (again,)


async def test_statistics_are_totals(client: Client, cache: Cache) -> None:
    await client.create(config_map("a"))
    await cache.informer(MAP)
    await cache.informer("v1/Namespace")
    await cache.wait_synced(5)
    statistics = cache.statistics()
    assert [one.scope for one in statistics.informers] == ["v1/ConfigMap", "v1/Namespace"]
    assert statistics.objects == sum(one.store.objects for one in statistics.informers) >= 5
    assert statistics.bytes > 100


async def test_the_resync_period_of_the_cache_applies_to_its_informers(client: Client) -> None:
    await client.create(config_map("a"))
    async with Cache(client, resync=100) as cache:
        informer = await cache.informer(MAP)
        await cache.informer(MAP, resync=50)
        await asyncio.sleep(230)
        assert 4 <= informer.statistics().events - 1 <= 5


async def test_reads_after_a_refresh_are_not_older_than_it(server: APIServer, client: Client) -> None:
    async with Cache(Client(server, user_agent="the cache"), namespaces=["default", "kube-system"]) as cache:
        informer, other = await cache.informer(MAP), await cache.informer("v1/Namespace")
        replay = Replay(informer)
        await cache.wait_synced(5)
        server.faults.add(stall=True, verb="watch", user_agent="the cache", times=3)
        server.cut_watches()
        await asyncio.sleep(5)
        await client.create(config_map("a"))
        await client.create(config_map("b", "kube-system"))
        await asyncio.sleep(5)
        assert len(informer.store) == 0
        await cache.refresh(5)
        assert held(informer) == await truth(client)
        assert held(other) == await truth(client, "v1/Namespace")
        replay.check()
        server.faults.add(status=503, user_agent="the cache", times=None)
        with pytest.raises(CacheNotSynced, match=r"not refreshed after 3 s: list .*: 503 ServiceUnavailable"):
            await cache.refresh(3)


# faults

FAULTS: dict[str, Callable[[APIServer], object]] = {
    "refused": lambda server: server.faults.add(status=403, verb={"watch", "list"}, times=4),
    "broken": lambda server: server.faults.add(status=500, verb={"watch", "list"}, times=4),
    "shed": lambda server: server.faults.add(status=429, retry_after=7, verb={"watch", "list"}, times=3),
    "lost": lambda server: server.faults.add(lost=True, verb={"watch", "list"}, times=3),
    "expired": lambda server: server.faults.add(expired=True, verb={"watch", "list"}, times=3),
    "silent": lambda server: server.faults.add(stall=True, verb="watch", times=2),
    "unknown streams": lambda server: server.faults.add(status=422, verb="watch", times=1),
    "slow": lambda server: server.faults.add(latency=30, verb={"watch", "list"}, times=3),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("compacted", [False, True], ids=["resumable", "compacted"])
async def test_after_any_fault_the_store_equals_the_server(
    server: APIServer, client: Client, cache: Cache, fault: Callable[[APIServer], object], compacted: bool
) -> None:
    fault(server)
    await client.create(config_map("a"))
    await client.create(config_map("b"))
    informer = await cache.informer(MAP)
    replay = Replay(informer)
    await asyncio.sleep(700)
    assert informer.synced
    fault(server)
    server.cut_watches()
    await client.delete(MAP, "a", "default")
    await client.create(config_map("a", value="second"))
    await client.patch(MAP, "b", "default", patch={"data": {"key": "new"}})
    await client.create(config_map("c"))
    await client.delete(MAP, "c", "default")
    if compacted:
        server.compact()
    await asyncio.sleep(1500)
    assert held(informer) == await truth(client)
    assert informer.last_error is None
    replay.check()


async def test_a_deletion_in_a_compacted_gap_is_detected(server: APIServer, client: Client, cache: Cache) -> None:
    for name in "abc":
        await client.create(config_map(name))
    informer = await cache.informer(MAP)
    deleted: list[CacheEvent] = []
    informer.add_handler(lambda event: deleted.append(event) if event.type is EventType.DELETED else None)
    await cache.wait_synced(5)
    server.faults.add(lost=True, verb="watch", times=2)
    server.cut_watches()
    await client.delete(MAP, "b", "default")
    server.compact()
    await asyncio.sleep(60)
    assert [(event.object.name, event.final) for event in deleted] == [("b", False)]
    assert informer.statistics().reflectors.expired == 1


async def test_a_server_in_maintenance_costs_few_requests_and_no_list(
    server: APIServer, client: Client, cache: Cache
) -> None:
    await client.create(config_map("a"))
    informer = await cache.informer(MAP)
    await cache.wait_synced(5)
    server.log.clear()
    fault = server.faults.add(status=503, times=None)
    server.cut_watches()
    await asyncio.sleep(600)
    assert 15 <= len(server.requests()) <= 45
    fault.remove()
    await client.create(config_map("b"))
    await asyncio.sleep(60)
    assert held(informer) == await truth(client)
    assert informer.statistics().reflectors.lists == 1


async def test_an_object_that_leaves_the_selector_is_deleted_with_final_false(client: Client, cache: Cache) -> None:
    await client.create(config_map("a", labels={"app": "web"}))
    informer = await cache.informer(MAP, label_selector="app=web")
    events: list[CacheEvent] = []
    informer.add_handler(events.append)
    await cache.wait_synced(5)
    await client.patch(MAP, "a", "default", patch={"metadata": {"labels": {"app": "db"}}})
    await client.patch(MAP, "a", "default", patch={"metadata": {"labels": {"app": "web"}}})
    await asyncio.sleep(1)
    assert [(event.type.value, event.final) for event in events] == [
        ("ADDED", True),
        ("DELETED", False),
        ("ADDED", True),
    ]


async def test_a_metadata_only_informer_stores_no_data(client: Client, cache: Cache) -> None:
    await client.create(config_map("a", labels={"app": "web"}, value="secret"))
    informer = await cache.informer(MAP, metadata_only=True)
    await cache.wait_synced(5)
    await client.create(config_map("b", value="secret"))
    await asyncio.sleep(1)
    assert len(informer.store) == 2
    assert all(
        b"secret" not in obj.data and obj.decode().keys() == {"apiVersion", "kind", "metadata"}
        for obj in informer.store
    )
    found = informer.store.get(Request("a", "default"))
    assert found is not None
    assert found.labels == {"app": "web"}
    assert found.decode()["kind"] == "ConfigMap"


async def test_a_quiet_day_costs_a_watch_every_few_minutes_and_no_list(server: APIServer, cache: Cache) -> None:
    await cache.informer(MAP)
    await asyncio.sleep(86_400)
    first, *asked = (entry for entry in server.requests() if entry.resource == "configmaps")
    assert (first.verb, {entry.verb for entry in asked}) == ("list", {"watch"})
    assert 86_400 / 600 <= len(asked) <= 86_400 / 300
    assert cache.statistics().informers[0].reflectors.failures == 0


# random sequences

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("put", "put", "delete", "recreate", "sweep", "cut", "compact", "restart", "wait", "pause"),
                *("refuse", "expire", "shed", "lose", "break", "slow", "stall"),
            ]
        ),
        st.integers(0, 4),
    ),
    max_size=40,
)


class Gate:
    """A transport that can be paused: nothing is sent or read, as in a stopped process."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._open = asyncio.Event()
        self._open.set()

    def pause(self, seconds: float) -> None:
        self._open.clear()
        asyncio.get_running_loop().call_later(seconds, self._open.set)

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        await self._open.wait()
        response = await self._transport.send(request)
        if response.chunks is not None:
            response.chunks = self._held(response.chunks)
        return response

    async def _held(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            await self._open.wait()
            yield chunk


async def _step(server: APIServer, client: Client, rng: random.Random, step: Step) -> None:
    what, number = step
    name = f"n{number}"
    exists = Request(name, "default") in await truth(client)
    if what == "put" and exists:
        labels = {"app": rng.choice(["web", "db"])}
        await client.patch(MAP, name, "default", patch={"metadata": {"labels": labels}})
    elif what == "put":
        await client.create(config_map(name, labels={"app": "web"}))
    elif what in ("delete", "recreate") and exists:
        await client.delete(MAP, name, "default")
        if what == "recreate":
            await client.create(config_map(name))
    elif what == "sweep":
        await client.delete_all_of(MAP, "default", label_selector="app=web")
    elif what in ("cut", "compact"):
        {"cut": server.cut_watches, "compact": server.compact}[what]()
    elif what == "restart":
        await server.restart()
    elif what == "wait":
        await asyncio.sleep((0.0, 0.01, 0.5, 20.0, 700.0)[number])
    else:
        _fault(server, what, number)


def _fault(server: APIServer, what: str, number: int) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "refuse": {"status": (400, 403, 404, 422, 503)[number]},
        "expire": {"expired": True},
        "shed": {"status": 429, "retry_after": 3.0 * number},
        "lose": {"lost": True},
        "break": {"status": 500},
        "slow": {"latency": (0.01, 1.0, 5.0, 30.0, 100.0)[number]},
        "stall": {"stall": True},
    }
    if what in kinds:
        server.faults.add(verb=("watch", "list")[number % 2], user_agent="the cache", **kinds[what])


async def _settled(client: Client, replays: list[Replay]) -> None:
    await asyncio.sleep(5500)
    for replay in replays:
        assert replay.informer.synced
        assert held(replay.informer) == await truth(client, labels=replay.informer.scope.label_selector)
        replay.check()


async def _anything(steps: list[Step], later: list[Step] | None, seed: int) -> None:
    """Perform the steps; with `later`, lose all data, as without a backup of etcd, and perform those, too."""
    rng = random.Random(seed)
    async with APIServer(seed=seed, history=8, event_order="seeded") as server:
        client, gate = Client(server), Gate(server)
        if later is not None:
            # No client can distinguish versions that were used a second time.
            for number in range(200):
                await client.create(
                    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"s{number}", "namespace": "default"}}
                )
        async with Cache(Client(gate, user_agent="the cache"), rng=rng) as cache:
            scopes: list[dict[str, Any]] = [{}, {"label_selector": "app=web"}, {"namespaces": ["default"]}]
            replays = [Replay(await cache.informer(MAP, **scope)) for scope in scopes]
            for step in steps:
                await _step(server, client, rng, step)
                if step[0] == "pause":
                    gate.pause((0.01, 3.0, 60.0, 400.0, 4000.0)[step[1]])
                replays[0].check()
            if later is not None:
                await cache.wait_synced()
                await server.restart(wipe=True)
                for step in later:
                    await _step(server, client, rng, step)
                    replays[0].check()
            server.faults.clear()
            await _settled(client, replays)
            restarts = {replay.informer.statistics().reflectors.restarts for replay in replays}
            assert restarts == {int(later is not None)}


@settings(deadline=None, max_examples=examples(50))
@given(STEPS, st.integers(0, 5))
def test_after_any_writes_compactions_and_faults_store_and_replay_equal_the_server(
    steps: list[Step], seed: int
) -> None:
    with virtual_time():
        asyncio.run(_anything(steps, None, seed))


@settings(deadline=None, max_examples=examples(20))
@given(STEPS, STEPS, st.integers(0, 5))
def test_after_a_loss_of_all_data_store_and_replay_equal_the_server(
    steps: list[Step], later: list[Step], seed: int
) -> None:
    with virtual_time():
        asyncio.run(_anything(steps, later, seed))
