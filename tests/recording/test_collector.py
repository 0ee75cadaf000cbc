"""What is recorded of a reconcile: its reasons, reads, writes, effects, log lines, times, random numbers and end."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client, Manager, Outcome, Reconciler, Recording, Request, Result, TerminalError, effect
from reconciler.apiserver import APIServer
from reconciler.clock import current_clock
from reconciler.controller.reconcile.cycle import ReconcileRun
from reconciler.recording import Trace
from reconciler.recording.collector import Held, ReconcileTrace
from reconciler.recording.records import (
    EffectStep,
    ListStep,
    LogStep,
    ReadStep,
    ReconcileRecord,
    RequestStep,
)
from reconciler.testing import replay

pytestmark = pytest.mark.virtual_time

log = logging.getLogger("operator")


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


class Copies(Reconciler):
    """Copies a ConfigMap into another one."""

    drawn: tuple[object, ...] = ()

    @effect
    async def announce(self, name: str, size: int) -> list[str]:
        return [name] * size

    async def reconcile(self, request: Request) -> Outcome:
        found = await self.client.get("v1/ConfigMap", request.name, request.namespace)
        data = found.to_dict().get("data") or {}
        if "fail" in data:
            raise TerminalError("it must fail")
        await self.client.list("v1/ConfigMap", "default", label_selector={"copy": "yes"})
        log.warning("copying %s", request.name)
        self.drawn = (random.randrange(1000), uuid.uuid4(), secrets.token_hex(4), current_clock().now())
        await self.announce(request.name, 2)
        document = config_map(f"copy-of-{request.name}", **data)
        await self.client.apply(document)
        return Result(requeue_after=300)


@asynccontextmanager
async def recorded(reconciler: Reconciler, **options: Any) -> AsyncIterator[tuple[Client, Trace]]:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=(trace := Trace()))
        manager.add_controller(reconciler, resource="v1/ConfigMap", **options)
        async with manager.running():
            yield client, trace


async def settled(trace: Trace, name: str) -> Sequence[ReconcileRecord]:
    import asyncio

    await asyncio.sleep(10)
    return [each for each in trace.records if each.name == name]


def only_originals(event: Any) -> bool:
    return not event.object.name.startswith("copy")


async def test_a_reconcile_is_recorded_in_order() -> None:
    reconciler = Copies()
    async with recorded(reconciler, predicates=[only_originals]) as (client, trace):
        created = await client.create(config_map("a", key="value"))
        (record,) = await settled(trace, "a")
    read, listed, logged, announced, applied = record.steps
    assert isinstance(read, ReadStep)
    assert (read.kind, read.request, read.version) == (
        "v1/ConfigMap",
        Request("a", "default"),
        created.resource_version,
    )
    assert b'"key":"value"' in read.data
    assert isinstance(listed, ListStep)
    assert (listed.labels, listed.items) == ("copy=yes", [])
    assert isinstance(logged, LogStep)
    assert (logged.level, logged.message) == ("WARNING", "copying a")
    assert isinstance(announced, EffectStep)
    assert (announced.name, announced.key, announced.value) == ("announce", "a", b'["a","a"]')
    assert isinstance(applied, RequestStep)
    assert (applied.method, applied.path, applied.status) == (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/copy-of-a",
        201,
    )
    assert b'"value"' in applied.body
    assert b'"uid"' in applied.response
    assert (record.result, record.requeue_after, record.reasons) == ("requeue_after", 300, ("event",))
    assert [(each.name, each.type) for each in record.wake_ups] == [("a", "added")]


async def test_what_only_a_trace_refers_to_is_weighed() -> None:
    async with recorded(Copies(), predicates=[only_originals]) as (client, trace):
        await client.create(config_map("a", copied="x" * 10_000))
        await settled(trace, "a")
    (found,) = trace.traces
    assert 20_000 < found.size < 30_000  # the body and the response of the apply; the cache has what was read


class Slow(Reconciler):
    """Takes a second."""

    async def reconcile(self, request: Request) -> Outcome:
        await asyncio.sleep(1)
        return None


async def test_a_change_during_a_reconcile_is_recorded() -> None:
    async with recorded(Slow()) as (client, trace):
        await client.create(config_map("a"))
        await asyncio.sleep(0.5)
        await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"b": "c"}})
        records = await settled(trace, "a")
    assert [each.overtaken for each in records] == [True, False]


async def test_times_and_random_numbers_are_recorded() -> None:
    reconciler = Copies()
    async with recorded(reconciler, predicates=[only_originals]) as (client, trace):
        await client.create(config_map("a"))
        (record,) = await settled(trace, "a")
    _number, unique, token, now = reconciler.drawn
    assert now in record.times
    drawn = [each.hex() for each in record.draws if isinstance(each, bytes)]
    assert token in drawn
    assert any(uuid.UUID(hex=each, version=4) == unique for each in drawn if len(each) == 32)
    assert random.random == random._inst.random  # nothing is left behind


async def test_a_failure_is_recorded() -> None:
    async with recorded(Copies()) as (client, trace):
        await client.create(config_map("a", fail="yes"))
        (record,) = await settled(trace, "a")
    assert record.result == "error"
    assert record.failure is not None
    assert (record.failure.type, record.failure.message, record.failure.terminal) == (
        "TerminalError",
        "it must fail",
        True,
    )
    assert record.failure.traceback


async def test_a_missing_object_is_recorded_as_such() -> None:
    async with recorded(Copies()) as (client, trace):
        await client.create(config_map("a", fail="yes"))
        await settled(trace, "a")
        await client.delete("v1/ConfigMap", "a", "default")
        *_, record = await settled(trace, "a")
    read = record.steps[0]
    assert isinstance(read, ReadStep)
    assert (read.version, read.data) == (None, b"")


class Threaded(Reconciler):
    """A plain function, which runs in a thread."""

    def reconcile(self, request: Request) -> Outcome:
        self.wait(self.client.get("v1/ConfigMap", request.name, request.namespace))
        log.warning("in a thread")
        return None


async def test_a_reconcile_in_a_thread_is_recorded() -> None:
    async with recorded(Threaded()) as (client, trace):
        await client.create(config_map("a"))
        (record,) = await settled(trace, "a")
    assert [type(step) for step in record.steps] == [ReadStep, LogStep]


class Large(Reconciler):
    """Draws numbers of many bits, as traces of OpenTelemetry do."""

    @effect
    async def tell(self, name: str, *drawn: object) -> None:
        """Tell what was drawn."""

    async def reconcile(self, request: Request) -> Outcome:
        drawn = random.getrandbits(128), random.randrange(2**70), random.randbytes(3), random.randbytes(30)
        await self.tell(request.name, *map(repr, drawn))
        return None


async def test_large_random_numbers_are_recorded_and_drawn_again(tmp_path: Path) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=(recording := Recording(tmp_path / "r")))
        manager.add_controller(Large(), resource="v1/ConfigMap")
        async with manager.running():
            await client.create(config_map("a"))
            await asyncio.sleep(2)
    assert recording.statistics().problem is None
    replays = await asyncio.to_thread(lambda: list(replay(tmp_path / "r", Large)))
    assert [each.differences for each in replays] == [()]


class Hostile(Reconciler):
    """Passes to effects and logs what can be neither encoded nor formatted."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    @effect
    async def call(self, value: object) -> object:
        if value is None:
            raise self.Unprintable
        return value

    async def reconcile(self, request: Request) -> Outcome:
        loop: list[Any] = []
        loop.append(loop)
        for value in (self.Unprintable(), loop, b"\xff", "\ud800", 2**100, float("nan")):
            assert await self.call(value) is value
        with pytest.raises(self.Unprintable):
            await self.call(None)
        (handler,) = (each for each in logging.getLogger().handlers if "_RecordingHandler" in type(each).__name__)
        handler.handle(
            logging.makeLogRecord({"levelno": logging.WARNING, "msg": self.Unprintable()})
        )  # that of pytest would raise
        return Result(requeue_after=300)


async def test_a_value_that_cannot_be_encoded_changes_nothing_for_the_reconcile() -> None:
    async with recorded(Hostile()) as (client, trace):
        await client.create(config_map("a"))
        (record,) = await settled(trace, "a")
    assert (record.result, record.failure) == ("requeue_after", None)
    assert len(record.steps) == 8


class Outlived(Reconciler):
    """Leaves a call behind."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[str]] = []

    @effect
    async def login(self, user: str) -> str:
        await asyncio.sleep(20)
        return "swordfish"

    async def reconcile(self, request: Request) -> Outcome:
        self.tasks.append(asyncio.create_task(self.login("somebody")))
        await asyncio.sleep(1)
        return None


async def test_what_returns_after_the_end_of_a_reconcile_does_not_change_its_record() -> None:
    reconciler = Outlived()
    async with recorded(reconciler) as (client, trace):
        await client.create(config_map("a"))
        (record,) = await settled(trace, "a")
        before = repr(record)  # the thread has replaced the secrets in it
        assert await asyncio.gather(*reconciler.tasks) == ["swordfish"]
    assert "somebody" in before
    assert repr(record) == before


async def test_a_cancelled_reconcile_is_recorded_as_such() -> None:
    class Waits(Reconciler):
        async def reconcile(self, request: Request) -> Outcome:
            await asyncio.sleep(10**6)
            return None

    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=(trace := Trace()), grace_period=1)
        manager.add_controller(Waits(), resource="v1/ConfigMap")
        async with manager.running():
            await client.create(config_map("a"))
            await asyncio.sleep(1)
            assert [each.result for each in trace.records] == [""]
    assert [each.result for each in trace.records] == ["cancelled"]


class InterruptedInt(int):
    """A number whose addition lets other threads run between reading a sum and writing it."""

    def __radd__(self, other: int) -> int:
        time.sleep(0.0001)
        return int(other) + int(self)


def test_bytes_that_several_threads_record_are_all_counted() -> None:
    now, request, held = current_clock().now(), Request("a", "default"), Held()
    run = ReconcileRun("c", request, frozenset(), 0, 0)
    draft = ReconcileRecord("1", "c", "v1/ConfigMap", request.name, request.namespace, now, (), 0, 0)
    traces = [ReconcileTrace(run, draft, (), held=held) for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: traces[number % 4].grow(InterruptedInt(1)), range(400)))
    assert held.added == 400
    assert [trace.size for trace in traces] == [100] * 4
