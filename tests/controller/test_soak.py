"""A controller under every disturbance at once: it must come to rest in the right state, and stay there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.controller import Result
from reconciler.errors import APIError
from reconciler.testing import virtual_time
from tests.controller.conftest import Widget, WidgetReconciler, World
from tests.depth import examples

NAMES = ("a", "b", "c")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["create", "resize", "label", "foreign status", "delete", "cut", "compact", "fault", "enqueue", "wait"]
        ),
        st.sampled_from(NAMES),
        st.integers(0, 5),
    ),
    min_size=5,
    max_size=40,
)
FAULTS = (
    {"verb": "patch", "status": 409, "times": 2},
    {"verb": "patch", "after_commit": True, "lost": True},
    {"verb": "patch", "lost": True},
    {"verb": "patch", "status": 503, "times": 3},
    {"verb": "watch", "status": 500, "times": 2},
    {"verb": "patch", "status": 429, "retry_after": 1},
)


class Disturbed(WidgetReconciler):
    """A reconciler that takes time and sometimes fails, patches the object or requeues it; `finalize` too."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(self.step)
        self.rng = rng

    async def step(self, _, obj, status):
        await asyncio.sleep(self.rng.choice([0, 0, 0.01, 0.5]))
        chance = self.rng.random()
        if chance < 0.1:
            raise RuntimeError("no")
        if chance < 0.15:
            return Result(again=True)
        if chance < 0.2 and obj.spec.size < 100:
            await self.client.patch(Widget, obj.name, "ns", patch={"spec": {"size": obj.spec.size + 100}})
        return None

    async def finalize(self, obj, status):
        if self.rng.random() < 0.3:
            raise RuntimeError("no")


async def disturb(world: World, controller, action: str, name: str, number: int) -> None:
    match action:
        case "create":
            await world.widget(name, size=number)
        case "resize":
            await world.resize(number, name)
        case "label":
            await world.foreign.patch(Widget, name, "ns", patch={"metadata": {"labels": {"n": str(number)}}})
        case "foreign status":
            patch = {"status": {"foreign": str(number)}}
            await world.foreign.patch(Widget, name, "ns", patch=patch, subresource="status")
        case "delete":
            await world.foreign.delete(Widget, name, "ns")
        case "cut":
            world.server.cut_watches("widgets")
        case "compact":
            world.server.compact()
        case "fault":
            world.server.faults.add(user_agent="controller", **FAULTS[number])
        case "enqueue":
            controller.enqueue((await world.read(name)).key)
        case "wait":
            await asyncio.sleep(number / 5)


async def live(steps, order: str, seed: int, workers: int, debounce: float | None) -> None:
    async with APIServer(event_order=order, seed=seed) as server:
        await server.apply(Widget)
        await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
        world = World(server)
        reconciler = Disturbed(random.Random(seed))
        controller = await world.start(reconciler, workers=workers, debounce=debounce)
        for action, name, number in steps:
            with contextlib.suppress(APIError):  # the object is missing or already exists
                await disturb(world, controller, action, name, number)
        server.faults.clear()
        await asyncio.sleep(4000)

        stored = await world.foreign.list(Widget, "ns")
        for obj in stored:
            assert obj.status.seen_size == obj.spec.size, f"a change of {obj.name} is lost"
            assert obj.status.observed_generation == obj.generation
            assert obj.metadata.deletion_timestamp is None
        statistics = controller.statistics()
        assert statistics.queue.ready == statistics.queue.waiting == statistics.queue.in_progress == 0
        assert statistics.echo.known == len(stored)
        assert statistics.echo.in_progress == statistics.unsaved.kept == statistics.unsaved.blocked == 0

        requests = len(server.requests(user_agent="controller", verb={"patch", "update"}))
        await asyncio.sleep(4000)
        assert controller.statistics().reconciles == statistics.reconciles, "it does not stay at rest"
        assert len(server.requests(user_agent="controller", verb={"patch", "update"})) == requests
        await world.stop()


@settings(deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow])
@given(
    STEPS,
    st.sampled_from(["before", "after", "late", "seeded"]),
    st.integers(0, 1000),
    st.integers(1, 3),
    st.sampled_from([None, 0.2, 5]),
)
def test_disturbed_controller_comes_to_rest_in_the_right_state(steps, order, seed, workers, debounce):
    logging.disable(logging.CRITICAL)
    try:
        with virtual_time():
            asyncio.run(live(steps, order, seed, workers, debounce))
    finally:
        logging.disable(logging.NOTSET)
