"""Idle objects are compressed, and nobody can tell except by the memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient, CachedObject, CacheEvent, EventType, cold
from reconciler.cache import store as store_module
from reconciler.cache.decoding import WireReader, cached_object
from reconciler.cache.informer import Informer
from reconciler.cache.store import WritableStore
from reconciler.meta import Request
from reconciler.objects import AnyResource
from tests.cache import scripted

pytestmark = pytest.mark.virtual_time

COUNT = 300
MINUTES = 3 * 60


def config_map(number: int) -> dict[str, object]:
    rng = random.Random(number)
    text = " ".join(f"key-{index}={rng.randrange(1000)}" for index in range(1500))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"c-{number:04}", "namespace": f"n-{number % 3}", "labels": {"third": str(number % 3)}},
        "data": {"text": text},
    }


class World:
    def __init__(self, server: APIServer, cache: Cache, informer: Informer) -> None:
        self.server = server
        self.informer = informer
        self.live = Client(server)
        self.cached = CachedClient(self.live, cache)
        self.events: list[CacheEvent] = []
        informer.add_handler(self.events.append)

    @property
    def held(self) -> float:
        """The share of the documents' length that they take in memory."""
        store = self.informer.statistics().store
        return store.held / store.bytes


@pytest.fixture
async def listed() -> AsyncIterator[World]:
    """A cache right after its first list."""
    async with APIServer() as server:
        client = Client(server)
        for name in ("n-0", "n-1", "n-2"):
            await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for number in range(COUNT):
            await client.create(config_map(number))
        async with Cache(client) as cache:
            informer = await cache.informer("v1/ConfigMap")
            informer.store.add_index("data.text", lambda document: [document["data"]["text"][:8]])
            await informer.wait_synced()
            assert informer.statistics().store.bytes > 4 * 1024 * 1024
            yield World(server, cache, informer)


@pytest.fixture
async def world(listed: World) -> World:
    """The same when its objects are idle."""
    await asyncio.sleep(MINUTES)
    return listed


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a first list, only the documents are stored."""
    monkeypatch.setattr(store_module, "MOST_WHOLE", 0)


def content(cached: CachedObject) -> tuple[object, ...]:
    return (
        cached.request,
        cached.uid,
        cached.version,
        cached.labels,
        cached.creation_timestamp,
        cached.decode()["data"],
    )


async def test_idle_objects_take_little_memory_and_read_as_before(world: World) -> None:
    assert world.held < 0.5
    received = {event.object.request: content(event.object) for event in world.events}
    assert len(received) == COUNT
    assert {cached.request: content(cached) for cached in world.informer.store} == received
    assert len(await world.cached.list("v1/ConfigMap", "n-1")) == COUNT / 3
    assert len(await world.cached.list("v1/ConfigMap", label_selector="third=2")) == COUNT / 3
    text = str(config_map(7)["data"]["text"])[:8]  # type: ignore[index]
    found = world.informer.store.by_index("data.text", text)
    assert {cached.name for cached in found} >= {"c-0007"}
    assert world.held < 0.5  # reading everything once restores nothing for good


@pytest.mark.usefixtures("bare")
async def test_objects_of_a_first_list_read_as_they_were_delivered(listed: World) -> None:
    received = {event.object.request: content(event.object) for event in listed.events}
    assert len(received) == COUNT
    assert {cached.request: content(cached) for cached in listed.informer.store} == received
    assert len(await listed.cached.list("v1/ConfigMap", "n-1")) == COUNT / 3
    for key, was in received.items():
        first = listed.informer.store.get(key)
        assert first is not None
        assert content(first) == was
        assert listed.informer.store.get(key) is first
    assert listed.held == 1
    await asyncio.sleep(MINUTES)
    assert listed.held < 0.5
    assert {cached.request: content(cached) for cached in listed.informer.store} == received


@pytest.mark.usefixtures("bare")
async def test_changes_of_objects_of_a_first_list_are_delivered_with_both_versions(listed: World) -> None:
    listed.events.clear()
    await listed.live.patch("v1/ConfigMap", "c-0003", "n-0", patch={"data": {"text": "short"}})
    await asyncio.sleep(1)
    (updated,) = listed.events
    assert updated.old is not None
    assert updated.old.decode()["data"] == config_map(3)["data"]
    for number in range(COUNT):
        await listed.live.delete("v1/ConfigMap", f"c-{number:04}", f"n-{number % 3}")
    await asyncio.sleep(1)
    assert len(listed.events) == 1 + COUNT
    store = listed.informer.statistics().store
    assert (store.objects, store.bytes, store.held) == (0, 0, 0)


@pytest.mark.usefixtures("bare")
async def test_objects_of_a_first_list_are_decoded_once_however_they_are_read(listed: World) -> None:
    store, text = listed.informer.store, str(config_map(7)["data"]["text"])[:8]  # type: ignore[index]
    first = store.by_index("data.text", text)
    assert first
    assert all(one is again for one, again in zip(first, store.by_index("data.text", text), strict=True))
    key = Request("c-0002", "n-2")
    assert store.peek(key) is store.peek(key)


@pytest.mark.parametrize("seconds", [0, MINUTES])
async def test_documents_too_deep_for_the_stack_of_their_reader_do_not_hide_the_object(
    monkeypatch: pytest.MonkeyPatch, bare: None, seconds: int
) -> None:
    monkeypatch.setattr(store_module, "LEAST_HELD", 0)
    reader = WireReader(scripted.GVK)

    def read(levels: int, version: int) -> CachedObject | None:
        text = b'{"a":' * levels + b"1" + b"}" * levels
        return reader.read(msgspec.json.encode(scripted.document("deep", version))[:-1] + b',"spec":%b}' % text)

    def in_deeper_stack(frames: int, call: Callable[[], CachedObject | None]) -> CachedObject | None:
        return in_deeper_stack(frames - 1, call) if frames else call()

    deep = next(
        found for levels in range(1000, 0, -1) if (found := read(levels, 1)) is not None and found.problem is None
    )
    store = WritableStore(reader.restore)
    store.put(deep, bare=True)
    sweep = asyncio.create_task(store.compress_idle())
    await asyncio.sleep(seconds)
    sweep.cancel()
    found = in_deeper_stack(30, lambda: store.get(deep.request))
    assert found is not None
    assert (found.uid, found.version, found.data) == (deep.uid, deep.version, deep.data)


async def test_other_tasks_run_while_a_sweep_passes_over_objects_that_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "LEAST_HELD", 0)
    store, in_a_row = WritableStore(WireReader(scripted.GVK).restore), [0]
    compress_next = store._compress_next

    def counted() -> int:
        in_a_row[-1] += 1
        return compress_next()

    async def tick() -> None:
        while True:
            in_a_row.append(0)
            await asyncio.sleep(0.001)

    monkeypatch.setattr(store, "_compress_next", counted)
    objects = [scripted.cached(f"o-{number}", number) for number in range(5000)]
    for each in objects:
        store.put(each)
    tasks = [asyncio.create_task(store.compress_idle()), asyncio.create_task(tick())]
    await asyncio.sleep(120.005)
    for each in objects:
        store.discard(each.request)
    await asyncio.sleep(MINUTES)
    for task in tasks:
        task.cancel()
    assert sum(in_a_row) == len(objects)
    assert max(in_a_row) <= 2048


async def test_objects_in_use_stay_as_they_are_until_they_are_idle_again(world: World) -> None:
    for key in world.informer.store.requests():
        first = world.informer.store.get(key)
        assert world.informer.store.get(key) is first
    assert world.held == 1
    await asyncio.sleep(MINUTES)
    assert world.held < 0.5


async def test_changes_of_idle_objects_are_delivered_with_both_versions(world: World) -> None:
    world.events.clear()
    await world.live.patch("v1/ConfigMap", "c-0003", "n-0", patch={"data": {"text": "short"}})
    await world.live.delete("v1/ConfigMap", "c-0006", "n-0")
    await asyncio.sleep(1)
    updated, deleted = world.events
    assert updated.type is EventType.UPDATED
    assert updated.old is not None
    assert updated.old.decode()["data"] == config_map(3)["data"]
    assert updated.object.decode()["data"] == {"text": "short"}
    assert (deleted.type, deleted.object.name) == (EventType.DELETED, "c-0006")
    assert world.informer.store.get(Request("c-0006", "n-0")) is None
    assert len(world.informer.store) == COUNT - 1


async def test_a_list_of_everything_delivers_only_what_changed(world: World) -> None:
    world.events.clear()
    world.server.faults.add(verb="watch", status=410, times=1)
    world.server.cut_watches()
    await world.live.delete("v1/ConfigMap", "c-0009", "n-0")
    await world.informer.refresh()
    assert [(event.type, event.object.name) for event in world.events] == [(EventType.DELETED, "c-0009")]
    assert world.held < 0.5


async def test_a_new_handler_and_a_resync_deliver_every_idle_object(world: World) -> None:
    delivered: list[CacheEvent] = []
    registration = world.informer.add_handler(delivered.append, existing=False)
    await world.informer.deliver_existing(registration)
    assert len({event.object.request for event in delivered}) == COUNT
    delivered.clear()
    world.informer.resync_every(100)
    await asyncio.sleep(115)
    assert {event.type for event in delivered} == {EventType.RESYNC}
    assert len(delivered) == COUNT
    assert world.held < 0.5


async def test_a_list_keeps_only_what_differs_until_it_is_complete(world: World) -> None:
    store, (sink,) = world.informer.store, world.informer._sinks.values()
    world.events.clear()
    listing = await sink.begin_list(at_once=False)
    listed = [cached for cached in store if cached.name != "c-0006"]
    changed = cached_object(config_map(4) | {"data": {}, "metadata": listed[0].decode()["metadata"]})
    for cached in (changed, *listed[1:]):
        listing.add(cached)
    assert len(listing) == 1
    assert (world.events, world.held < 0.5) == ([], True)
    await listing.finish(sink.version or 0, restarted=False)
    assert [(event.type, event.object.name) for event in world.events] == [
        (EventType.UPDATED, listed[0].name),
        (EventType.DELETED, "c-0006"),
    ]


async def test_a_broken_list_changes_nothing(world: World) -> None:
    world.events.clear()
    (sink,) = world.informer._sinks.values()
    listing = await sink.begin_list(at_once=False)
    listing.add(cached_object(config_map(1)))
    assert (world.events, len(world.informer.store)) == ([], COUNT)


async def test_after_a_cut_few_idle_objects_are_restored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[bytes] = []
    store, unpack = world.informer.store, world.informer.store.unpack

    def counted(frame: bytes) -> tuple[bytes, type[AnyResource] | None]:
        unpacked.append(frame)
        return unpack(frame)

    monkeypatch.setattr(store, "unpack", counted)
    world.server.faults.add(verb="watch", status=503, times=1)
    world.server.cut_watches()
    await asyncio.sleep(30)
    statistics = world.informer.statistics().reflectors
    assert (statistics.lists, statistics.failures) == (1, 1)
    assert len(unpacked) < 10


async def test_a_large_store_is_compressed_while_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.cache.store.MOST_HELD", 500_000)
    monkeypatch.setattr("reconciler.cache.store._NEWEST", 100_000)
    async with APIServer() as server, Client(server) as client:
        for name in ("n-0", "n-1", "n-2"):
            await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for number in range(COUNT):
            await client.create(config_map(number))
        async with Cache(client) as cache:
            informer = await cache.informer("v1/ConfigMap")
            await informer.wait_synced()
            store = informer.statistics().store
            assert store.held < store.bytes / 2
            cached = CachedClient(client, cache)
            for number in range(COUNT):
                found = await cached.get("v1/ConfigMap", f"c-{number:04}", f"n-{number % 3}")
                assert found["data"] == config_map(number)["data"]
            assert informer.statistics().store.held < store.bytes / 2


async def test_other_tasks_run_between_the_events_of_a_new_handler_and_of_a_resync(world: World) -> None:
    in_a_row: list[int] = [0]

    async def tick() -> None:
        while True:
            in_a_row.append(0)
            await asyncio.sleep(0)

    def count(_event: CacheEvent) -> None:
        in_a_row[-1] += 1

    ticking = asyncio.create_task(tick())
    registration = world.informer.add_handler(count, existing=False)
    await world.informer.deliver_existing(registration)
    assert sum(in_a_row) == COUNT
    await world.informer._resync._repeat_all()
    ticking.cancel()
    assert sum(in_a_row) == 2 * COUNT
    assert max(in_a_row) <= 100


async def test_a_compression_that_was_interrupted_continues(world: World) -> None:
    store = WritableStore(WireReader(world.informer.gvk).restore)
    for cached in world.informer.store:
        store.put(cached)
    sweep = asyncio.create_task(store.compress_idle())
    await asyncio.sleep(120.05)
    sweep.cancel()
    assert store.bytes / 2 < store.held < store.bytes
    sweep = asyncio.create_task(store.compress_idle())
    await asyncio.sleep(MINUTES)
    sweep.cancel()
    assert store.held < store.bytes / 2


async def test_own_writes_to_idle_objects_are_visible_immediately(world: World) -> None:
    world.server.stall_watches()
    await world.cached.patch("v1/ConfigMap", "c-0012", "n-0", patch={"data": {"text": "mine"}})
    found = await world.cached.get("v1/ConfigMap", "c-0012", "n-0")
    assert found["data"] == {"text": "mine"}
    assert len(await world.cached.list("v1/ConfigMap", "n-0")) == COUNT / 3


def documents(word: str, count: int = 400) -> list[bytes]:
    rng = random.Random(word)
    words = [f"{word}-{rng.getrandbits(64):x}" for _ in range(40)]
    return [" ".join(rng.choices(words, k=120)).encode() for _ in range(count)]


def test_the_dictionary_is_renewed_when_the_documents_have_changed() -> None:
    compressor = cold.Compressor()
    frames: dict[bytes, bytes] = {}

    def pack(group: list[bytes]) -> int:
        size = 0
        for data in group:
            compressor.learn(lambda: group[: cold.SAMPLES])
            frame = compressor.pack(data, None)
            assert frame is not None
            frames[data] = frame
            size += len(frame)
        return size

    first = pack(documents("first", 1000))
    pack(documents("other", 1000))
    last = pack(documents("other", 1000))
    assert last < 1.2 * first
    assert all(compressor.unpack(frame) == (data, None) for data, frame in frames.items())


def test_one_large_object_does_not_spoil_the_dictionary() -> None:
    group, sizes = documents("any", 100), []
    for samples in (group[:8], [random.Random(1).randbytes(100_000), *group[:8]]):
        compressor = cold.Compressor()
        compressor.learn(samples.copy)
        sizes.append(sum(len(compressor.pack(data, None) or data) for data in group))
    assert sizes[1] < 1.1 * sizes[0]


def test_a_document_that_does_not_become_smaller_stays_as_it_is() -> None:
    compressor = cold.Compressor()
    data = random.Random(1).randbytes(3000)
    compressor.learn(lambda: documents("any", 8))
    assert compressor.pack(data, None) is None


def test_threads_may_read_at_the_same_time() -> None:
    compressor = cold.Compressor()
    frames: dict[bytes, bytes] = {}
    for data in documents("any"):
        compressor.learn(lambda: documents("any", 8))
        frames[data] = compressor.pack(data, None) or b""

    def read(_: int) -> bool:
        return all(compressor.unpack(frame)[0] == data for data, frame in frames.items())

    with ThreadPoolExecutor(4) as threads:  # without a lock zstd crashes the process
        assert all(threads.map(read, range(40)))
