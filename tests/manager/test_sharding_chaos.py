"""Shards that start, stop, are partitioned and come back, while a tenth of their requests fails."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.manager import GracePeriodExceeded, LeadershipLost
from tests.manager.sharder import Sharder
from tests.manager.test_sharding_ring import MAP, SHARD, Log, config_map, labels_of, shard

NAMES = {f"map-{number}" for number in range(20)}
SHARDS = ("one", "two", "three", "four")

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]


class Operator:
    """A pod: a process that is restarted when it has lost its Lease."""

    def __init__(self, server: APIServer, name: str, log: Log) -> None:
        self.name = name
        self.losses = 0
        self._server = server
        self._log = log
        self._end = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._end.is_set():
            try:
                manager = shard(self._server, self.name, self._log.working(self.name), workers=4)
                async with manager.running():
                    await self._end.wait()
            except (LeadershipLost, GracePeriodExceeded):
                self.losses += 1
                await asyncio.sleep(1)

    async def end(self) -> None:
        self._end.set()
        await self._task

    async def cut_off(self, seconds: float) -> None:
        """Drop all requests and responses."""
        fault = self._server.faults.add(lost=True, user_agent=self.name, times=None)
        self._server.cut_watches()
        await asyncio.sleep(seconds)
        fault.remove()


async def test_partitioned_shard_has_stopped_before_its_objects_move(server: APIServer, client: Client) -> None:
    for name in NAMES:
        await client.create(config_map(name))
    log = Log()
    async with Sharder(client, "apps", MAP, "default").running() as sharder:
        operators = [Operator(server, name, log) for name in ("one", "two")]
        await asyncio.sleep(20)
        assert set(log.last.values()) == {"one", "two"}
        cut_off = asyncio.create_task(operators[1].cut_off(60))
        await asyncio.sleep(11)
        assert "two" not in log.in_hand.values(), "it has stopped by itself"
        assert sharder.forced == 0, "and nobody has its objects yet"
        await asyncio.sleep(29)
        assert sharder.forced > 0
        log.last.clear()
        await asyncio.sleep(5)
        assert log.last == dict.fromkeys(NAMES, "one")
        await cut_off
        await asyncio.sleep(60)
        assert operators[1].losses > 0
        log.last.clear()
        await asyncio.sleep(10)
        assert set(log.last) == NAMES
        assert set(log.last.values()) == {"one", "two"}, "it takes part again"
        for each in operators:
            await each.end()
    assert log.overlaps == []


@pytest.mark.parametrize("seed", range(6))
async def test_each_key_has_exactly_one_shard_despite_random_faults(
    server: APIServer, client: Client, seed: int
) -> None:
    rng = random.Random(seed)
    for name in NAMES:
        await client.create(config_map(name))
    log = Log()
    running: dict[str, Operator] = {}
    cuts: list[asyncio.Task[None]] = []
    async with Sharder(client, "apps", MAP, "default").running() as sharder:
        with contextlib.ExitStack() as chaos:
            for number, name in enumerate(SHARDS):
                chaos.enter_context(
                    server.faults.chaos(seed=seed * 10 + number, rate=0.1, latency=0.5, user_agent=name)
                )
            for _ in range(15):
                name = rng.choice(SHARDS)
                if name not in running:
                    running[name] = Operator(server, name, log)
                elif rng.random() < 0.5:
                    cuts.append(asyncio.create_task(running[name].cut_off(rng.uniform(5, 60))))
                else:
                    await running.pop(name).end()
                await asyncio.sleep(rng.uniform(0, 20))
            await asyncio.gather(*cuts)
        if "one" not in running:
            running["one"] = Operator(server, "one", log)
        await asyncio.sleep(90)
        log.last.clear()
        await asyncio.sleep(20)
        by = dict(log.last)
        labels = {name: (await labels_of(client, name)).get(SHARD) for name in NAMES}
        for each in running.values():
            await each.end()
    assert log.overlaps == []
    assert by == labels
    assert set(by.values()) == set(running)
    assert sharder.drained + sharder.forced > 0
