"""A reconcile that works in steps: with backoff, fair to other keys, and ended when the controller stops."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.clock import current_clock
from reconciler.controller import Outcome, Result
from reconciler.controller.reconcile.worker import AgainLimiter
from reconciler.errors import TerminalError
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff, MaxOf, TokenBucket
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


async def test_again_starts_no_further_step_when_the_controller_stops(world: World) -> None:
    async def step(reconciler, obj, status):
        await asyncio.sleep(1)
        status.increment("runs")
        return Result(again=True)

    reconciler = WidgetReconciler(step)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(4.5)
    before = current_clock().monotonic()
    await controller.stop(grace=30)
    assert current_clock().monotonic() - before == pytest.approx(0.535)  # the step in progress, and no other
    assert len(reconciler.runs) == 5
    assert (await world.read()).status.runs == 5


async def test_change_during_the_last_step_is_reconciled(world: World) -> None:
    async def step(reconciler, obj, status):
        await asyncio.sleep(1)
        return Result(again=True)

    reconciler = WidgetReconciler(step)
    controller = await world.start(reconciler)
    await world.widget(size=1)
    await quiet(0.5)
    await world.resize(2)
    await quiet(0.1)
    await controller.stop(grace=30)
    assert reconciler.sizes == [1, 2]


async def test_endless_steps_do_not_starve_other_keys(world: World) -> None:
    async def step(reconciler, obj, status):
        await asyncio.sleep(0.1)
        return Result(again=True)

    reconciler = WidgetReconciler(step)
    await world.start(reconciler)
    await world.widget("endless", size=1)
    await quiet(5)
    await world.widget("other", size=2)
    await quiet(0.25)
    assert 2 in reconciler.sizes


def steps(*outcomes: Exception | Outcome):
    """Return a body that ends each reconcile with one of these, and with None afterwards."""
    left = list(outcomes)

    async def body(reconciler, request):
        attempts.append(reconciler.run.attempt)
        outcome = left.pop(0) if left else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    attempts: list[int] = []
    return body, attempts


AGAIN = Result(again=True)
KEY = Request("w", "ns")


async def started(world: World, *outcomes: Exception | Outcome, **options):
    body, attempts = steps(*outcomes)
    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget, **options)
    controller.enqueue(KEY)
    return reconciler, controller, attempts


async def test_first_step_comes_at_once_and_further_ones_with_backoff(world: World) -> None:
    reconciler, controller, attempts = await started(world, *[AGAIN] * 5, rate_limiter=ExponentialBackoff(1, 1000))
    await quiet(60)
    assert reconciler.times == [0, 0, 1, 3, 7, 15]
    assert [reasons for *_, reasons in reconciler.runs[1:]] == [{"again"}] * 5
    assert attempts == [0] * 6
    assert controller.statistics().results == {"requeue": 5, "success": 1}


async def test_endless_steps_are_few(world: World) -> None:
    reconciler, *_ = await started(world, *[AGAIN] * 1000)
    await quiet(10)
    assert len(reconciler.runs) == 12


async def test_other_outcome_resets_the_backoff_of_steps(world: World) -> None:
    reconciler, *_ = await started(
        world, AGAIN, AGAIN, Result(requeue_after=10), AGAIN, AGAIN, rate_limiter=ExponentialBackoff(1, 1000)
    )
    await quiet(60)
    assert reconciler.times == [0, 0, 1, 11, 11, 12]


async def test_terminal_error_resets_the_backoff_of_steps(world: World) -> None:
    outcomes = [AGAIN, AGAIN, AGAIN, TerminalError("no"), AGAIN, AGAIN]
    reconciler, controller, _ = await started(world, *outcomes, rate_limiter=ExponentialBackoff(1, 1000))
    await quiet(3.5)
    controller.enqueue(KEY)
    await quiet(60)
    assert reconciler.times == [0, 0, 1, 3, 3.5, 3.5, 4.5]


async def test_steps_are_no_failures_and_failures_are_no_steps(world: World) -> None:
    no = RuntimeError("no")
    reconciler, controller, attempts = await started(
        world, AGAIN, AGAIN, AGAIN, no, no, AGAIN, AGAIN, rate_limiter=ExponentialBackoff(1, 1000)
    )
    await quiet(2)
    assert controller.queue.retries(KEY) == controller.queue.explain(KEY).failures == 0
    await quiet(60)
    #                   again  again   error    again
    assert reconciler.times == [0, 0, 1, 3, 4, 6, 6, 7]
    assert attempts == [0, 0, 0, 0, 1, 2, 0, 0]


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_key_that_alternates_between_steps_and_failures_is_reconciled_with_growing_backoff(
    world: World, steps: int
) -> None:
    no = RuntimeError("no")
    reconciler, controller, attempts = await started(world, *[*[AGAIN] * steps, no] * 1000)
    await quiet(10)
    assert len(reconciler.runs) < 30
    assert max(attempts) == 1  # each failure was followed by a step
    assert controller.queue.retries(KEY) <= 1


async def test_alternation_keeps_its_backoff_until_another_outcome(world: World) -> None:
    no = RuntimeError("no")
    outcomes = [AGAIN, no, AGAIN, no, AGAIN, no, no, None, no, AGAIN, AGAIN]
    reconciler, controller, attempts = await started(world, *outcomes, rate_limiter=ExponentialBackoff(1, 1000))
    await quiet(60)
    #                           no     no     no no
    assert reconciler.times == [0, 0, 1, 1, 2, 2, 4, 8]
    assert attempts == [0, 0, 1, 0, 1, 0, 1, 2]
    controller.enqueue(KEY)
    await quiet(60)
    assert [time - 60 for time in reconciler.times[8:]] == [0, 1, 1, 2]


async def test_limiter_remembers_no_key_that_is_forgotten() -> None:
    limiter = AgainLimiter()
    for key in range(100):
        limiter.again(key)
        limiter.when(key)
        limiter.again(key)
        limiter.forget(key)
        assert limiter.retries(key) == 0
    assert not limiter._again
    assert not limiter._mixed


async def test_event_during_the_backoff_is_reconciled_at_once(world: World) -> None:
    reconciler, *_ = await started(world, *[AGAIN] * 3, rate_limiter=ExponentialBackoff(10, 1000))
    await quiet(5)
    await world.widget()
    await quiet(60)
    assert reconciler.times == [0, 0, 5, 25]


async def test_key_that_is_pending_anyway_is_not_charged_to_what_keys_share() -> None:
    limiter = AgainLimiter(MaxOf(ExponentialBackoff(1, 1000), TokenBucket(0.01, 2)))
    assert [limiter.again("a"), limiter.again("a"), limiter.again("a", duplicate=True)] == [0, 1, 2]
    assert [limiter.again("b"), limiter.again("b"), limiter.again("b")] == [0, 1, 100]


async def test_deleted_object_starts_again(world: World) -> None:
    reconciler, *_ = await started(world, *[AGAIN] * 4, rate_limiter=ExponentialBackoff(10, 1000))
    await world.widget()
    await quiet(5)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(1)
    assert reconciler.times[-2:] == [5, 5]
