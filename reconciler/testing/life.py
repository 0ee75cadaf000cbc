"""The life of a program inside the test's process, which ends as if the process were killed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar
from unittest import mock

from reconciler.errors import NotSent
from reconciler.http import HTTPRequest, HTTPResponse, Transport

T = TypeVar("T")

_MAX_AWAITS = 1000
"""How many awaits in its ``finally`` blocks a coroutine may have, until it is left alone."""
_current: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


class Life:
    """One life of a program, such as an operator, which a test can end at any moment, as SIGKILL does.

    After `end`, nothing of the program runs: no ``finally``, no cancellation, no flush. A crash is therefore not a
    cancellation. Requests that the program has sent still reach the server. ::

        with Life() as life:
            async with Client(life.connect(server)) as client:
                life.start(operator(client))
                await asyncio.sleep(60)
                life.end()

    Two things continue: the code that calls `end`, if it is part of the program, until its next ``await``; and threads,
    which cannot be stopped: a plain ``def`` reconcile ends at its next `Reconciler.wait`. Leaving the block closes the
    program's coroutines, so that nothing leaks.

    Attributes:
        ended: whether it is over.
        stops: called when it ends; they tell its threads to end.
        exited: called when the program raises SystemExit or KeyboardInterrupt, or stops the event loop; it returns
            whether that ends the program alone. Default None: the event loop raises it, or stops.
    """

    def __init__(self) -> None:
        self.ended = False
        self.exited: Callable[[BaseException], bool] | None = None
        self._loop = _knows_lives(asyncio.get_running_loop())
        self._outside = contextvars.copy_context()
        self._context = contextvars.copy_context()
        self._context.run(_current.set, self)
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], None] = weakref.WeakKeyDictionary()
        self._kept: dict[asyncio.Task[Any], None] = {}
        self._parked: list[object] = []
        self.stops: dict[Callable[[], None], None] = {}
        self._streams: weakref.WeakKeyDictionary[AsyncIterator[bytes], None] = weakref.WeakKeyDictionary()

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Run a coroutine as a part of the program. Its task never ends if the life ends first: do not await it then.

        All that it starts is a part of the program, too.
        """
        task: asyncio.Task[T] = self._loop.create_task(coroutine, name=name, context=self._context.copy())
        return task

    def connect(self, server: Transport) -> Transport:
        """Return a connection of the program to a server, such as an `APIServer`, for its client.

        The server handles a request to its end, although the life ends; watches are closed then. Requests of its
        ``finally`` blocks raise `NotSent`.
        """
        return _LifeConnection(self, server)

    def end(self) -> None:
        """End the life; does nothing if it has ended."""
        if self.ended:
            return
        self.ended = True
        self._kept.update(self._tasks)
        for handle in (*self._loop._ready, *self._loop._scheduled):
            if not handle.cancelled() and handle._context.get(_current) is self:
                self.park(handle)
        for stop in self.stops:
            self._context.run(stop)
        for stream in list(self._streams):
            self.outside(_close_stream(stream))

    def close(self) -> None:
        """End the life and close its coroutines; call it when the test has looked at everything.

        Their ``finally`` blocks run now; each ``await`` in them raises GeneratorExit.
        """
        self.end()
        while self._kept:
            task, _ = self._kept.popitem()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            asyncio._unregister_task(task)  # a loop that is closed waits for the tasks that it knows
            self._context.run(_close, task.get_coro())
        # An async generator is not closed with the coroutine that awaits it, and complains when it is deleted.
        with mock.patch.object(sys, "unraisablehook"):
            self._parked.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # for the event loop, the clock and connections

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Register a task of the program."""
        (self._kept if self.ended else self._tasks)[task] = None

    def park(self, handle: Any) -> None:
        """Do not call a callback, but keep it: destroying what it refers to would run ``finally`` blocks."""
        self._parked.append((handle._callback, handle._args))
        handle.cancel()  # it stays in the loop's queue, which may be being read

    def outside(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine that is not a part of the program."""
        task: asyncio.Task[T] = self._loop.create_task(coroutine, context=self._outside.copy())
        return task

    def keep_stream(self, stream: AsyncIterator[bytes]) -> None:
        """Close a stream when the life ends."""
        self._streams[stream] = None


@contextlib.contextmanager
def stopped_with_life(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` if the current life, if any, ends inside the block."""
    life = _current.get()
    if life is None:
        yield
        return
    life.stops[stop] = None
    try:
        yield
    finally:
        life.stops.pop(stop, None)


class _LifeConnection:
    def __init__(self, life: Life, server: Transport) -> None:
        self._life = life
        self._server = server

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if self._life.ended:  # a ``finally`` block, when the coroutines are closed
            raise NotSent("the program's life has ended")
        return await self._life.outside(self._answer(request))

    async def _answer(self, request: HTTPRequest) -> HTTPResponse:
        response = await self._server.send(request)
        if response.chunks is not None:
            self._life.keep_stream(response.chunks)
            if self._life.ended:
                await _close_stream(response.chunks)
        return response


def _close(coroutine: Any) -> None:
    for _ in range(_MAX_AWAITS):
        try:
            coroutine.close()
        except RuntimeError:  # it has awaited something
            continue
        except Exception:  # noqa: BLE001 - the program is over, so nobody wants to know
            return
        return


async def _close_stream(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _knows_lives(loop: asyncio.AbstractEventLoop) -> Any:
    """Let a loop keep the callbacks of lives that have ended, instead of calling them."""
    if hasattr(loop, "knows_lives"):
        return loop

    base: Any = type(loop)

    class LivesLoop(base):  # type: ignore[misc]  # mypy does not support run-time base classes
        knows_lives = True

        def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
            task: asyncio.Task[Any] = super().create_task(coro, **options)
            context = options.get("context")
            life = _current.get() if context is None else context.get(_current)
            if life is not None:
                life.adopt(task)
            return task

        def stop(self) -> None:
            life = _current.get()
            stopped = RuntimeError("it stopped the event loop")
            if life is None or life.exited is None or not life.exited(stopped):
                super().stop()

        def _call_soon(self, *args: Any) -> Any:
            return _unless_ended(super()._call_soon(*args))

        def call_at(self, *args: Any, **options: Any) -> Any:
            return _unless_ended(super().call_at(*args, **options))

    loop.__class__ = LivesLoop
    return loop


def _unless_ended(handle: Any) -> Any:
    life = handle._context.get(_current)
    if life is None:
        return handle
    if life.ended:
        life.park(handle)
    else:
        handle._callback = functools.partial(_call, life, handle._callback)
    return handle


def _call(life: Life, callback: Callable[..., object], *args: object) -> None:
    """Call a callback of a life; what ends a process ends its program, and not the event loop that it shares."""
    try:
        callback(*args)
    except (SystemExit, KeyboardInterrupt) as error:
        if life.exited is None or not life.exited(error):
            raise
