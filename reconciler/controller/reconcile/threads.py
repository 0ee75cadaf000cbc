"""Threads for plain `def` reconciles, which the event loop can stop and wait for.

A thread cannot be killed. It is told to stop at its next `ThreadBridge.wait`, and its key stays in progress until it
has really ended. Only the end of the process does not wait: the threads are daemons, and `ReconcileThreads.abandon`
ends the waiting.
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
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sized
from typing import Any, TypeAlias, TypeVar

from reconciler.clock import held_while
from reconciler.controller.result import ControllerError, ReconcileCancelled
from reconciler.controller.wake.watches import awaited, discard

T = TypeVar("T")

_Calls: TypeAlias = "queue.SimpleQueue[Callable[[], Callable[[], None]] | None]"
_MUST_STOP = "the reconcile must stop: its timeout expired, or the controller stops"


class ThreadBridge:
    """A bridge on which the threads of one reconcile wait for awaitables of the event loop, until they must stop.

    Attributes:
        thread: the one that calls the reconciler now; None for none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.thread: int | None = None
        self._loop = loop
        self._lock = threading.Lock()
        self._waits: set[concurrent.futures.Future[Any]] = set()
        self._stopped = False

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the loop, from a thread, and return its result.

        Raises:
            ControllerError: called on the loop itself, which would be a deadlock.
            ReconcileCancelled: the reconcile must stop.
        """
        if _running_loop() is self._loop:
            discard(awaitable)
            raise ControllerError("wait() is for plain `def` reconciles, which run in a thread; use await here")
        with self._lock:
            if self._stopped:
                discard(awaitable)
                raise ReconcileCancelled(_MUST_STOP)
            # A coroutine is not wrapped: a task that is cancelled before its first step closes its coroutine, and a
            # coroutine inside that one would never be awaited.
            coroutine: Coroutine[Any, Any, T] = awaitable if inspect.iscoroutine(awaitable) else awaited(awaitable)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waits.add(future)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if not self._stopped:
                raise
            raise ReconcileCancelled(_MUST_STOP) from None
        finally:
            with self._lock:
                self._waits.discard(future)

    def waits(self) -> bool:
        """Return whether a thread of the reconcile waits for the loop; if none does, it works."""
        with self._lock:  # a wait that is being registered has already woken the loop
            return any(not future.done() for future in self._waits)

    def stop(self) -> None:
        """Make every `wait`, including those in progress, raise `ReconcileCancelled`."""
        with self._lock:
            self._stopped = True
            waits = list(self._waits)
        for future in waits:
            future.cancel()


class ReconcileThreads:
    """The threads of one controller, started on demand and reused. They end with `close`, or with this object.

    They are daemons, unlike those of `concurrent.futures`, which Python joins when the process ends: a thread that
    hangs would keep the process alive forever. For one event loop.

    Args:
        number: the highest number of threads.
        name: the prefix of their names.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self._name = name
        self._calls: _Calls = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _end_all, self._threads, self._calls).atexit = False
        self._waited_for: set[asyncio.Future[Any]] = set()

    async def run(self, bridge: ThreadBridge | None, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread with the caller's context variables, and return its result.

        Cancellation tells the thread to stop and is raised only when the thread has ended, however long that takes, or
        is abandoned.

        Raises:
            RuntimeError: the function raised StopIteration, which Python cannot pass to an awaiting coroutine.
        """
        context = contextvars.copy_context()
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> T:
            if bridge is not None:
                bridge.thread = threading.get_ident()
            try:
                return context.run(function, *args)
            finally:
                if bridge is not None:
                    bridge.thread = None

        self._submit(lambda: _called(result, call))
        future = asyncio.wrap_future(result)
        self._waited_for.add(future)
        try:
            with held_while(
                lambda: not result.done() and (bridge is None or not bridge.waits()),
                lambda: None if bridge is None else bridge.stop(),
            ):
                return await asyncio.shield(future)
        except asyncio.CancelledError:
            if bridge is not None:
                bridge.stop()
            await _ended(future)
            raise
        finally:
            self._waited_for.discard(future)
            if not future.cancel() and not future.cancelled():  # it is not done if the coroutine is closed
                future.exception()  # retrieved, so that asyncio does not report it: the reconcile may have no outcome

    def abandon(self) -> bool:
        """Stop waiting for threads that have not ended; return whether there are any."""
        cancelled = [future.cancel() for future in list(self._waited_for)]
        return any(cancelled)

    def close(self) -> None:
        """End the idle threads and wait for that; busy ones end after their call."""
        idle = 0
        while self._idle.acquire(blocking=False):
            idle += 1
        _end_all(self._threads, self._calls)
        if idle == len(self._threads):
            for thread in self._threads:
                thread.join()
        self._threads.clear()

    def _submit(self, call: Callable[[], Callable[[], None]]) -> None:
        self._calls.put(call)
        if self._idle.acquire(blocking=False) or len(self._threads) == self._number:
            return
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=_work, args=(self._calls, self._idle), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _work(calls: _Calls, idle: threading.Semaphore) -> None:
    while (call := calls.get()) is not None:
        settle = call()
        idle.release()  # first, so that the thread is idle when the result arrives
        settle()
        del call, settle  # they refer to the reconcile's context


def _end_all(threads: Sized, calls: _Calls) -> None:
    for _ in range(len(threads)):
        calls.put(None)


def _called(result: concurrent.futures.Future[T], call: Callable[[], T]) -> Callable[[], None]:
    """Call a function, and return a function that passes its outcome to the future."""
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
        with contextlib.suppress(asyncio.CancelledError):  # the caller is being cancelled already
            await asyncio.wait({future})


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
