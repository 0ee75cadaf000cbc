"""Repeat a request with tenacity; loaded when a first attempt has failed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_base

from reconciler.client._retry import RetryPolicy

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


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _logger.info("%s; attempt %d follows in %.2f s", error, state.attempt_number + 1, state.upcoming_sleep)


async def repeat(
    send: Callable[[], Awaitable[T]],
    failure: Exception,
    *,
    policy: RetryPolicy,
    may_repeat: Callable[[BaseException], bool],
    rng: random.Random,
) -> T:
    """Go on after a first attempt that failed with `failure`, until one succeeds or may not be repeated.

    Raises the failure of the last attempt. Cancellation stops between or inside attempts and repeats nothing.
    """
    first: list[Exception] = [failure]

    async def attempt() -> T:
        if first:
            raise first.pop()
        return await send()

    retrying = AsyncRetrying(
        sleep=asyncio.sleep,
        stop=stop_after_attempt(policy.attempts),
        wait=_Wait(policy, rng),
        retry=retry_if_exception(may_repeat),
        before_sleep=_log,
        reraise=True,
    )
    return await retrying(attempt)
