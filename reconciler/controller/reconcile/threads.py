"""Run plain functions in threads such that the loop can end them and knows when they have ended.

A thread cannot be killed. When its time is up it is told so at its next `ThreadBridge.wait`, and who waits for it goes
on waiting until it has really ended: a key that a thread still works on is in hand. Only the end of the process does
not wait: the threads are daemons, and `ReconcileThreads.abandon` ends the waiting.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from reconciler.controller.errors import ControllerError, ReconcileCancelled

__all__ = ["ReconcileThreads", "ThreadBridge", "discard"]

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


class ReconcileThreads:
    """The threads of one controller, made when they are needed and used again.

    They are daemons, unlike those of `concurrent.futures`, which Python joins when the process ends: a thread that
    hangs would keep the process forever. For one event loop.

    Args:
        number: how many there may be.
        name: the beginning of their names.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], Callable[[], None]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._waited_for: set[asyncio.Future[Any]] = set()

    async def run(self, bridge: ThreadBridge | None, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread with the caller's context variables, and return its result.

        Cancellation tells the thread to stop and is raised only when the thread has ended, however long that takes, or
        is abandoned.

        Raises:
            RuntimeError: the function raised StopIteration, which Python cannot hand to an awaiting coroutine.
        """
        context = contextvars.copy_context()
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._submit(lambda: _called(result, lambda: context.run(function, *args)))
        future = asyncio.wrap_future(result)
        self._waited_for.add(future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if bridge is not None:
                bridge.stop()
            await _ended(future)
            raise
        finally:
            self._waited_for.discard(future)

    def abandon(self) -> bool:
        """End the waiting for threads that have not ended; return whether there are any."""
        cancelled = [future.cancel() for future in list(self._waited_for)]
        return any(cancelled)

    def close(self) -> None:
        """Let the idle threads go, and wait for that; those that are busy go when their call has ended."""
        idle = 0
        while self._idle.acquire(blocking=False):
            idle += 1
        for _ in self._threads:
            self._calls.put(None)
        if idle == len(self._threads):
            for thread in self._threads:
                thread.join()
        self._threads = []

    def _submit(self, call: Callable[[], Callable[[], None]]) -> None:
        self._calls.put(call)
        if self._idle.acquire(blocking=False) or len(self._threads) == self._number:
            return
        thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            settle = call()
            self._idle.release()  # first, so that the receiver of the result finds the thread idle
            settle()
            del call, settle  # they refer to the reconcile's context


def _called(result: concurrent.futures.Future[T], call: Callable[[], T]) -> Callable[[], None]:
    """Call a function, and return what hands its outcome to those who wait for the result."""
    settle: Callable[[], None]
    try:
        try:
            value = call()
        except StopIteration as error:  # a future refuses it, and its waiter would wait forever
            raise RuntimeError("the reconcile raised StopIteration") from error
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
        settle = functools.partial(result.set_exception, error)
    else:
        settle = functools.partial(result.set_result, value)
    return lambda: settle() if result.set_running_or_notify_cancel() else None


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
