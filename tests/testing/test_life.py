"""Lives of a program: a crash is not a cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from reconciler import Client, Manager, Reconciler, Request
from reconciler.apiserver import APIServer
from reconciler.testing import Life

pytestmark = [pytest.mark.virtual_time, pytest.mark.filterwarnings("error")]

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}


@pytest.mark.parametrize("wait", ["sleep", "event", "busy", "group", "queue"])
async def test_nothing_of_a_life_runs_after_its_end(wait: str, caplog: pytest.LogCaptureFixture) -> None:
    told, ran = asyncio.Event(), []

    async def program() -> None:
        asyncio.get_running_loop().call_later(5, ran.append, "timer")
        try:
            if wait == "sleep":
                await asyncio.sleep(5)
            elif wait == "event":
                await told.wait()
            elif wait == "busy":
                while True:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            elif wait == "group":
                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(5))
            else:
                await asyncio.Queue().get()
            ran.append("body")
        finally:
            ran.append("finally")

    with Life() as life:
        life.start(program())
        await asyncio.sleep(1) if wait != "busy" else [await asyncio.sleep(0) for _ in range(9)]
        life.end()
        life.end()
        told.set()
        asyncio.get_running_loop().call_soon(gc.collect)
        await asyncio.sleep(3600)
        assert ran == []
    assert ran == ["finally"]
    gc.collect()
    assert len(asyncio.all_tasks()) == 1
    assert not caplog.records


async def test_code_that_ends_its_own_life_runs_to_its_next_await() -> None:
    ran = []

    async def program() -> None:
        ran.append(1)
        life.end()
        ran.append(2)
        asyncio.get_running_loop().call_soon(ran.append, 3)
        asyncio.create_task(asyncio.sleep(0))  # noqa: RUF006 - it never runs
        await asyncio.sleep(0)
        ran.append(4)

    with Life() as life:
        life.start(program())
        await asyncio.sleep(60)
    assert ran == [1, 2]


async def test_two_lives_and_the_test_itself_are_independent() -> None:
    ran = []

    async def program(name: str) -> None:
        while True:
            await asyncio.sleep(1)
            ran.append(name)

    with Life() as first, Life() as second:
        first.start(program("first"))
        second.start(program("second"))
        await asyncio.sleep(1.5)
        first.end()
        await asyncio.sleep(1)
    assert ran == ["first", "second", "second"]


async def test_a_request_in_flight_reaches_the_server_and_watches_are_closed() -> None:
    async with APIServer() as server:

        async def program(client: Client) -> None:
            watching = asyncio.create_task(anext(client.watch("v1/Secret")))
            await asyncio.sleep(1)
            await client.create(CONFIG_MAP)
            watching.cancel()

        server.faults.add(latency=10, verb="create")
        with Life() as life:
            async with Client(life.connect(server)) as client:
                life.start(program(client))
                await asyncio.sleep(5)
                assert server.statistics().watches == 1
                life.end()
                await asyncio.sleep(10)
                (created,) = server.requests(verb="create")
                assert (created.status, server.statistics().watches) == (201, 0)


class _Configured(Reconciler):
    def __init__(self) -> None:
        super().__init__()
        self.ran: list[object] = []
        self.gone_on = threading.Event()

    def reconcile(self, request: Request) -> None:
        try:
            self.ran.append(request.name)
            self.wait(asyncio.sleep(60))
            self.ran.append("slept")
        finally:
            try:
                self.wait(asyncio.sleep(0))
            except BaseException as error:
                self.ran.append(type(error).__name__)
                self.gone_on.set()
                raise


async def test_an_operator_is_killed_with_the_threads_of_its_reconciles(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())  # threads of earlier tests may end meanwhile
    async with APIServer() as server, Client(server) as user:
        reconciler = _Configured()
        with Life() as life:
            async with Client(life.connect(server)) as client:
                manager = Manager(client)
                manager.add_controller(reconciler, resource="v1/ConfigMap")
                life.start(manager.run())
                await asyncio.sleep(5)
                await user.create(CONFIG_MAP)
                await asyncio.sleep(5)
                assert reconciler.ran == ["a"]
                server.log.clear()
                life.end()
                await asyncio.sleep(3600)
                assert reconciler.ran == ["a", "ReconcileCancelled"]
                assert server.requests(user_agent="reconciler") == []
    del life, client, manager, reconciler
    gc.collect()
    for _ in range(100):
        if not set(threading.enumerate()) - before:
            assert not [each for each in caplog.records if each.name == "asyncio"]
            return
        time.sleep(0.05)  # noqa: ASYNC251 - the threads end in real time
    raise AssertionError(threading.enumerate())
