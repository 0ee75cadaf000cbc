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
from reconciler.errors import NotFound
from reconciler.manager import LeaderElection, LeadershipLost
from reconciler.manager.election import Elector, Watchdog
from reconciler.telemetry.registry import LeaderCounters
from reconciler.testing import virtual_time
from tests.depth import examples

PROCESSES = 3
STEP = 0.5
LEASE_DURATION = 15

TROUBLE: dict[str, dict[str, Any]] = {
    "silence": {"stall": True},
    "refused": {"status": 503},
    "landed but failed": {"status": 500, "after_commit": True},
    "landed but lost": {"lost": True, "after_commit": True},
    "slow": {"latency": 4.0},
    "slow and lost": {"latency": 4.0, "lost": True, "after_commit": True},
    "conflicts": {"status": 409},
}

EDITS: dict[str, dict[str, Any] | None] = {
    "lease deleted": None,
    "duration removed": {"spec": {"leaseDurationSeconds": None}},
    "annotations removed": {"metadata": {"annotations": None}},
    "labeled": {"metadata": {"labels": {"touched": "yes"}}},
    "transitions removed": {"spec": {"leaseTransitions": None, "acquireTime": None}},
}
"""Changes of the lease by others; None deletes it."""

events = st.lists(
    st.tuples(
        st.floats(0.5, 25),  # seconds until the fault
        st.integers(0, PROCESSES - 1),
        st.sampled_from([*TROUBLE, *EDITS, "stop", "kill"]),
        st.floats(1, 30),  # duration of the fault in seconds
    ),
    max_size=8,
)


class Process:
    """A candidate that is replaced by a new process whenever it ends.

    Args:
        server: has the lease.
        number: of the candidate.
        identity: of all its processes. Default: each has its own.
    """

    def __init__(self, server: APIServer, number: int, identity: str | None = None) -> None:
        self.server = server
        self.number = number
        self.identity = identity
        self.incarnation = 0
        self.start()

    def start(self) -> None:
        self.incarnation += 1
        self.ending = False
        name = f"process-{self.number}-{self.incarnation}"
        self.elector = Elector(
            Client(self.server, user_agent=f"agent-{self.number}", retries=Retries(attempts=1)),
            LeaderElection("operator", namespace="default", identity=self.identity or name),
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


async def edit(client: Client, patch: dict[str, Any] | None) -> None:
    address = ("coordination.k8s.io/v1/Lease", "operator", "default")
    with contextlib.suppress(NotFound):
        await (client.delete(*address) if patch is None else client.patch(*address, patch=patch))


async def play(story: list[tuple[float, int, str, float]], identity: str | None) -> None:
    loop = asyncio.get_running_loop()
    async with APIServer() as server, Client(server) as others:
        processes = [Process(server, number, identity) for number in range(PROCESSES)]
        violations: list[tuple[float, list[int]]] = []

        async def look(seconds: float, *, replace: bool = True) -> None:
            end = loop.time() + seconds
            while loop.time() < end:
                leading = [process.number for process in processes if process.elector.leading]
                if len(leading) > 1:
                    violations.append((loop.time(), leading))
                for process in processes if replace else ():
                    await process.replace_if_lost()
                await asyncio.sleep(STEP)

        for wait, number, what, lasting in story:
            await look(wait)
            if what in TROUBLE:
                fault = server.faults.add(user_agent=f"agent-{number}", times=None, **TROUBLE[what])
                loop.call_later(lasting, fault.remove)
            elif what == "lease deleted":  # a process that has not seen it cannot know that there was one
                if all(process.elector.holder for process in processes):
                    await edit(others, None)
                    await look(LEASE_DURATION + 5, replace=False)
            elif what in EDITS:
                await edit(others, EDITS[what])
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
@given(events, st.sampled_from([None, "pod-0"]))
def test_no_two_processes_lead_at_the_same_time(
    story: list[tuple[float, int, str, float]], identity: str | None
) -> None:
    with virtual_time():
        asyncio.run(play(story, identity))
