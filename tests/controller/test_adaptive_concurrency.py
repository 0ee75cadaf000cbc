"""A backlog of low priority leaves the API server to fresh changes and to other clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from statistics import median, quantiles
from typing import Any, TypeVar

import pytest

from reconciler import Client, Manager, Outcome, ResourceReconciler, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.controller import Controller
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import Request
from reconciler.workqueue.concurrency_limit import PROBE
from tests.benchmarks.contenders.widget import Widget, WidgetStatus, widget

pytestmark = pytest.mark.virtual_time

T = TypeVar("T")

SERVICE = 0.003
WORKERS = 10


class ModelledServer:
    """A transport to a server that processes so many requests at once, and queues the others.

    Attributes:
        status: when each object's status was written, by the path of the request.
        rejecting: whether it rejects writes of a status.
        silent: whether it answers nothing.
    """

    def __init__(self, transport: Transport, capacity: int) -> None:
        self.status: dict[str, float] = {}
        self.rejecting = False
        self.silent = False
        self._transport = transport
        self._free = asyncio.Semaphore(capacity)

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if request.stream:
            return await self._transport.send(request)
        if self.silent:
            await asyncio.Event().wait()
        async with self._free:
            await asyncio.sleep(SERVICE)
        writes_status = request.path.endswith("/status") and request.method != "GET"
        if writes_status and self.rejecting:
            return HTTPResponse(429, headers={"retry-after": "1"}, body=b"{}")
        response = await self._transport.send(request)
        if writes_status:
            self.status[request.path.split("/")[-2]] = asyncio.get_running_loop().time()
        return response


class Writer(ResourceReconciler[Widget]):
    """Computes a little and writes a status."""

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        await asyncio.sleep(SERVICE / 6)
        status.set(run="done")
        return None


class World:
    """A controller of a backlog, on a modelled server."""

    def __init__(self, model: ModelledServer, controller: Controller, backlog: int) -> None:
        self.model = model
        self.controller = controller
        self._other = Client(model)
        self._backlog = backlog
        self._numbers = iter(range(100_000, 200_000))

    async def fresh(self, count: int) -> float:
        """Create objects, ten a second; return the median of the seconds until each has its status."""
        names: dict[str, float] = {}
        async with asyncio.TaskGroup() as group:
            for number in (next(self._numbers) for _ in range(count)):
                names[f"widget-{number:06}"] = asyncio.get_running_loop().time()
                group.create_task(self._other.create(widget(number, "default")))
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        return median(self.model.status[name] - began for name, began in names.items())

    async def neighbors(self, seconds: float) -> float:
        """Let four other clients read one object after the other; return the 99th percentile of their waits."""
        waits: list[float] = []

        async def read() -> None:
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            while loop.time() < end:
                began = loop.time()
                await self._other.get(Widget, "widget-000000", "default")
                waits.append(loop.time() - began)
                await asyncio.sleep(rng.expovariate(1 / SERVICE))

        rng = random.Random(1)
        await asyncio.gather(*(read() for _ in range(4)))
        return quantiles(waits, n=100)[-1]

    async def converged(self) -> float:
        """Wait until the backlog has its status; return when."""
        while self.controller.statistics().queue.ready or len(self.model.status) < self._backlog:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return asyncio.get_running_loop().time()


async def run(backlog: int, capacity: int, measure: Callable[[World], Awaitable[T]], **options: Any) -> T:
    async with APIServer() as server:
        await server.apply(Widget)
        for number in range(backlog):
            await server.apply(widget(number, "default"))
        model = ModelledServer(server, capacity)
        manager = Manager(Client(model))
        controller = manager.add_controller(Writer(), workers=WORKERS, **options)
        async with manager.running():
            return await measure(World(model, controller, backlog))


async def latencies(world: World) -> tuple[float, float, float]:
    began = asyncio.get_running_loop().time()
    busy = await world.fresh(15)
    assert world.controller.statistics().queue.ready_by_priority
    seconds = await world.converged() - began
    return busy, await world.fresh(15), seconds


@pytest.mark.parametrize("capacity", [1, 2])
async def test_a_fresh_change_hardly_waits_for_a_backlog_which_is_as_fast_as_ever(capacity: int) -> None:
    backlog = 1000 * capacity
    busy, idle, seconds = await run(backlog, capacity, latencies)
    assert busy <= 3 * idle
    unlimited, idle, fastest = await run(backlog, capacity, latencies, adaptive_concurrency=False)
    assert unlimited > 4 * idle
    assert fastest >= 0.95 * seconds


async def neighbors(world: World) -> tuple[float, float]:
    await asyncio.sleep(0.5)  # the limit adapts
    busy = await world.neighbors(2)
    assert world.controller.statistics().queue.ready_by_priority
    await world.converged()
    return busy, await world.neighbors(2)


async def test_other_clients_hardly_wait_for_a_backlog() -> None:
    busy, idle = await run(1500, 2, neighbors)
    assert busy <= 2 * idle
    unlimited, idle = await run(1500, 2, neighbors, adaptive_concurrency=False)
    assert unlimited > 2.5 * idle


async def test_a_server_that_is_fast_enough_gets_the_backlog_at_full_speed() -> None:
    async def seconds(world: World) -> tuple[float, int | None]:
        began = asyncio.get_running_loop().time()
        return await world.converged() - began, world.controller.statistics().queue.low_limit

    adaptive, limit = await run(1000, 64, seconds)
    full, unlimited = await run(1000, 64, seconds, adaptive_concurrency=False)
    assert adaptive <= full + 2 * PROBE * SERVICE  # the measurement, once
    assert (limit, unlimited) == (WORKERS, None)


async def rejected(world: World) -> None:
    world.model.rejecting = True
    await asyncio.sleep(0.5)
    queue = world.controller.statistics().queue
    assert queue.low_limit == 1
    ready = Request("widget-000399", "default")
    assert "the end of another reconcile of low priority" in world.controller.explain(ready).waits_for
    world.model.rejecting = False
    await world.converged()
    assert world.controller.statistics().queue.low_limit > 1  # type: ignore[operator]


async def test_a_rejected_request_leaves_one_reconcile_of_low_priority_at_a_time() -> None:
    await run(400, 64, rejected)


async def silent(world: World) -> None:
    world.model.rejecting = True
    await asyncio.sleep(10)
    world.model.silent = True
    await asyncio.sleep(30)
    assert (world.controller.statistics().queue.low_limit or WORKERS) < WORKERS / 2


async def test_the_limit_hardly_rises_while_an_overloaded_server_answers_nothing() -> None:
    await run(400, 2, silent)


class Leaving(Writer):
    """Leaves a task behind, which asks the server for as long as it wants."""

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        tasks.append(asyncio.create_task(self.ask()))
        return await super().reconcile_object(widget, status)

    async def ask(self) -> None:
        for _ in range(100):
            await asyncio.sleep(1)
            await self.client.live.get(Widget, "widget-000000", "default")


tasks: list[asyncio.Task[None]] = []


async def test_the_requests_of_a_task_that_outlives_its_reconcile_do_not_count() -> None:
    async with APIServer() as server:
        await server.apply(Widget)
        await server.apply(widget(0, "default"))
        model = ModelledServer(server, 64)
        manager = Manager(Client(model))
        controller = manager.add_controller(Leaving(), workers=WORKERS)
        async with manager.running():
            await asyncio.sleep(2)
            model.silent = True
            await asyncio.sleep(2)
            limit = controller.queue.low_limit
            assert limit is not None
            assert limit.unanswered == 0
            for task in tasks:
                task.cancel()
