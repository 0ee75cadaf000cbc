# ruff: noqa: PT012 - the block under test is what raises, at its end
"""Stalled requests: each has a share of the flush's time, so that its outcome can be found out; pauses do not count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes_asyncio
import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import SystemClock
from reconciler.controller import ResourceReconciler
from reconciler.manager import Manager
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.status import StatusBatcher, StatusConflict, StatusOutcomeUnknown
from reconciler.status.drivers import RunningTimeout
from tests.status.scripted import BlockingWriter, ScriptedServer, Writer, lost

KIND = "example.com/v1/Database"


class Spec(Model):
    size: int = 1


class Status(ConditionedStatus):
    phase: str | None = None
    total: int = 0
    log: list[str] = []


class Database(Resource[Spec, Status], group="example.com", version="v1"):
    """A database."""


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        await server.apply(Database)
        yield server


async def created(server: APIServer) -> dict[str, Any]:
    db = Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=Spec())
    return (await Client(server).create(db)).to_dict()


async def total(server: APIServer) -> int:
    return (await Client(server).get(Database, "db1", "default")).status.total


def stall(server: APIServer, *, applied: bool, times: int = 1) -> None:
    """Leave the next writes of a status without a response."""
    server.faults.add(stall=True, after_commit=applied, times=times, verb="patch", subresource="status")
    server.faults.add(stall=True, after_commit=applied, times=times, verb="update", subresource="status")


@pytest.mark.virtual_time
@pytest.mark.parametrize("strategy", ["merge", "update", "apply"])
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("stalled_reads", [0, 1])
@pytest.mark.parametrize("flush_timeout", [10.0, 2.0, 0.5])
async def test_a_stalled_write_is_read_back_and_counted_once(server, strategy, applied, stalled_reads, flush_timeout):
    obj = await created(server)
    stall(server, applied=applied)
    if stalled_reads:
        server.faults.add(stall=True, times=stalled_reads, verb="get", name="db1")
    async with StatusBatcher(Client(server), obj, strategy=strategy, flush_timeout=flush_timeout) as status:
        status.increment("total")
    assert status.written is True
    assert await total(server) == 1
    assert status.statistics().unknown == 1


@pytest.mark.virtual_time
async def test_a_second_send_that_stalls_as_well_is_read_back(server):
    obj = await created(server)
    stall(server, applied=False, times=2)
    async with StatusBatcher(Client(server), obj) as status:
        status.increment("total")
    assert (await total(server), status.statistics().attempts) == (1, 3)


@pytest.mark.virtual_time
async def test_a_write_that_lands_after_its_share_of_the_time_counts_once(server):
    """The same bytes are sent again in the meantime; one of the two is a conflict."""
    obj = await created(server)
    server.faults.add(latency=7.5, verb="patch", subresource="status")
    async with StatusBatcher(Client(server), obj) as status:
        status.increment("total")
    await asyncio.sleep(10)
    assert await total(server) == 1


@pytest.mark.virtual_time
async def test_a_checkpoint_that_stalls_is_read_back(server):
    obj = await created(server)
    stall(server, applied=True)
    async with StatusBatcher(Client(server), obj) as status:
        status.increment("total")
        await status.flush()
        status.increment("total")
    assert await total(server) == 2


@pytest.mark.virtual_time
async def test_a_stalled_checkpoint_that_another_writer_overtook_is_a_conflict(server):
    obj = await created(server)
    stall(server, applied=False)
    async with StatusBatcher(Client(server), obj) as status:
        status.set(phase="Ready")
        task = asyncio.ensure_future(status.flush())
        await asyncio.sleep(1)
        await Client(server).patch(Database, "db1", "default", patch={"metadata": {"labels": {"a": "b"}}})
        with pytest.raises((StatusConflict, StatusOutcomeUnknown)):
            await task


@pytest.mark.virtual_time
async def test_a_cancelled_flush_finds_out_whether_its_write_was_applied(server):
    obj = await created(server)
    stall(server, applied=True)

    async def work() -> None:
        async with StatusBatcher(Client(server), obj) as status:
            status.increment("total")
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert not getattr(caught.value, "__notes__", [])
    assert await total(server) == 1


@pytest.mark.virtual_time
async def test_an_unknown_outcome_is_raised_and_idempotent_mutations_are_written_later(server):
    obj = await created(server)
    stall(server, applied=False, times=9)
    with pytest.raises(StatusOutcomeUnknown) as caught:
        async with StatusBatcher(Client(server), obj) as status:
            status.increment("total")
            status.set(phase="Ready")
    assert [mutation.verb for mutation in caught.value.unsaved] == ["increment", "set"]


class Counting(ResourceReconciler[Database]):
    def __init__(self) -> None:
        self.reconciles = 0

    async def reconcile_object(self, db: Database, status: StatusBatcher[Status]) -> None:
        self.reconciles += 1
        if self.reconciles <= 2:
            status.increment("total")
            status.append("log", f"entry {self.reconciles}")


@pytest.mark.virtual_time
@pytest.mark.parametrize("applied", [True, False])
async def test_a_controller_loses_no_increment_to_a_stalled_write(server, applied):
    counting = Counting()
    async with Client(server) as client:
        manager = Manager(client)
        manager.add_controller(counting)
        async with manager.running():
            stall(server, applied=applied)
            await created(server)
            await client.wait_for(Database, "db1", "default", until=lambda db: db.status.total == 1, timeout=60)
            await client.patch(Database, "db1", "default", patch={"spec": {"size": 2}})
            await client.wait_for(Database, "db1", "default", until=lambda db: db.status.total == 2, timeout=60)
    found = (await Client(server).get(Database, "db1", "default")).status
    assert found.log == ["entry 1", "entry 2"]


@pytest.mark.virtual_time
async def test_a_stalled_write_in_a_shutdown_is_read_back_in_two_seconds(server):
    counting = Counting()
    async with Client(server) as client:
        manager = Manager(client, grace_period=1)
        manager.add_controller(counting)
        async with manager.running():
            stall(server, applied=False)
            await created(server)
            await asyncio.sleep(1)
            assert counting.reconciles == 1
    assert await total(server) == 1


@pytest.mark.parametrize("applied", [True, False])
async def test_a_stalled_write_over_the_blocking_client_is_read_back(server, tmp_path: Path, applied):
    api_client = kubernetes.config.new_client_from_config(str(server.write_kubeconfig(tmp_path / "config")))
    obj = await created(server)
    stall(server, applied=applied)

    def work() -> Any:
        with StatusBatcher(api_client, obj, flush_timeout=4) as status:
            status.increment("total")
        api_client.close()
        return status

    status = await asyncio.to_thread(work)
    assert (await total(server), status.written) == (1, True)


@pytest.mark.parametrize("applied", [True, False])
async def test_a_stalled_write_over_kubernetes_asyncio_is_read_back(server, tmp_path: Path, applied):
    configuration = kubernetes_asyncio.client.Configuration()
    path = str(server.write_kubeconfig(tmp_path / "config"))
    await kubernetes_asyncio.config.load_kube_config(path, client_configuration=configuration)
    obj = await created(server)
    stall(server, applied=applied)
    async with (
        kubernetes_asyncio.client.ApiClient(configuration) as api_client,
        StatusBatcher(api_client, obj, flush_timeout=4) as status,
    ):
        status.increment("total")
    assert (await total(server), status.written) == (1, True)


async def test_a_discovery_that_fails_before_a_write_leaves_its_outcome_known(server, tmp_path: Path):
    api_client = kubernetes.config.new_client_from_config(str(server.write_kubeconfig(tmp_path / "config")))
    obj = await created(server)
    server.faults.add(stall=True, path="/apis/example.com/v1")

    def work() -> Any:
        with StatusBatcher(api_client, obj, flush_timeout=4) as status:
            status.increment("total")
        api_client.close()
        return status

    status = await asyncio.to_thread(work)
    assert (await total(server), status.statistics().unknown) == (1, 0)


def block_the_loop(after: float, seconds: float) -> None:
    """Let no callback of the virtual loop run for a time, as while the process is stopped."""
    loop: Any = asyncio.get_running_loop()

    def block() -> None:
        loop.reached = loop.time() + seconds

    loop.call_later(after, block)


class Answering(Writer):
    """A writer whose server answers a write after eight seconds."""

    async def write(self, body: Any, **options: Any) -> Any:
        answer = await super().write(body, **options)
        await asyncio.sleep(8)
        return answer


@pytest.mark.virtual_time
@pytest.mark.parametrize("after", [0.5, 3, 6.5])
@pytest.mark.parametrize("seconds", [10, 3600])
async def test_an_answer_that_came_while_the_process_was_stopped_is_taken(after, seconds):
    server = ScriptedServer()
    block_the_loop(after, seconds)
    async with StatusBatcher(Answering(server, "test"), server.document()) as status:
        status.increment("total")
    assert (server.reads, status.statistics().unknown, status.written) == (0, 0, True)


@pytest.mark.virtual_time
@pytest.mark.parametrize("after", [0.5, 6.5, 7])  # during the write, at its end, during the read back
async def test_a_stalled_write_is_read_back_although_the_process_was_stopped(server, after):
    obj = await created(server)
    stall(server, applied=True)
    server.faults.add(latency=1, verb="get", name="db1")
    block_the_loop(after, 10)
    async with StatusBatcher(Client(server), obj) as status:
        status.increment("total")
    assert (await total(server), status.written) == (1, True)


@pytest.mark.virtual_time
async def test_a_loop_that_is_late_at_each_tick_ends_a_request_nevertheless():
    loop: Any = asyncio.get_running_loop()

    async def be_busy() -> None:
        while True:
            await asyncio.sleep(0.1)
            loop.reached = loop.time() + 5

    busy = asyncio.create_task(be_busy())
    with pytest.raises(TimeoutError), RunningTimeout(1) as limit:
        await asyncio.sleep(1e6)
    busy.cancel()
    assert limit.expired()


class Stopping(BlockingWriter):
    """A blocking writer with a limit, whose process is stopped during each request."""

    request_timeout = 0.0
    clock: Any

    def read(self) -> Any:
        self.clock.seconds += 10
        return super().read()

    def write(self, body: Any, **options: Any) -> Any:
        self.clock.seconds += 10
        return super().write(body, **options)


class Clock(SystemClock):
    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_lost_write_over_a_blocking_client_is_read_back_although_the_process_was_stopped():
    server, clock = ScriptedServer(), Clock()
    writer = Stopping(server, "test")
    writer.clock = clock
    server.on_write.append(lost())
    with StatusBatcher(writer, server.document(), clock=clock) as status:
        status.increment("total")
    assert (server.status, server.reads) == ({"total": 1}, 1)
    assert 0 < writer.request_timeout < 10 / 3
