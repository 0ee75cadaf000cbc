"""etcd is restored while others write, with hostile objects in the lists: in the end, the cache shows what is there.

A few seeds run with the other tests; ``nox -s chaos -- --seeds 200 --first 1000`` plays more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedObject
from reconciler.errors import APIError
from reconciler.testing import virtual_time
from tests.cache.test_on_both_servers import MAP, Replay
from tests.chaos.test_chaos import SEEDS
from tests.controller.test_unreadable import DEEP, Breaking
from tests.e2e.test_restored_backup import Gate

STEPS = 60
SOON = 120.0
"""Seconds: longer than the longest backoff, and shorter than a watch."""


class World:
    """A server that others write to, and is restored from backups, before a gate to the cache."""

    def __init__(self, server: APIServer, seed: int) -> None:
        self.server = server
        self.rng = random.Random(seed)
        self.others = Client(server)
        self.gate = Gate(Breaking(server, DEEP), fails=False)
        self.backups: list[bytes] = [server.snapshot()]
        self.writes = 0
        self.happened: list[str] = []
        self.wrong: list[str] = []

    async def watch(self, cache: Cache) -> None:
        self.informer = await cache.informer(MAP, namespaces=["default"])
        self.replay = Replay(self.informer)
        await cache.wait_synced(60)

    async def write(self) -> None:
        """Create, change or delete an object, which may be hostile."""
        name = f"n{self.rng.randrange(40)}"  # many: if all of the newest are changed again, nothing shows a restore
        with contextlib.suppress(APIError):
            if self.rng.random() < 0.3:
                await self.others.delete(MAP, name, "default")
                return
            self.writes += 1  # so that no write is like another
            data = {"number": str(self.writes), "value": "MARK" if self.rng.random() < 0.2 else "1"}
            document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
            await self.others.apply(document | {"data": data})

    async def step(self) -> None:
        action = self.rng.choice(["write"] * 6 + ["back_up", "restore", "restore", "cut", "compact"])
        self.happened.append(action)
        match action:
            case "write":
                await self.write()
            case "back_up":
                self.backups.append(self.server.snapshot())
            case "restore":
                await self._restore()
            case "cut":
                self.server.cut_watches()
            case "compact":
                self.server.compact()
        await asyncio.sleep(self.rng.choice([0, 0, 0.01, 1, 20]))

    async def _restore(self) -> None:
        bump, writes = self.rng.choice([None, None, 1000]), self.rng.randrange(40)
        self.gate.fails = self.rng.random() < 0.5
        self.happened[-1] += f" bump {bump}, {writes} writes, fails {self.gate.fails}"
        self.gate.opened.clear()
        await self.server.restore(self.rng.choice(self.backups[-2:]), bump_revision=bump)
        for _ in range(writes):
            await self.write()
            await asyncio.sleep(self.rng.choice([0, 0, 0.5]))
        self.gate.opened.set()
        await asyncio.sleep(SOON)
        self.wrong += await self.judged()

    async def judged(self) -> list[str]:
        """Return how the cache differs from the server."""
        listed = await self.others.list(MAP, "default")
        there = {each.name: (each.uid, int(each.resource_version)) for each in listed}
        kept: list[CachedObject] = list(self.informer.store)
        wrong = [
            f"{what} shows {shown}, and there is {there}"
            for what, shown in (("the store", state(kept)), ("the replay", state(self.replay.state.values())))
            if shown != there
        ]
        hostile = {found.name for found in kept if found.problem is not None}
        marked = {found.name for found in kept if DEEP in found.data}
        return [*wrong, *([] if hostile == marked else [f"{hostile} cannot be decoded, but {marked} are hostile"])]


def state(objects: Any) -> dict[str, tuple[str, Any]]:
    return {found.name: (found.uid, int(found.version)) for found in objects}


async def live(seed: int) -> list[str]:
    """Run one life; return what was wrong with it."""
    async with APIServer(seed=seed) as server:
        world = World(server, seed)
        async with Cache(Client(world.gate), list_in_pages=world.rng.random() < 0.5) as cache:
            await world.watch(cache)
            for _ in range(STEPS):
                await world.step()
            await asyncio.sleep(SOON)
            wrong = [*world.wrong, *await world.judged()]
    return [*wrong, *world.happened] if wrong else []


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("no_logs")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_cache_shows_what_is_there_after_restores(seed: int) -> None:
    with virtual_time():
        wrong = asyncio.run(live(seed))
    assert not wrong, "\n".join([*wrong, f"repeat it with: nox -s chaos -- --seeds 1 --first {seed}"])
