"""Run what a manager was given, and notice when it fails."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from reconciler.errors import error_text

__all__ = ["Entry", "Runnable", "Supervisor", "Webhooks", "awaited", "entry_of", "first_failure"]

_log = logging.getLogger("reconciler.manager")


class Entry(NamedTuple):
    """Hold one runnable.

    Attributes:
        name: for messages.
        call: starts it.
        leader_only: it runs while this process leads.
    """

    name: str
    call: Callable[[], Awaitable[object]]
    leader_only: bool


class Webhooks(Protocol):
    """Be what is asked by the API server, even about what it is asked for: listed kinds may have to be converted."""

    async def run(self) -> object:
        """Serve until cancelled."""
        ...

    async def listening(self) -> None:
        """Wait until it serves."""
        ...


@runtime_checkable
class Runnable(Protocol):
    """Be something that runs beside the controllers: a consumer, a server, a timer."""

    async def run(self) -> object:
        """Run until done or cancelled.

        Returning ends it and nothing else. An exception stops the manager. Cancellation asks it to end; it may take the
        grace period to do so.
        """
        ...


def entry_of(runnable: object) -> tuple[str, Callable[[], Awaitable[object]]]:
    """Return a name and what to call.

    Raises:
        TypeError: it is no runnable; the message says what is.
    """
    if inspect.iscoroutine(runnable):
        runnable.close()  # else Python warns that it was never awaited
        raise TypeError(f"add takes the function, not its coroutine: write add({runnable.__name__}), without ()")
    if not isinstance(runnable, type):
        if isinstance(runnable, Runnable):
            return type(runnable).__name__, runnable.run
        if callable(runnable):
            name: str = getattr(runnable, "__qualname__", type(runnable).__name__)
            return name, cast("Callable[[], Awaitable[object]]", runnable)
    raise TypeError(f"{runnable!r} cannot run: give an object with `async def run(self)`, or an async function")


async def awaited(call: Callable[[], Awaitable[object]]) -> None:
    """Call and await, as the coroutine that a task needs."""
    await call()


class Supervisor:
    """Keep tasks and the first failure among them.

    Attributes:
        failed: done with the exception of the first task that failed.
    """

    def __init__(self) -> None:
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def failure(self) -> BaseException | None:
        """Return the exception of the first task that failed."""
        return self.failed.result() if self.failed.done() else None

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def fail(self, error: BaseException) -> None:
        """Take a failure that no task brought."""
        if not self.failed.done():
            self.failed.set_result(error)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self.failed.done():
            _log.error("%s failed as well: %s", task.get_name(), error_text(error), exc_info=error)
        else:
            _log.error("%s failed, the manager stops: %s", task.get_name(), error_text(error))
            self.failed.set_result(error)


async def first_failure(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until all tasks have ended well, or one failed; then cancel the others, wait for them, and raise.

    Cancellation cancels the tasks and waits for them.
    """
    pending = set(tasks)
    if not pending:
        return
    try:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
    for task in done:
        task.result()
