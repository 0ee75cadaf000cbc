"""The cost of a run of an exploration, in calls, so that some hundred of them stay a matter of seconds.

`python -m tests.benchmarks.test_explore_counts` prints the CPU time of 100 disturbed runs with ten writes, and of an
empty run.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable

import pytest

from reconciler import ObjectMeta
from reconciler.clock import process_time
from reconciler.testing.explore import Budget, World
from reconciler.testing.explore.exploration import Exploration
from reconciler.testing.explore.run import Run, Scenario, Subject, execute
from tests.explore.test_explore import Boat, BoatReconciler, BoatSpec


async def empty(world: World) -> None:
    """Do nothing."""
    await world.settle()


async def ten_writes(world: World) -> None:
    """Create three boats, change two, delete one: the operator writes ten times."""
    names = ("ida", "eva", "uma")
    boats = [
        await world.create(Boat(metadata=ObjectMeta(name=name, namespace="default"), spec=BoatSpec(length=7)))
        for name in names
    ]
    await world.settle()
    for boat in boats[:2]:
        await world.patch(boat, {"spec": {"length": 9}})
    await world.settle()
    await world.delete(boats[0])


def subject(scenario: Scenario) -> Subject:
    return Subject(BoatReconciler, scenario, {"owns": ["v1/ConfigMap"]})


def calls_of(run: Callable[[], Run]) -> tuple[int, int]:
    """Return the calls of a run that is not the first, and its writes."""
    run()
    profile = cProfile.Profile()
    profile.enable()
    done = run()
    profile.disable()
    return int(pstats.Stats(profile).total_calls), len(done.trace.writes())  # type: ignore[attr-defined]


@pytest.mark.parametrize(("scenario", "writes", "most"), [(empty, 0, 20_500), (ten_writes, 10, 73_000)])
def test_a_run_costs_few_calls(scenario: Scenario, writes: int, most: int) -> None:
    """Counted when this was set: 18,900 and 67,700."""
    calls, written = calls_of(lambda: execute(subject(scenario)))
    assert written == writes
    assert calls <= most


if __name__ == "__main__":
    execute(subject(empty))
    began = process_time()
    for _ in range(20):
        execute(subject(empty))
    print(f"an empty run: {(process_time() - began) / 20 * 1000:.1f} ms of CPU")  # noqa: T201
    explored = Exploration(subject(ten_writes), budget=Budget(seconds=None, runs=100)).explore()
    print(f"{explored.tried.total()} disturbed runs with ten writes: {explored.seconds:.1f} s of CPU")  # noqa: T201
