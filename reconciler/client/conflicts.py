"""Read and write again when another writer came in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reconciler.backoff import Backoff
from reconciler.errors import Conflict

__all__ = ["retry_on_conflict"]

T = TypeVar("T")

_BACKOFF = Backoff(base=0.01, factor=1.0, jitter=0.1)
"""Delays between attempts; 10 ms, factor 1, jitter 0.1 and five attempts are client-go's ``retry.DefaultRetry``."""


async def retry_on_conflict(
    attempt: Callable[[], Awaitable[T]], *, attempts: int = 5, backoff: Backoff = _BACKOFF
) -> T:
    """Do something until it meets no conflict; return what it returns.

    For code outside of a reconciler. Inside, let `Conflict` go: the next reconcile reads again, and loses nothing.
    Cancellation goes to the attempt, or ends the wait between two.

    Args:
        attempt: reads the object *each time*, from the server, changes it and writes it.
        attempts: how often at most; 5 by default.
        backoff: delays between attempts; 10 ms, spread by 10 %, by default.

    Raises:
        Conflict: the last one, after all attempts. What else an attempt raises ends it at once.
        ValueError: fewer than one attempt.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be 1 or more, not {attempts!r}")
    for number in range(attempts - 1):
        try:
            return await attempt()
        except Conflict:
            await asyncio.sleep(backoff.delay(number))
    return await attempt()
