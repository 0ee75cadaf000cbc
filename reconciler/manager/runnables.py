"""Runnables: the parts of a manager besides the controllers, and the tasks in which they run."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol, cast, runtime_checkable

from reconciler.errors import ReconcilerError, describe_error

_log = logging.getLogger("reconciler.manager")


class ManagerError(ReconcilerError):
    """The base class of a manager's errors; raised itself for a call in the wrong state."""


class GracePeriodExceeded(ManagerError):
    """Something did not stop within the grace period; the message names it."""


@runtime_checkable
class Runnable(Protocol):
    """Something that runs beside the controllers, such as a consumer, a server or a timer."""

    async def run(self) -> object:
        """Run until done or cancelled.

        The manager continues when this returns, and stops when it raises. Cancellation asks it to end, which may take
        the grace period.
        """


class Webhooks(Runnable, Protocol):
    """A webhook server as seen by the manager. It starts before the cache: lists may need a conversion webhook."""

    async def listening(self) -> None:
        """Wait until the server listens."""


def name_and_call(runnable: object) -> tuple[str, Callable[[], Awaitable[object]]]:
    """Return the name of a runnable and the function that runs it.

    Raises:
        TypeError: the object is not a runnable.
    """
    if inspect.iscoroutine(runnable):
        runnable.close()  # else Python warns that it was never awaited
        raise TypeError(f"add() takes a function, not a coroutine: write add({runnable.__name__}), without ()")
    if not isinstance(runnable, type):
        if isinstance(runnable, Runnable):
            return type(runnable).__name__, runnable.run
        if callable(runnable):
            name: str = getattr(runnable, "__qualname__", type(runnable).__name__)
            return name, cast("Callable[[], Awaitable[object]]", runnable)
    raise TypeError(f"{runnable!r} is not a runnable: pass an object with `async def run(self)`, or an async function")


async def _call_and_wait(call: Callable[[], Awaitable[object]]) -> None:
    """Call a function and await its result; a coroutine for a task.

    Raises:
        TypeError: the function is not ``async``, so it has already done its work on the event loop.
    """
    result: object = call()
    if not inspect.isawaitable(result):
        name = getattr(call, "__qualname__", repr(call))
        raise TypeError(f"runnable {name} returned {result!r} and nothing to await: write it as 'async def'")
    await result


class Supervisor:
    """A set of tasks, and the first failure among them.

    Attributes:
        failed: a future with the exception of the first task that failed.
    """

    def __init__(self) -> None:
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._expected: set[asyncio.Task[Any]] = set()
        self._ending = False

    @property
    def failure(self) -> BaseException | None:
        """Return the exception of the first task that failed."""
        return self.failed.result() if self.failed.done() else None

    def start(
        self, name: str, coroutine: Coroutine[Any, Any, Any], *, may_be_cancelled: bool = False
    ) -> asyncio.Task[Any]:
        """Start a coroutine as a task.

        If others cancel it, that counts as a failure unless `may_be_cancelled`: a runnable may cancel itself.
        """
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        if may_be_cancelled:
            self._expected.add(task)
        task.add_done_callback(self._on_end)
        return task

    def cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        """Cancel tasks, without a failure; return those that have not ended yet."""
        running = {task for task in tasks if not task.done()}
        self._expected |= running & self._tasks
        for task in running:
            task.cancel()
        return running

    def end(self) -> None:
        """Note that the manager ends, possibly because all tasks of the event loop were cancelled."""
        self._ending = True

    def record_failure(self, error: BaseException) -> None:
        """Record a failure from outside the tasks."""
        if not self.failed.done():
            self.failed.set_result(error)

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        expected = self._ending or task in self._expected
        self._tasks.discard(task)
        self._expected.discard(task)
        error: BaseException | None
        if not task.cancelled():
            error = task.exception()
        elif expected and task.cancelling():
            return
        else:
            cause = "" if task.cancelling() else ": something that it awaited was cancelled"
            error = ManagerError(f"{task.get_name()} was cancelled, but not by the manager{cause}")
        if error is None:
            return
        if self.failed.done():
            _log.error("%s failed too: %s", task.get_name(), describe_error(error), exc_info=error)
        else:
            _log.error("%s failed, stopping: %s", task.get_name(), describe_error(error))
            self.failed.set_result(error)


class RunnableGroup:
    """Runnables that start together; one that is added afterwards starts at once.

    Attributes:
        tasks: in which they run.
    """

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self._waiting: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        self._supervisor: Supervisor | None = None

    def add(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        """Add the function that runs a runnable, and its name for messages."""
        if self._supervisor is None:
            self._waiting.append((name, call))
            return
        task = self._supervisor.start(f"runnable {name}", _call_and_wait(call), may_be_cancelled=True)
        self.tasks.append(task)

    def start(self, supervisor: Supervisor) -> None:
        """Start them."""
        self._supervisor = supervisor
        for name, call in self._waiting:
            self.add(name, call)


async def run_together(calls: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run coroutines concurrently; if one fails, cancel the others, wait for them, and raise its exception."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in calls:
                group.create_task(each)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
