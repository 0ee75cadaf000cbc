"""Lifetimes of processes on a virtual loop: one process can end as by SIGKILL, while the loop goes on.

A lifetime is a context variable. When it ends, the loop no longer calls the callbacks of its context: no task goes on,
no ``finally`` block runs, no timer fires. What an operator awaits belongs to others, such as the server, and goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

_lifetime: contextvars.ContextVar[Lifetime | None] = contextvars.ContextVar("lifetime", default=None)


def current_lifetime() -> Lifetime | None:
    """Return the lifetime that the running code belongs to; None for code that outlives every process."""
    return _lifetime.get()


class Lifetime:
    """The tasks, callbacks and timers of one process on a virtual loop.

    Args:
        name: the name of the process, for messages.

    Attributes:
        name: as given.
        ended: whether the process has ended.
        frozen: whether the loop leaves out its callbacks: from its end to its release.
        context: the context of its code.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False
        self.frozen = False
        self.context = contextvars.copy_context()
        self.context.run(_lifetime.set, self)
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._parked: list[asyncio.Handle] = []

    def create_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of the process. What it starts in turn belongs to the process, too."""
        return asyncio.get_running_loop().create_task(work, name=self.name, context=self.context.copy())

    def end(self) -> None:
        """End the process at once: nothing of it runs again, until `release`. Harmless if it has ended.

        The code that calls it, if it belongs to the process, runs on to its next ``await`` that waits.
        """
        if not self.ended:
            self.ended = self.frozen = True
            loop = asyncio.get_running_loop()
            assert isinstance(loop, LifetimeLoop)  # noqa: S101 - see `LifetimeLoop`
            self._parked = loop.park(self)

    def park(self, handle: asyncio.Handle) -> None:
        """Keep a callback that the loop does not call."""
        self._parked.append(handle)

    async def release(self) -> None:
        """Cancel the tasks of an ended process, so that the loop can be closed. Its code runs on to clean up.

        Requests and effects of that code must be refused by what it calls; see `ended`.
        """
        if not self.frozen:
            return
        loop = asyncio.get_running_loop()
        assert isinstance(loop, LifetimeLoop)  # noqa: S101 - see `LifetimeLoop`
        loop.unpark(self, self._parked)
        for _ in range(_CANCELLATIONS):
            running = {task for task in self.tasks if not task.done()}
            if not running:
                break
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=1.0)


_CANCELLATIONS = 5
"""How often the tasks of an ended process are cancelled; some shield what they await once or twice."""


class LifetimeLoop(asyncio.BaseEventLoop):
    """A mixin of event loops that leaves out the callbacks of lifetimes that have ended."""

    _ready: Any
    _scheduled: list[asyncio.TimerHandle]
    _parking = 0

    def park(self, lifetime: Lifetime) -> list[asyncio.Handle]:
        """Leave out what belongs to a lifetime from now on; return its callbacks that were due."""
        self._parking += 1
        due = [handle for handle in self._ready if _context_of(handle).get(_lifetime) is lifetime]
        for handle in due:
            self._ready.remove(handle)
        for timer in self._scheduled:
            if _context_of(timer).get(_lifetime) is lifetime:
                timer.cancel()
        return due

    def unpark(self, lifetime: Lifetime, handles: list[asyncio.Handle]) -> None:
        """Call what was left out, now."""
        lifetime.frozen, self._parking = False, self._parking - 1
        self._ready.extend(handle for handle in handles if not handle.cancelled())

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call a callback in the next iteration, unless its lifetime has ended."""
        if self._parking and (lifetime := _owner(context)) is not None and lifetime.frozen:
            handle = asyncio.Handle(callback, args, self, context)
            lifetime.park(handle)
            return handle
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call a callback from a thread, unless its lifetime has ended."""
        if self._parking and (lifetime := _owner(context)) is not None and lifetime.frozen:
            handle = asyncio.Handle(callback, args, self, context)
            lifetime.park(handle)
            return handle
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call a callback at a time, unless its lifetime has ended by then."""
        timer = super().call_at(when, callback, *args, context=context)
        if self._parking and (lifetime := _owner(context)) is not None and lifetime.frozen:
            timer.cancel()
        return timer

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Create a task, and remember it in its lifetime."""
        task = super().create_task(coro, **options)
        lifetime = _owner(options.get("context"))
        if lifetime is not None:
            lifetime.tasks.add(task)
        return task


def _context_of(handle: asyncio.Handle) -> contextvars.Context:
    context: contextvars.Context = handle._context  # type: ignore[attr-defined]  # noqa: SLF001
    return context


def _owner(context: contextvars.Context | None) -> Lifetime | None:
    return _lifetime.get() if context is None else context.get(_lifetime)
