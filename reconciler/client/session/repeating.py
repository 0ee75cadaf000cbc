"""Repeat a request with tenacity; loaded when a first attempt has failed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_any
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from reconciler.client.session.retry import RetryPolicy

__all__ = ["repeat"]

T = TypeVar("T")

_logger = logging.getLogger("reconciler.client")


class _Wait(wait_base):
    """Wait as the policy says, with randomness that can be seeded."""

    def __init__(self, policy: RetryPolicy, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        return self._policy.delay(retry_state.attempt_number - 1, error, self._rng)


class _TooLate(stop_base):
    """Stop where the wait would be longer than the time that is left."""

    def __init__(self, left: Callable[[], float]) -> None:
        self._left = left

    def __call__(self, retry_state: RetryCallState) -> bool:
        return retry_state.upcoming_sleep > self._left()


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _logger.info("%s; attempt %d follows in %.2f s", error, state.attempt_number + 1, state.upcoming_sleep)


async def repeat(
    send: Callable[[], Awaitable[T]],
    failure: Exception,
    *,
    policy: RetryPolicy,
    may_repeat: Callable[[BaseException], bool],
    left: Callable[[], float],
    rng: random.Random,
) -> T:
    """Go on after a first attempt that failed with `failure`, until one succeeds or may not be repeated.

    A wait for longer than is `left`, in seconds, is not begun. Raises the failure of the last attempt. Cancellation
    stops between or inside attempts and repeats nothing.
    """
    first: list[Exception] = [failure]

    async def attempt() -> T:
        if first:
            raise first.pop()
        return await send()

    retrying = AsyncRetrying(
        sleep=asyncio.sleep,
        stop=stop_any(stop_after_attempt(policy.attempts), _TooLate(left)),
        wait=_Wait(policy, rng),
        retry=retry_if_exception(may_repeat),
        before_sleep=_log,
        reraise=True,
    )
    return await retrying(attempt)
