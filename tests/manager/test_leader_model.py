"""With any faults of requests, no two processes lead at the same time, and without faults one leads."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.client import Client, Retries
from reconciler.clock import current_clock
from reconciler.manager import LeaderElection, LeadershipLost
from reconciler.manager.election.elector import Elector
from reconciler.manager.election.watchdog import Watchdog
from reconciler.telemetry import LeaderCounters
from reconciler.testing import virtual_time
from tests.depth import examples

PROCESSES = 3
STEP = 0.5

TROUBLE: dict[str, dict[str, Any]] = {
    "silence": {"stall": True},
    "refused": {"status": 503},
    "landed but failed": {"status": 500, "after_commit": True},
    "landed but lost": {"lost": True, "after_commit": True},
    "slow": {"latency": 4.0},
    "slow and lost": {"latency": 4.0, "lost": True, "after_commit": True},
    "conflicts": {"status": 409},
}

events = st.lists(
    st.tuples(
        st.floats(0.5, 25),  # seconds until the fault
        st.integers(0, PROCESSES - 1),
        st.sampled_from([*TROUBLE, "stop", "kill"]),
        st.floats(1, 30),  # duration of the fault in seconds
    ),
    max_size=8,
)


class Process:
    """A candidate that is replaced by a new process whenever it ends."""

    def __init__(self, server: APIServer, number: int) -> None:
        self.server = server
        self.number = number
        self.incarnation = 0
        self.start()

    def start(self) -> None:
        self.incarnation += 1
        self.ending = False
        name = f"process-{self.number}-{self.incarnation}"
        self.elector = Elector(
            Client(self.server, user_agent=f"agent-{self.number}", retries=Retries(attempts=1)),
            LeaderElection("operator", namespace="default", identity=name),
            counters=LeaderCounters("operator"),
            clock=current_clock(),
            rng=random.Random(name),
            watchdog=Watchdog(current_clock()),
        )
        self.task = asyncio.create_task(self.elector.run())

    async def end(self, *, release: bool) -> None:
        self.ending = True
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, LeadershipLost):
            await self.task
        if release:
            await self.elector.release()
        else:
            await self.elector.abandon()

    async def replace_if_lost(self) -> None:
        if self.task.done() and not self.ending:
            await self.end(release=False)
            self.start()


async def play(story: list[tuple[float, int, str, float]]) -> None:
    loop = asyncio.get_running_loop()
    async with APIServer() as server:
        processes = [Process(server, number) for number in range(PROCESSES)]
        violations: list[tuple[float, list[int]]] = []

        async def look(seconds: float) -> None:
            end = loop.time() + seconds
            while loop.time() < end:
                leading = [process.number for process in processes if process.elector.leading]
                if len(leading) > 1:
                    violations.append((loop.time(), leading))
                for process in processes:
                    await process.replace_if_lost()
                await asyncio.sleep(STEP)

        for wait, number, what, lasting in story:
            await look(wait)
            if what in TROUBLE:
                fault = server.faults.add(user_agent=f"agent-{number}", times=None, **TROUBLE[what])
                loop.call_later(lasting, fault.remove)
            else:
                ending = asyncio.create_task(processes[number].end(release=what == "stop"))
                await look(1)
                await ending
                processes[number].start()
        await look(60)  # until all faults have ended
        server.faults.clear()
        await look(40)
        assert violations == []
        assert [process.number for process in processes if process.elector.leading] != []
        for process in processes:
            await process.end(release=False)


@settings(deadline=None, max_examples=examples(15))
@given(events)
def test_no_two_processes_lead_at_the_same_time(story: list[tuple[float, int, str, float]]) -> None:
    with virtual_time():
        asyncio.run(play(story))
