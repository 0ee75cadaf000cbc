"""The health check ``leader-election`` over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import aiohttp
import pytest_asyncio

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.manager import LeaderElection

LEASE_SECONDS = 60.0
CALM = LeaderElection(
    "operator",
    namespace="default",
    identity="one",
    lease_duration=LEASE_SECONDS,
    renew_deadline=50,
    retry_period=40,
)
"""A leader that renews its lease so rarely that a test ends before it does."""


class SuspendableClock:
    """The clock of a machine that was suspended: boot time has advanced, timers have not."""

    def __init__(self) -> None:
        self.suspended = 0.0
        self._clock = current_clock()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def boottime(self) -> float:
        return self.monotonic() + self.suspended

    def now(self) -> datetime:
        return self._clock.now()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def leader(manager: Manager) -> None:
    while not manager.statistics().leading:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def health(http: aiohttp.ClientSession, manager: Manager) -> tuple[int, str]:
    async with http.get(f"{manager.health_url}/healthz?verbose") as answer:
        return answer.status, await answer.text()


async def test_a_leader_with_a_valid_lease_is_healthy(server: APIServer, http: aiohttp.ClientSession) -> None:
    clock = SuspendableClock()
    manager = Manager(Client(server, clock=clock), leader_election=CALM, health="127.0.0.1:0")
    async with manager.running():
        await leader(manager)
        assert await health(http, manager) == (200, "[+]ping ok\n[+]leader-election ok\nhealthz check passed\n")
        clock.suspended = LEASE_SECONDS - 20
        assert (await health(http, manager))[0] == 200


async def test_a_leader_whose_lease_has_expired_is_not_healthy(server: APIServer, http: aiohttp.ClientSession) -> None:
    clock = SuspendableClock()
    manager = Manager(Client(server, clock=clock), leader_election=CALM, health="127.0.0.1:0")
    async with manager.running():
        await leader(manager)
        manager._elector._watchdog.disarm()  # it would exit the test process
        clock.suspended = LEASE_SECONDS + 100
        status, text = await health(http, manager)
        assert status == 500
        assert "[-]leader-election failed" in text


async def test_a_process_that_waits_for_the_lease_is_healthy(client: Client, http: aiohttp.ClientSession) -> None:
    first = Manager(client, leader_election=CALM)
    second = Manager(
        client, leader_election=LeaderElection("operator", namespace="default", identity="two"), health="127.0.0.1:0"
    )
    async with first.running():
        await leader(first)
        async with second.running():
            assert (await health(http, second))[0] == 200
            assert not second.statistics().leading
