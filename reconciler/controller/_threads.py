"""Run plain functions in threads such that the loop can end them and knows when they have ended.

A thread cannot be killed. When its time is up it is told so at its next `ThreadBridge.wait`, and who waits for it goes
on waiting until it has really ended: a key that a thread still works on is in hand.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from reconciler.controller._errors import ControllerError, ReconcileCancelled

__all__ = ["ThreadBridge", "discard", "run_in_thread"]

T = TypeVar("T")


class ThreadBridge:
    """Let the threads of one reconcile wait for awaitables on the loop, until they are told to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waits: set[concurrent.futures.Future[Any]] = set()
        self._stopped = False

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the loop, from a thread, and return its result.

        Raises:
            ControllerError: called on the loop itself, which would wait for itself for ever.
            ReconcileCancelled: the reconcile is to stop.
        """
        if _running_loop() is self._loop:
            discard(awaitable)
            raise ControllerError("wait() is for plain `def` reconciles, which run in a thread; here, write await")
        with self._lock:
            if self._stopped:
                discard(awaitable)
                raise ReconcileCancelled("the reconcile is to stop: its time is up, or the controller stops")
            # A coroutine is not wrapped: a task that is cancelled before its first step ends what it holds, and a
            # coroutine inside that one would never have been awaited.
            coroutine: Coroutine[Any, Any, T] = awaitable if inspect.iscoroutine(awaitable) else _coroutine(awaitable)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waits.add(future)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if not self._stopped:
                raise
            raise ReconcileCancelled("the reconcile is to stop: its time is up, or the controller stops") from None
        finally:
            with self._lock:
                self._waits.discard(future)

    def stop(self) -> None:
        """Make every `wait`, those under way included, raise `ReconcileCancelled`."""
        with self._lock:
            self._stopped = True
            waits = list(self._waits)
        for future in waits:
            future.cancel()


async def run_in_thread(
    executor: concurrent.futures.Executor, bridge: ThreadBridge | None, function: Callable[..., T], *args: Any
) -> T:
    """Call a function in a thread with the caller's context variables, and return its result.

    Cancellation tells the thread to stop and is raised only when the thread has ended, however long that takes.
    """
    context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(executor, lambda: context.run(function, *args))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if bridge is not None:
            bridge.stop()
        await _ended(future)
        raise


async def _ended(future: asyncio.Future[Any]) -> None:
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):  # the caller is being cancelled already; once more is no news
            await asyncio.wait({future})
    if not future.cancelled():
        future.exception()  # retrieved, so that asyncio does not report it: a cancelled run has no outcome


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


def discard(awaitable: Awaitable[Any]) -> None:
    """Drop an awaitable that will not be awaited, without Python's warning of that."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
