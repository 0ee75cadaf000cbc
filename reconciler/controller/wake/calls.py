"""Calls of user code that the controller waits for, but not for longer than it must."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from reconciler.controller.errors import ControllerError

__all__ = ["bounded", "is_cancelled"]

T = TypeVar("T")


async def bounded(awaitable: Awaitable[T], seconds: float) -> T:
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
        raise ControllerError("it was cancelled, and not by the controller: it awaited what was")
    return call.result()


def is_cancelled() -> bool:
    """Return whether the current task was cancelled; False for a CancelledError that the code in it raised itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
