"""The thread of the HTTP servers, and calls from it into the event loop of the manager."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from reconciler.manager.event_loop import BlockedLoopWatchdog

__all__ = ["LoopBlocked", "LoopThread", "MainLoop"]

T = TypeVar("T")

_BLOCKED = 0.1
"""Seconds to wait for an event loop that is known to be blocked: it may have continued just now."""

_END = 1.0
"""Seconds for cancelled tasks to end."""

_ITERATIONS = 3
"""Iterations of the event loop in which an aborted connection is closed; two if it has TLS."""


class LoopBlocked(Exception):
    """The event loop of the manager did not run a call in time. The message says for how long and by what code."""


class MainLoop:
    """The event loop of the manager, as seen from the thread of the servers."""

    def __init__(self, watchdog: BlockedLoopWatchdog) -> None:
        self.watchdog = watchdog
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self) -> None:
        """Use the running event loop."""
        self._loop = asyncio.get_running_loop()

    async def run(self, function: Callable[[], Awaitable[T]], *, patience: float | None) -> T:
        """Run an async function in the event loop of the manager. Cancellation cancels it there.

        Args:
            function: the function.
            patience: seconds that it may wait for its start, not for its end; None for as long as it takes.

        Raises:
            LoopBlocked: it has not started in time, and will not.
        """
        begun = False

        async def call() -> T:
            nonlocal begun
            begun = True
            return await function()

        assert self._loop is not None  # noqa: S101 - attached before a server listens
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))
        try:
            if patience is not None:
                blocked = self.watchdog.block is not None
                await asyncio.wait({future}, timeout=min(patience, _BLOCKED) if blocked else patience)
            if patience is not None and not (future.done() or begun):
                raise LoopBlocked(str(self.watchdog.block or f"the event loop has not responded for {patience:g} s"))
            return await future
        finally:
            future.cancel()

    async def iterate(self, chunks: AsyncGenerator[T, None], *, seconds: float = math.inf) -> AsyncGenerator[T, None]:
        """Yield for so many seconds what a generator yields that runs in the event loop of the manager."""
        until = asyncio.get_running_loop().time() + seconds
        try:
            while (chunk := await self.run(lambda: anext(chunks, None), patience=None)) is not None:
                yield chunk
                if asyncio.get_running_loop().time() >= until:
                    break
        finally:
            await self.run(chunks.aclose, patience=None)


class LoopThread:
    """A daemon thread with an event loop of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._on_end: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread and return its result. Cancellation cancels it there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    async def stop(self) -> None:
        """Cancel what still runs in the thread, and end it. Cancellation leaves it to end by itself."""
        here, ended = asyncio.get_running_loop(), asyncio.Event()
        self._on_end = lambda: here.call_soon_threadsafe(ended.set)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await ended.wait()
        self._thread.join()  # it has nothing left to do

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()
            runner.run(_end_tasks())
        with contextlib.suppress(RuntimeError):  # the event loop that waited is closed
            self._on_end()


async def _end_tasks() -> None:
    """Cancel all tasks, such as TLS handshakes in progress, and let their sockets be closed."""
    await asyncio.sleep(0)  # a connection that was accepted just now has no task yet that would close it
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END)
    for _ in range(_ITERATIONS):
        await asyncio.sleep(0)
