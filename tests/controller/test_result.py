"""`Result`: what a reconcile may return."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from reconciler.controller import Result
from tests.controller.conftest import KeyReconciler, Widget, quiet


@pytest.mark.parametrize("after", [0, 0.0, -1, math.nan, math.inf, -math.inf, "0s"])
def test_requeue_after_must_be_a_finite_number_above_zero(after):
    with pytest.raises(ValueError, match="again=True"):
        Result(requeue_after=after)


def test_requeue_after_must_be_a_duration():
    with pytest.raises(ValueError, match="requeue_after: '5' is not a valid duration"):
        Result(requeue_after="5")


def test_again_and_requeue_after_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        Result(again=True, requeue_after=1)


def test_result_is_a_value():
    assert Result(requeue_after=5) == Result(requeue_after=5)
    assert Result() != Result(again=True)
    with pytest.raises(AttributeError):
        Result().again = True


@pytest.mark.parametrize(
    ("outcomes", "merged"),
    [
        ([], None),
        ([None, None], None),
        ([Result(requeue_after=30), None, Result(requeue_after=5)], Result(requeue_after=5)),
        ([Result(requeue_after=5), Result(again=True)], Result(again=True)),
        ([Result(priority=3), Result(requeue_after=5, priority=1)], Result(requeue_after=5, priority=3)),
        ([Result()], Result()),
    ],
)
def test_merge_keeps_the_most_urgent_outcome(outcomes, merged):
    assert Result.merge(*outcomes) == merged


@pytest.mark.parametrize("priority", ["high", 1.5, math.nan])
def test_a_priority_must_be_an_integer(priority):
    with pytest.raises(TypeError, match="priority must be an integer, not"):
        Result(priority=priority)


@pytest.mark.virtual_time
async def test_a_delay_may_be_any_kind_of_number(world):
    async def wait(reconciler, request):
        return Result(requeue_after=Decimal(5)) if len(reconciler.runs) == 1 else None

    await world.widget()
    reconciler = KeyReconciler(wait)
    await world.start(reconciler, resource=Widget)
    await quiet(10)
    assert reconciler.times == [0, 5]
