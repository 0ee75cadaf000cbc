"""Retries after conflicts."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.client import retry_on_conflict
from reconciler.errors import AlreadyExists, Conflict, FieldManagerConflict

pytestmark = pytest.mark.virtual_time


class Attempts:
    def __init__(self, *outcomes: Exception | str) -> None:
        self.outcomes = list(outcomes)
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(asyncio.get_running_loop().time())
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def conflict(text: str = "changed") -> Conflict:
    return Conflict(text, status=409)


async def test_a_conflict_is_retried_after_a_short_wait() -> None:
    attempts = Attempts(conflict(), conflict(), "done")
    assert await retry_on_conflict(attempts) == "done"
    gaps = [later - earlier for earlier, later in zip(attempts.times, attempts.times[1:], strict=False)]
    assert all(0.009 <= gap <= 0.011 for gap in gaps)


async def test_after_five_attempts_the_last_conflict_is_raised() -> None:
    attempts = Attempts(*(conflict(str(number)) for number in range(9)))
    with pytest.raises(Conflict, match="4"):
        await retry_on_conflict(attempts)
    assert len(attempts.times) == 5


@pytest.mark.parametrize("error", [AlreadyExists, FieldManagerConflict])
async def test_other_errors_are_raised_at_once(error: type[AlreadyExists]) -> None:
    attempts = Attempts(error("no", status=409), "never")
    with pytest.raises(error):
        await retry_on_conflict(attempts)
    assert len(attempts.times) == 1


async def test_zero_attempts_are_refused() -> None:
    with pytest.raises(ValueError, match="attempts must be 1 or more"):
        await retry_on_conflict(Attempts(), attempts=0)
