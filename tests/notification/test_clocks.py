"""Machines with different clocks deliver one request in turn: no attempt is early or delayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.clock import current_clock
from reconciler.errors import NotFound
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta.documents import parse_time
from reconciler.notification import NotificationMetrics, NotificationRequest
from reconciler.testing import VirtualClock
from reconciler.testing.virtual_clock import EPOCH
from tests.notification.world import DOWN, TIMELINE, Recorder, World, virtual

SKEWS = [timedelta(seconds=60), timedelta(seconds=-60), timedelta(days=400), timedelta(days=-400)]


def skewed(ahead: timedelta) -> VirtualClock:
    """Return a machine's own clock, with an error that only `VirtualClock.step` changes."""
    clock = VirtualClock(EPOCH + ahead)
    clock.follow(asyncio.get_running_loop())
    return clock


class Dated:
    """A transport that sets the Date header of each response to the server's time."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self.transport.send(request)
        response.headers = {**response.headers, "date": format_datetime(current_clock().now(), usegmt=True)}
        return response


@asynccontextmanager
async def machine(
    server: APIServer,
    ahead: timedelta | VirtualClock,
    *channels: Any,
    wrapper: Callable[[Transport], Transport] = Dated,
    **options: Any,
) -> AsyncIterator[World]:
    """Run the operator on a machine with a wrong clock, or with this one."""
    clock = skewed(ahead) if isinstance(ahead, timedelta) else ahead
    async with Client(server, clock=clock) as bare:
        w = World(server, bare.through(wrapper))
        async with w.operator(*channels, clock=clock, **options):
            yield w


@virtual
@pytest.mark.parametrize("ahead", SKEWS)
async def test_a_new_leader_with_a_wrong_clock_delivers_neither_early_nor_late(ahead: timedelta) -> None:
    pager = Recorder("pager", [DOWN])
    async with APIServer() as server:
        await server.apply(NotificationRequest)
        async with machine(server, timedelta(), pager) as w:
            await w.create("pager", maxAttempts=4)
            await asyncio.sleep(10)
        async with machine(server, ahead, pager) as w:
            for second in range(50):
                await w.annotate(str(second))
                await asyncio.sleep(1)
        async with machine(server, -ahead, pager) as w:
            await asyncio.sleep(1000)
            assert (await w.status())["phase"] == "Failed"
    for call, due in zip(pager.calls, [0, 30, 90, 210], strict=True):
        assert due - 1.001 <= call <= due + 2.1


@virtual
@pytest.mark.parametrize("ahead", SKEWS)
async def test_stored_times_are_the_servers_time(ahead: timedelta) -> None:
    async with APIServer() as server:
        await server.apply(NotificationRequest)
        async with machine(server, ahead, Recorder("pager", [DOWN])) as w:
            began = current_clock().now()
            await w.create("pager")
            await asyncio.sleep(1)
            status = await w.status()
    (channel,) = status["channels"]
    for stamp in (status["queuedAt"], status["deliveryAttempts"][0]["timestamp"], channel["lastAttemptTime"]):
        assert abs(parse_time(stamp) - began) <= timedelta(seconds=1.1)


@virtual
@pytest.mark.parametrize("step", [7200, -7200])
@pytest.mark.parametrize("wrapper", [Dated, lambda transport: transport], ids=["dated", "undated"])
async def test_a_step_of_the_wall_clock_moves_no_attempt(step: float, wrapper: Any) -> None:
    pager, clock = Recorder("pager", [DOWN]), skewed(timedelta())
    async with APIServer() as server:
        await server.apply(NotificationRequest)
        async with machine(server, clock, pager, wrapper=wrapper) as w:
            await w.create("pager")
            for second in range(60):
                if second in (5, 40):
                    clock.step(step)
                await w.annotate(str(second))
                await asyncio.sleep(1)
            await asyncio.sleep(1000)
    assert pager.calls == TIMELINE


@virtual
@pytest.mark.parametrize("step", [7200, -7200])
async def test_a_step_before_the_first_response_moves_no_attempt(step: float) -> None:
    pager, clock = Recorder("pager", [DOWN]), skewed(timedelta())

    class Stepping(Dated):
        async def send(self, request: HTTPRequest, /) -> HTTPResponse:
            if clock.epoch == EPOCH:
                clock.step(step)
            return await super().send(request)

    async with APIServer() as server:
        await server.apply(NotificationRequest)
        async with machine(server, clock, pager, wrapper=Stepping) as w:
            await w.create("pager")
            await asyncio.sleep(1000)
    assert pager.calls == TIMELINE


@virtual
async def test_equal_clocks_do_not_change_the_timeline() -> None:
    pager = Recorder("pager", [DOWN])
    async with APIServer() as server:
        await server.apply(NotificationRequest)
        async with machine(server, timedelta(), pager) as w:
            await w.create("pager")
            await asyncio.sleep(1000)
            assert w.writes == 5
    assert pager.calls == [0, 30, 90, 210, 450]


@virtual
async def test_the_clock_offset_is_a_metric() -> None:
    registry = CollectorRegistry()
    metrics = NotificationMetrics(registry)
    async with APIServer() as server, Client(server, clock=skewed(timedelta(hours=1))) as bare:
        await server.apply(NotificationRequest)
        w = World(server, bare.through(Dated))
        async with w.operator(Recorder("pager")) as (_, reconciler):
            metrics.watch(reconciler=reconciler)
            (line,) = (
                line
                for line in generate_latest(registry).decode().splitlines()
                if line.startswith("notification_clock_offset_seconds ")
            )
    assert float(line.split()[1]) == pytest.approx(-3600, abs=1)


@virtual
@pytest.mark.parametrize("ahead", SKEWS)
async def test_a_wrong_clock_neither_deletes_a_finished_request_early_nor_keeps_it(ahead: timedelta) -> None:
    async with APIServer() as server:
        await server.apply(NotificationRequest)
        async with machine(server, timedelta(), Recorder("pager")) as w:
            await w.create("pager", spec={"ttlSecondsAfterFinished": 100})
            await asyncio.sleep(10)
        async with machine(server, ahead, Recorder("pager")) as w:
            await asyncio.sleep(85)
            assert (await w.status())["phase"] == "Sent"
            await asyncio.sleep(10)
            with pytest.raises(NotFound):
                await w.status()
