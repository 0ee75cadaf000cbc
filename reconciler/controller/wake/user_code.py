"""Calls of user code: time limits, cancellation, awaitables that are not awaited."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable
from typing import Any, TypeVar

from reconciler.controller.errors import ControllerError
from reconciler.errors import ConfigurationError

__all__ = ["check_seconds", "discard", "wait_at_most"]

T = TypeVar("T")


async def wait_at_most(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await user code in a task of its own, for a limited time, and return its result.

    Cancellation cancels the user code and is raised when that has ended.

    Raises:
        ControllerError: it did not end in time, or was cancelled by someone other than the caller.
        BaseException: what it raised.
    """
    call = asyncio.ensure_future(_awaited(awaitable))
    try:
        done, _ = await asyncio.wait({call}, timeout=seconds)
    finally:
        if not call.done():
            call.cancel()
            await asyncio.wait({call})
        error = None if call.cancelled() else call.exception()
    if not done:
        raise ControllerError(f"it did not end within {seconds:g} s") from error
    if call.cancelled():
        raise ControllerError("it was cancelled, but not by the controller: something that it awaited was cancelled")
    return call.result()


def discard(awaitable: Awaitable[Any]) -> None:
    """Drop an awaitable that will not be awaited, without Python's warning about it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def check_seconds(name: str, seconds: object) -> None:
    """Check a time limit or another number of seconds.

    Args:
        name: what the error message begins with.
        seconds: the value.

    Raises:
        ConfigurationError: it is not a finite number above 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ConfigurationError(f"{name} must be a number of seconds above 0, not {seconds!r}")


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
