"""Rate limiters of users that raise or return nonsense: the controller goes on, and every key is retried."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

from reconciler.controller import Outcome, Result
from reconciler.errors import ConfigurationError
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff, MaxOf, RateLimiter, WithMaxWait, WorkQueue
from tests.controller.conftest import KeyReconciler, Widget, World, quiet

pytestmark = pytest.mark.virtual_time

KEY = Request("w", "ns")


class Raises:
    """A rate limiter whose every method fails."""

    def when(self, key, /):
        raise ZeroDivisionError("no division")

    def forget(self, key, /):
        raise KeyError(key)

    def retries(self, key, /):
        raise asyncio.CancelledError


class Returns(ExponentialBackoff):
    """A rate limiter with a mistake in its formula."""

    def __init__(self, delay: object) -> None:
        super().__init__(1, 10)
        self.delay = delay

    def when(self, key, /):
        super().when(key)
        return self.delay


def failing(times: int):
    attempts: list[int] = []

    async def body(reconciler, request) -> Outcome:
        attempts.append(reconciler.run.attempt)
        if len(attempts) <= times:
            raise RuntimeError("not yet")
        return None

    return body, attempts


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "reconciler.workqueue" and record.levelno >= logging.ERROR
    ]


async def test_limiter_that_raises_is_reported_once_per_method_and_its_keys_have_the_default_backoff(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    body, attempts = failing(4)
    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget, rate_limiter=Raises())
    controller.enqueue(KEY)
    await quiet(5)
    gaps = [round(later - earlier, 3) for earlier, later in zip(reconciler.times, reconciler.times[1:], strict=False)]
    assert gaps == [0.005, 0.01, 0.02, 0.04]
    assert attempts == [0, 1, 2, 3, 4]
    assert errors(caplog) == [
        f"rate limiter Raises: {method} failed on ns/w, which has the default backoff instead: {error}"
        for method, error in [
            ("when", "ZeroDivisionError: no division"),
            ("retries", "CancelledError"),
            ("forget", "KeyError: Request(name='w', namespace='ns')"),
        ]
    ]
    await world.widget("other")  # the controller still works
    await quiet()
    assert reconciler.keys[-1] == "ns/other"
    assert controller.explain(KEY).failures == 0


@pytest.mark.parametrize("delay", [math.nan, math.inf, -1, None, "5", 10**400, object()])
async def test_delay_that_is_no_number_of_seconds_is_reported(
    world: World, caplog: pytest.LogCaptureFixture, delay: object
) -> None:
    body, attempts = failing(2)
    reconciler = KeyReconciler(body)
    limiter = Returns(delay)
    controller = await world.start(reconciler, resource=Widget, rate_limiter=limiter)
    controller.enqueue(KEY)
    await quiet(5)
    assert attempts == [0, 1, 2]
    [text] = errors(caplog)
    assert text.startswith(
        "rate limiter Returns: when failed on ns/w, which has the default backoff instead: ValueError: "
    )
    assert text.endswith("is not a finite number of seconds, 0 or more")


async def test_steps_of_again_go_on(world: World) -> None:
    async def body(reconciler, request) -> Outcome:
        return Result(again=True) if len(reconciler.runs) < 4 else None

    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget, rate_limiter=Raises())
    controller.enqueue(KEY)
    await quiet(5)
    assert len(reconciler.runs) == 4


@pytest.mark.parametrize("combined", [MaxOf(Raises(), ExponentialBackoff(1, 10)), WithMaxWait(Raises(), 10)])
async def test_limiter_inside_another_is_named(combined: RateLimiter, caplog: pytest.LogCaptureFixture) -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=combined)
    queue.add_rate_limited("a")
    assert await asyncio.wait_for(queue.get(), 5) == "a"
    assert errors(caplog)[0].startswith("rate limiter Raises: when failed on a")


async def _when(key: object) -> float:
    return 1.0


@pytest.mark.parametrize("given", [5, ExponentialBackoff, object()])
def test_what_is_no_rate_limiter_is_refused_when_the_controller_is_created(given: object) -> None:
    with pytest.raises(TypeError, match="is not a rate limiter: pass an instance of a class with the plain methods"):
        WorkQueue(rate_limiter=given)  # type: ignore[arg-type]


async def test_coroutine_functions_are_refused(world: World) -> None:
    limiter = Raises()
    limiter.when = _when  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigurationError, match=r"controller 'widget': rate_limiter: .* is not a rate limiter"):
        world.controller(KeyReconciler(), resource=Widget, rate_limiter=limiter)
