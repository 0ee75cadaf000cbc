"""A kopf operator with batchers in handlers, timers and a daemon, under lost responses and other writers, from a seed.

One seed runs with the other tests; ``nox -s chaos`` runs a sixth as many as of other lives. What was recorded is stored
once, or an error says that it was dropped; with a token it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from typing import Any

import kopf
import pytest

from reconciler.client import Client
from reconciler.errors import Conflict
from reconciler.status import StatusBatcher
from tests.status.kopf_world import KIND, Database, Server, World

FIRST = int(os.environ.get("CHAOS_FIRST", "1"))
SEEDS = range(FIRST, FIRST + max(1, int(os.environ.get("CHAOS_SEEDS", "6")) // 6))
STEPS = 30
CALM = 20
"""Runs of each timer after the disturbances: a write is refused while another timer is faster."""


def _be_patient(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.networking.error_backoffs = (0.02,) * 20  # kopf ends a timer whose request failed too often


class Operator:
    """Handlers that record under names of their own."""

    def __init__(self, world: World, token: str | None) -> None:
        self.recording = True
        self.recorded: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()  # without recording
        self._ran = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._token = token
        kopf.on.startup(registry=world.registry, id="patience")(_be_patient)
        for name in ("one", "two"):
            world.on("timer", id=name, interval=0.02)(self._handler(name))
        world.on("create", id="create")(self._handler("create"))
        world.on("update", id="update")(self._handler("update"))
        world.on("daemon", id="daemon", cancellation_timeout=1)(self._handler("daemon"))

    def _handler(self, name: str) -> Any:
        async def record(body: Any, patch: Any, **_: Any) -> None:
            if not self.recording:
                self._runs[name] += 1
                self._loop.call_soon_threadsafe(self._ran.set)
            else:
                self.recorded[name] += 1
                async with StatusBatcher(patch, body, token=self._token, max_conflicts=1000) as status:
                    status.increment("total")
                    status.append("log", f"{name} {self.recorded[name]}")
            if name == "daemon":  # what is refused at its end is lost, so it does not end
                raise kopf.TemporaryError("again", delay=0.02)

        return record

    async def calm(self) -> None:
        """Wait until everything that is held back has been sent."""
        while min(self._runs[name] for name in ("one", "two", "daemon")) < CALM:
            await self._ran.wait()
            self._ran.clear()


async def patched(world: World) -> None:
    """Wait until kopf has sent another patch of the status."""
    done = asyncio.Event()
    before = world.server.after

    async def after() -> None:
        if before is not None:
            await before()
        done.set()

    world.server.after = after
    await done.wait()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("token", ["mark", None])
@pytest.mark.parametrize("seed", SEEDS)
async def test_kopf_stores_nothing_twice_and_loses_nothing_silently(seed: int, token: str | None, caplog: Any) -> None:
    rng = random.Random(seed)
    others = 0
    async with Server() as server, Client(server) as client:
        await server.listen()
        await server.apply(Database)
        world = World(server, client)
        operator = Operator(world, token)

        async def count() -> None:
            nonlocal others
            while True:
                found = (await client.get(KIND, "db1", "default")).to_dict()
                total = (found.get("status") or {}).get("total") or 0
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                patch = {"metadata": version, "status": {"total": total + 1}}
                with contextlib.suppress(Conflict):  # the handlers write as well
                    await client.patch(KIND, "db1", "default", patch=patch, subresource="status")
                    others += 1
                    return

        async def relabel() -> None:
            patch = {"metadata": {"labels": {"n": str(rng.randrange(1000))}}}
            await client.patch(KIND, "db1", "default", patch=patch)

        async with world.operator():
            await world.make()
            for step in range(STEPS):
                server.before = rng.choice([None, None, count, relabel])
                server.after = rng.choice([None, None, count, relabel])
                if rng.random() < 0.5:
                    server.faults.add(
                        lost=True,
                        after_commit=rng.random() < 0.7,
                        times=1,
                        verb="patch",
                        subresource="status",
                        user_agent="kopf/",
                    )
                if rng.random() < 0.2:
                    await world.resize(step)
                await patched(world)
            server.faults.clear()
            operator.recording = False
            await operator.calm()
        status = await world.status()
    log: list[str] = status.get("log", [])
    missing = operator.recorded.total() - len(log)
    assert len(set(log)) == len(log), "an append was applied twice"
    assert status.get("total", 0) - others == len(log), "an increment was applied twice, or without its append"
    assert missing == 0 or (token is None and "Dropped, because it could count twice" in caplog.text)
