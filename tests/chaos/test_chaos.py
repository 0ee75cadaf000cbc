"""Whole operators on virtual time, under all disturbances at once, from a seed.

A few seeds run with the other tests; ``nox -s chaos -- --seeds 200 --first 1000`` plays more. A failure prints the
command that repeats it.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from reconciler.testing import virtual_time
from tests.chaos import judge
from tests.chaos.life import Life, living

FIRST = int(os.environ.get("CHAOS_FIRST", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("CHAOS_SEEDS", "6")))
STEPS = 60


async def live(seed: int) -> list[str]:
    """Run one life; return what was wrong with it."""
    tasks = len(asyncio.all_tasks())
    async with living(seed) as life:
        with life.server.faults.chaos(seed=seed, rate=0.06, latency=0.3, user_agent="operator"):
            for _ in range(STEPS):
                await life.step()
        await life.make_peace()
        await life.wake_terminal()
        wrong = [
            *judge.one_worker_a_key(life.record),
            *await judge.nothing_lost(life),
            *await judge.at_rest(life),
            *await judge.delays_kept(life),
            *judge.one_write_a_cycle(life),
            *judge.no_attempt_early(life),
            *await judge.counts_exact(life),
        ]
    wrong += judge.nothing_leaks(life, tasks)
    return [*wrong, *told(life)] if wrong else []


def told(life: Life) -> list[str]:
    return ["", f"replicas {life.replicas}, workers {life.workers}, debounce {life.debounce}", *life.happened]


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("no_logs")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_guarantees_hold_in_every_life(seed: int) -> None:
    with virtual_time():
        wrong = asyncio.run(live(seed))
    assert not wrong, "\n".join([*wrong, f"repeat it with: nox -s chaos -- --seeds 1 --first {seed}"])
