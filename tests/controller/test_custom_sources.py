"""Sources: keys that are enqueued by something other than objects in the cluster."""

from __future__ import annotations

import asyncio
import logging

import pytest

from reconciler.controller import ChannelSource
from reconciler.controller.result import ControllerError
from reconciler.errors import ConfigurationError
from reconciler.meta import Request
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


async def test_items_of_a_queue_enqueue_their_key_with_the_reason_of_the_source(world: World) -> None:
    queue: asyncio.Queue[object] = asyncio.Queue()
    queue.put_nowait(Request("early", "ns"))  # before the start: it must not be lost
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, sources=[ChannelSource(queue, name="builds")])
    await quiet()
    late = await world.widget("late")
    await quiet()
    queue.put_nowait(late)
    await quiet()
    assert [(str(request), set(reasons)) for _, request, reasons in reconciler.runs] == [
        ("ns/early", {"source: builds"}),
        ("ns/late", {"event"}),
        ("ns/late", {"source: builds"}),
    ]


async def test_a_source_enqueues_an_object_whose_version_was_observed(world: World) -> None:
    queue: asyncio.Queue[Request] = asyncio.Queue()
    reconciler = WidgetReconciler()
    await world.start(reconciler, sources=[ChannelSource(queue)])
    await world.widget()
    await quiet()
    queue.put_nowait(Request("w", "ns"))
    await quiet()
    assert [set(reasons) for _, reasons in reconciler.runs] == [{"event"}, {"source: channel"}]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_mapper_returns_the_keys_of_an_item(world: World, kind: str) -> None:
    async def stream():
        for app in ("a", "b"):
            yield {"app": app}

    async def mapped(item) -> list[Request]:
        await asyncio.sleep(1)
        return [Request(item["app"], "ns"), Request("all", "ns")]

    mapper = mapped if kind == "async" else lambda item: [Request(item["app"], "ns"), Request("all", "ns")]
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, sources=[ChannelSource(stream(), mapper=mapper)])
    await quiet(5)
    assert set(reconciler.keys) == {"ns/a", "ns/b", "ns/all"}


async def test_a_mapper_that_fails_drops_its_item_and_no_other(world: World, caplog) -> None:
    queue: asyncio.Queue[object] = asyncio.Queue()
    for item in ("no key", Request("w"), Request("w", "ns")):
        queue.put_nowait(item)
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, sources=[ChannelSource(queue)])
    with caplog.at_level(logging.ERROR, "reconciler.controller"):
        await quiet()
    assert reconciler.keys == ["ns/w"]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "source 'channel' failed on no key",
        "source 'channel' failed on w",
    ]


async def test_a_function_is_a_source(world: World) -> None:
    async def ticks(enqueue) -> None:
        while True:
            enqueue(Request("w", "ns"))
            enqueue(Request("later", "ns"), after=5)
            await asyncio.sleep(10)

    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, sources=[ticks])
    await quiet(11)
    assert [(str(request), set(reasons)) for _, request, reasons in reconciler.runs] == [
        ("ns/w", {"source: ticks"}),
        ("ns/later", {"source: ticks"}),
        ("ns/w", {"source: ticks"}),
    ]


async def test_sources_run_before_the_workers_and_end_with_the_controller(world: World) -> None:
    ended = []

    class Beats:
        async def run(self, enqueue, /) -> None:
            try:
                while True:
                    enqueue(Request("w", "ns"))
                    await asyncio.sleep(1)
            finally:
                ended.append(True)

    reconciler = KeyReconciler()
    controller = world.controller(reconciler, resource=Widget, sources=[Beats()])
    await world.cache.start()
    await controller.warm_up()
    await quiet()
    assert controller.queue.reasons(Request("w", "ns")) == {"source: Beats"}
    assert reconciler.runs == []
    await controller.start()
    await quiet()
    assert reconciler.keys[:1] == ["ns/w"]
    await controller.stop()
    runs = len(reconciler.runs)
    await quiet(10)
    assert ended == [True]
    assert len(reconciler.runs) == runs


async def test_the_end_of_a_source_is_not_a_failure(world: World) -> None:
    async def once(enqueue) -> None:
        enqueue(Request("w", "ns"))

    reconciler = KeyReconciler()
    controller = await world.start(reconciler, resource=Widget, sources=[once])
    finished = asyncio.create_task(controller.finished())
    await quiet(10)
    assert reconciler.keys == ["ns/w"]
    assert not finished.done()
    await controller.stop()
    await finished


async def test_a_source_that_fails_ends_the_controller_with_its_error(world: World, caplog) -> None:
    async def breaks(enqueue) -> None:
        await asyncio.sleep(5)
        raise ConnectionError("the broker is gone")

    controller = world.controller(WidgetReconciler(), sources=[breaks])
    await world.cache.start()
    with caplog.at_level(logging.ERROR, "reconciler.controller"), pytest.raises(ConnectionError, match="broker"):
        async with asyncio.timeout(60):
            await controller.run()
    assert "source 'breaks' of widget failed" in caplog.text


async def test_a_source_that_enqueues_an_impossible_key_gets_an_error(world: World) -> None:
    async def wrong(enqueue) -> None:
        enqueue(Request("w"))

    controller = world.controller(WidgetReconciler(), sources=[wrong])
    await world.cache.start()
    with pytest.raises(ValueError, match=r"a source gave .* Widget is namespaced"):
        async with asyncio.timeout(60):
            await controller.run()


@pytest.mark.parametrize(
    "sources",
    [ChannelSource(asyncio.Queue()), "builds", 5, [asyncio.Queue()], [object()]],
    ids=lambda each: str(type(each)),
)
async def test_an_invalid_source_is_rejected(world: World, sources) -> None:
    with pytest.raises(ConfigurationError, match="sources"):
        world.controller(WidgetReconciler(), sources=sources)


def test_a_channel_without_a_stream_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="async iterable"):
        ChannelSource([Request("w", "ns")])  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError("no"), asyncio.CancelledError()])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_mapper_that_fails_drops_only_its_item(
    world: World, kind: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(item) -> list[Request]:
        if item == "bad":
            raise error
        return [Request(item, "ns")]

    async def mapped(item) -> list[Request]:
        return plain(item)

    queue: asyncio.Queue[str] = asyncio.Queue()
    reconciler = KeyReconciler()
    source = ChannelSource(queue, mapper=plain if kind == "plain" else mapped)
    await world.start(reconciler, resource=Widget, sources=[source])
    for item in ("bad", "good"):
        queue.put_nowait(item)
    await quiet()
    assert reconciler.keys == ["ns/good"]
    assert "source 'channel' failed on bad" in caplog.text


async def test_mapper_that_hangs_drops_only_its_item(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def mapper(item) -> list[Request]:
        await asyncio.sleep(1e6 if item == "bad" else 0)
        return [Request(item, "ns")]

    queue: asyncio.Queue[str] = asyncio.Queue()
    reconciler = KeyReconciler()
    source = ChannelSource(queue, mapper=mapper, mapper_timeout=5)
    await world.start(reconciler, resource=Widget, sources=[source])
    for item in ("bad", "good"):
        queue.put_nowait(item)
    await quiet(10)
    assert reconciler.times == [5]
    assert "it did not end within 5 s" in caplog.text


async def test_source_that_raises_a_cancellation_itself_ends_the_controller(world: World) -> None:
    async def breaks(enqueue) -> None:
        task = asyncio.ensure_future(asyncio.sleep(100))
        task.cancel()
        await task

    controller = world.controller(WidgetReconciler(), sources=[breaks])
    await world.cache.start()
    with pytest.raises(ControllerError, match="source 'breaks' was cancelled, but not by the controller"):
        async with asyncio.timeout(60):
            await controller.run()
