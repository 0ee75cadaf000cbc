"""Mappers that fail, hang or return something invalid: retried, limited, counted, logged, without delaying others."""

from __future__ import annotations

import asyncio
import functools
import logging

import pytest

from reconciler.clock import current_clock
from reconciler.controller import Predicate, Watch
from reconciler.controller.wake import mapper_queue as _mapping
from reconciler.errors import ConfigurationError
from reconciler.meta import Request
from reconciler.telemetry.registry import MetricsRegistry
from tests.controller.conftest import KeyReconciler, Widget, World, quiet
from tests.controller.test_watches import MAP, change, config_map

pytestmark = pytest.mark.virtual_time

W = Request("w", "ns")
CALLS = [0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5, 51.1, *[102.3 + 60 * n for n in range(10)]]
"""When a mapper that always fails is called first: after 0.1 s, then twice as long each time, up to 60 s."""

LONG = 7200


class Mapper:
    """A mapper that records its calls, and fails a given number of times."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[tuple[float, str]] = []

    def answer(self, obj) -> object:
        self.calls.append((current_clock().monotonic(), f"{obj.name} {obj['data']['key']}"))
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def times(self, obj: str) -> list[float]:
        times = [time for time, what in self.calls if what == obj]
        return [round(time - times[0], 3) for time in times]

    @property
    def plain(self):
        def mapper(obj):
            return self.answer(obj)

        return mapper

    @property
    def coroutine(self):
        async def mapper(obj):
            return self.answer(obj)

        return mapper

    @property
    def disguised(self):
        def mapper(obj):
            return self.coroutine(obj)

        return mapper


KINDS = pytest.mark.parametrize("kind", ["plain", "coroutine", "disguised"])


async def started(world: World, mapper, reconciler=None, **options):
    reconciler = reconciler or KeyReconciler()
    watches = [Watch(MAP, mapper=mapper, **options)]
    return reconciler, await world.start(reconciler, resource=Widget, watches=watches)


@KINDS
async def test_failing_mapper_is_retried_with_backoff_while_the_object_exists(
    world: World, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = Mapper(OSError("no network"))
    reconciler, controller = await started(world, getattr(mapper, kind))
    await world.foreign.create(config_map("m"))
    await quiet(LONG)
    assert mapper.times("m 1")[: len(CALLS)] == CALLS
    assert mapper.times("m 1")[-1] > LONG - 61
    statistics = controller.statistics()
    assert (statistics.mapper_errors, statistics.mapper_pending, statistics.unmapped) == (len(mapper.calls), 1, 0)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert all("ns/m and is retried with backoff: OSError: no network" in record.message for record in errors)
    assert errors[0].exc_info
    assert LONG / 700 < len(errors) <= LONG / 600 + 1, "every ten minutes"
    mapper.outcomes = [[W]]
    await quiet(60)
    assert reconciler.keys == ["ns/w"]
    assert controller.statistics().mapper_pending == 0


@KINDS
async def test_failing_mapper_that_recovers_enqueues_its_keys(world: World, kind: str) -> None:
    mapper = Mapper(OSError("no"), OSError("no"), OSError("no"), [W])
    reconciler, controller = await started(world, getattr(mapper, kind))
    await world.foreign.create(config_map("m"))
    await quiet(7200)
    assert mapper.times("m 1") == CALLS[:4]
    assert reconciler.keys == ["ns/w"]
    statistics = controller.statistics()
    assert (statistics.mapper_errors, statistics.mapper_pending, statistics.unmapped) == (3, 0, 0)


@KINDS
@pytest.mark.parametrize(
    ("predicate", "versions"), [(lambda _: True, 2), (lambda event: event.new is not None, 1)], ids=["", "filtered"]
)
async def test_deleted_object_is_given_up_after_ten_minutes(
    world: World, kind: str, predicate, versions: int, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = Mapper(OSError("no network"))
    _, controller = await started(world, getattr(mapper, kind), predicates=[Predicate(predicate)])
    await world.foreign.create(config_map("m"))
    await quiet(LONG)
    await world.foreign.delete(MAP, "m", "ns")
    before = len(mapper.calls)
    await quiet(500)
    assert controller.statistics().mapper_pending > 0
    await quiet(200)
    statistics = controller.statistics()
    assert (statistics.mapper_pending, statistics.unmapped) == (0, versions)
    assert "has failed on ns/m, which was deleted, for" in caplog.records[-1].message
    assert "not enqueued: OSError: no network" in caplog.records[-1].message
    called = len(mapper.calls)
    assert called > before
    await quiet(LONG)
    assert len(mapper.calls) == called


@KINDS
async def test_deletion_that_cannot_be_mapped_is_given_up(world: World, kind: str) -> None:
    mapper = Mapper([], OSError("no"))
    _, controller = await started(world, getattr(mapper, kind))
    await world.foreign.create(config_map("m"))
    await quiet()
    await world.foreign.delete(MAP, "m", "ns")
    await quiet(7200)
    assert len(mapper.calls) == 1 + len(CALLS)
    statistics = controller.statistics()
    assert (statistics.mapper_pending, statistics.unmapped) == (0, 1)


@KINDS
async def test_change_of_an_object_that_failed_for_long_is_mapped(world: World, kind: str) -> None:
    mapper = Mapper(OSError("no"))
    reconciler, controller = await started(world, getattr(mapper, kind))
    await world.foreign.create(config_map("m"))
    await quiet(LONG)
    mapper.outcomes = [[W]]
    await change(world, "m", "2")
    await quiet(60)
    assert set(reconciler.keys) == {"ns/w"}
    assert controller.statistics().mapper_pending == 0


async def test_error_of_an_old_version_does_not_block_the_new_one(world: World) -> None:
    async def mapper(obj):
        if obj["data"]["key"] == "1":
            raise ValueError("a version that cannot be mapped")
        return [Request(obj["data"]["key"], "ns")]

    reconciler, controller = await started(world, mapper)
    await world.foreign.create(config_map("m", data="1"))
    await quiet(5)
    await change(world, "m", "b")
    await change(world, "m", "c")
    await quiet(1)
    assert set(reconciler.keys) == {"ns/b", "ns/c"}
    await quiet(7200)
    statistics = controller.statistics()
    assert (statistics.mapper_pending, statistics.unmapped) == (1, 0)


async def test_hanging_object_does_not_block_others_and_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    async def mapper(obj):
        if obj.name.startswith("hangs"):
            try:
                await asyncio.sleep(1e6)
            finally:
                ended.append(obj.name)
        return [Request(obj.name, "ns")]

    reconciler, controller = await started(world, mapper)
    for number in range(9):
        await world.foreign.create(config_map(f"hangs{number}"))
    await quiet(1)
    await world.foreign.create(config_map("good"))
    await quiet(1)
    assert reconciler.keys == ["ns/good"]
    await quiet(40)
    assert set(ended) == {f"hangs{number}" for number in range(9)}
    assert "failed on ns/hangs0 and is retried with backoff: ControllerError: it did not end within 30 s" in caplog.text
    await quiet(7200)
    statistics = controller.statistics()
    assert (statistics.mapper_pending, statistics.unmapped) == (9, 0)


async def test_more_hanging_objects_than_calls_delay_the_others_by_the_timeout(world: World) -> None:
    async def mapper(obj):
        if obj.name != "good":
            await asyncio.sleep(1e6)
        return [Request(obj.name, "ns")]

    reconciler, _ = await started(world, mapper, mapper_timeout=5)
    for number in range(25):
        await world.foreign.create(config_map(f"m{number}"))
    await world.foreign.create(config_map("good"))
    await quiet(16)
    assert reconciler.keys == ["ns/good"]


async def test_mapper_that_hangs_does_not_block_the_start_of_the_workers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def mapper(obj):
        await asyncio.sleep(1e6)
        return []

    for number in range(100):
        await world.foreign.create(config_map(f"m{number}"))
    await world.widget()
    reconciler, _ = await started(world, mapper)
    assert "widget starts before its mappers have finished: 70 objects are not mapped after" in caplog.text
    await quiet(1)
    assert reconciler.times == [120]


async def test_mapper_that_refuses_to_end_blocks_only_its_own_call(world: World) -> None:
    async def mapper(obj):
        if obj.name == "stubborn":
            for _ in range(5):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    continue
        return [Request(obj.name, "ns")]

    reconciler, _ = await started(world, mapper)
    await world.foreign.create(config_map("stubborn"))
    await quiet(1)
    await world.foreign.create(config_map("good"))
    await quiet(60)
    assert reconciler.keys == ["ns/good"]


@KINDS
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "a mapper must return a list, such as [Request"),
        ("w", "a mapper must return a list, such as [Request"),
        (W, "a mapper must return a list, such as [Request"),
        ([{"name": "w"}], "not dict"),
        ([("w", "ns"), 5], "not tuple"),
        ([Request("w")], "is namespaced"),
    ],
)
async def test_invalid_return_value_is_an_error(
    world: World, kind: str, answer: object, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = Mapper(answer)
    reconciler, controller = await started(world, getattr(mapper, kind))
    await world.foreign.create(config_map("m"))
    await quiet(7200)
    assert message in caplog.text
    assert (reconciler.runs, controller.statistics().mapper_pending) == ([], 1)


@pytest.mark.parametrize("wrap", [lambda f: f, functools.partial])
async def test_generator_that_raises_midway_enqueues_nothing_and_is_retried(world: World, wrap) -> None:
    calls = []

    def mapper(obj):
        calls.append(obj.name)
        yield Request("a", "ns")
        if len(calls) < 3:
            raise OSError("no")
        yield W

    reconciler, controller = await started(world, wrap(mapper))
    await world.foreign.create(config_map("m"))
    await quiet(0.05)
    assert reconciler.keys == []
    await quiet()
    assert sorted(reconciler.keys) == ["ns/a", "ns/w"]
    assert (len(calls), controller.statistics().mapper_errors) == (3, 2)


async def test_thousands_of_keys_are_reconciled_after_fresh_changes(world: World) -> None:
    order = []

    async def body(reconciler, request):
        order.append(request.name)
        await asyncio.sleep(0.01)

    async def mapper(obj):
        return [Request(f"n{number}", "ns") for number in range(5000)]

    await started(world, mapper, KeyReconciler(body))
    await world.foreign.create(config_map("m"))
    await quiet(0.1)
    await world.widget("fresh")
    await quiet(100)
    assert order.index("fresh") < 20
    assert len(order) == 5001


@KINDS
async def test_cancellation_that_a_mapper_raises_itself_is_a_failure(world: World, kind: str) -> None:
    mapper = Mapper(asyncio.CancelledError(), [W])
    reconciler, controller = await started(world, getattr(mapper, kind))
    await world.foreign.create(config_map("m"))
    await quiet()
    await world.foreign.create(config_map("n"))
    await quiet()
    assert reconciler.keys == ["ns/w", "ns/w"]
    assert controller.statistics().mapper_errors == 1


async def test_mapper_that_cancels_its_own_task_is_retried(world: World) -> None:
    calls = []

    async def mapper(obj):
        calls.append(obj.name)
        if len(calls) == 1:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        return [W]

    reconciler, _ = await started(world, mapper)
    await world.foreign.create(config_map("m"))
    await quiet()
    assert (len(calls), reconciler.keys) == (2, ["ns/w"])


class Strange(BaseException):
    """A BaseException, like those of pytest."""


@KINDS
async def test_base_exception_ends_the_controller_and_is_raised(world: World, kind: str) -> None:
    _, controller = await started(world, getattr(Mapper(Strange("odd")), kind))
    await world.foreign.create(config_map("m"))
    with pytest.raises(Strange, match="odd"):
        await controller.finished()


async def test_event_passes_if_a_predicate_raises_a_cancellation(world: World) -> None:
    def broken(event) -> bool:
        raise asyncio.CancelledError

    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, predicates=[broken], watches=[Watch(MAP, predicates=[broken])])
    await world.widget()
    await quiet()
    await world.foreign.create(config_map("m"))
    await quiet()
    assert reconciler.keys == ["ns/w", "ns/m"]


async def test_stop_cancels_the_calls(world: World) -> None:
    ended = []

    async def mapper(obj):
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(1)
            ended.append(obj.name)

    _, controller = await started(world, mapper)
    await world.foreign.create(config_map("m"))
    await quiet(1)
    await controller.stop(grace=0)
    assert ended == ["m"]
    await controller.finished()


async def test_versions_of_all_objects_that_wait_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Versions in the cache are kept: they cost no memory, and each object is eventually mapped."""
    monkeypatch.setattr(_mapping, "MAX_SUPERSEDED", 10)
    release = asyncio.Event()
    mapped = []

    async def mapper(obj):
        await release.wait()
        mapped.append(f"{obj.name} {obj['data']['key']}")
        return []

    _, controller = await started(world, mapper, mapper_timeout=1000)
    for name in range(30):
        await world.foreign.create(config_map(f"m{name}"))
    for data in ("2", "3"):
        for name in range(30):
            await change(world, f"m{name}", data)
    await quiet(1)
    statistics = controller.statistics()
    assert statistics.mapper_pending == 40
    assert statistics.unmapped == 50
    assert "versions of objects were given up" in caplog.text
    release.set()
    await quiet(1)
    assert {f"m{name} 3" for name in range(30)} <= set(mapped)
    assert controller.statistics().mapper_pending == 0


async def test_deleted_objects_that_wait_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mapping, "MAX_SUPERSEDED", 10)
    mapper = Mapper(OSError("no"))
    _, controller = await started(world, mapper.coroutine)
    for name in range(30):
        await world.foreign.create(config_map(f"m{name}"))
        await world.foreign.delete(MAP, f"m{name}", "ns")
    await quiet(1)
    statistics = controller.statistics()
    assert (statistics.mapper_pending, statistics.unmapped) == (10, 50)
    await quiet(7200)
    statistics = controller.statistics()
    assert (statistics.mapper_pending, statistics.unmapped) == (0, 60)


async def test_counters_reach_the_metrics(world: World) -> None:
    registry = MetricsRegistry()
    mapper = Mapper(OSError("no"))
    controller = await world.start(
        KeyReconciler(),
        resource=Widget,
        watches=[Watch(MAP, mapper=mapper.coroutine)],
        metrics=registry.controller("widget"),
    )
    await world.foreign.create(config_map("m"))
    await quiet(1)
    await world.foreign.delete(MAP, "m", "ns")
    await quiet(7200)
    errors = controller.statistics().mapper_errors
    assert errors > 0
    for name, value in (("reconciler_mapper_errors_total", errors), ("reconciler_unmapped_total", 2)):
        assert registry.registry.get_sample_value(name, {"controller": "widget"}) == value


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5", None, True])
def test_timeout_must_be_a_number_of_seconds(seconds) -> None:
    match = "mapper_timeout: '5' is not" if seconds == "5" else "mapper_timeout must be seconds above 0"
    with pytest.raises(ConfigurationError, match=match):
        Watch(MAP, mapper_timeout=seconds)
