"""The lifecycle of a manager: starts its parts in order, watches for failures, and stops them in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Coroutine
from types import TracebackType
from typing import Any, Literal

from reconciler._core.user_code import cancel_and_wait
from reconciler.cache import Cache
from reconciler.cache.informer import while_listing
from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.manager.election import Elector, LeadershipLost
from reconciler.manager.endpoints.server import Servers
from reconciler.manager.event_loop import BlockedLoopWatchdog
from reconciler.manager.runnables import (
    GracePeriodExceeded,
    ManagerError,
    RunnableGroup,
    Supervisor,
    Webhooks,
    run_together,
)
from reconciler.manager.waiting import drains, keys_in_progress, lists, remind, report_progress, waits
from reconciler.telemetry.logs import NamedValues

_log = logging.getLogger("reconciler.manager")

SYNC_TIMEOUT = 120.0
"""Seconds without an object of the first lists of informers that exist before the controllers start;
controller-runtime's number."""

CANCEL_TIMEOUT = 10.0
"""Seconds after the grace period for cancelled tasks to end; the timeout of a status flush."""

_ABANDON_TIMEOUT = 1.0
"""Seconds for a controller to stop after its hung threads were abandoned."""

State = Literal["new", "starting", "running", "stopping", "stopped"]
"""The state of a manager, which runs only once."""


class Lifecycle:
    """An ``async with`` block during which all parts of a manager run.

    When a part fails, the block is cancelled and the failure raised instead. Cancelling the block from outside stops
    the parts as usual; a second cancellation, while they stop, cuts the grace period short.

    Args:
        elector: decides when the controllers start; None for immediately.
        warm_up: whether controllers watch and queue while they wait for the election.
        grace: seconds that work in progress has to finish.
        banner: returns the first log line, once the servers listen.

    Attributes:
        runnables: those that run on every replica; they start when the cache has synced.
        leader_runnables: those that run only on the leader; they start before the controllers.
    """

    def __init__(
        self,
        *,
        servers: Servers,
        cache: Cache,
        elector: Elector | None,
        warm_up: bool,
        grace: float,
        clock: Clock,
        watchdog: BlockedLoopWatchdog,
        banner: Callable[[], NamedValues],
    ) -> None:
        self._servers = servers
        self._cache = cache
        self._elector = elector
        self._warm_up = warm_up
        self._grace = grace
        self._clock = clock
        self._watchdog = watchdog
        self._banner = banner
        self.state: State = "new"
        self.controllers: list[Controller] = []
        self.runnables = RunnableGroup()
        self.leader_runnables = RunnableGroup()
        self._webhooks: list[Webhooks] = []
        self._webhook_runnables = RunnableGroup()
        self._supervisor: Supervisor
        self._standby = False  # controllers watch while they wait for the election
        self._active = False  # controllers have started or are starting
        self._warm_ups: list[asyncio.Task[Any]] = []  # of a standby's controllers
        self._election_waiter: asyncio.Task[Any] | None = None  # waits for the election, then starts the controllers
        self._election: asyncio.Task[Any] | None = None
        self._reminders: list[asyncio.Task[Any]] = []  # log what the start waits for, and its progress
        self._controller_stop: asyncio.Task[list[str]] | None = None  # stops the controllers
        self._stop_requested = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0  # of the loop
        self._grace_cut_short = asyncio.Event()
        self._body: asyncio.Task[Any] | None = None  # the task of the block, while a failure must cancel it
        self._body_cancelled = False

    @property
    def complete(self) -> bool:
        """Return whether the start is complete: the controllers have started, or watch and wait for the election."""
        return self.state == "running" and all(task.done() for task in self._warm_ups)

    def stop(self) -> None:
        """Let `wait_for_stop` return. Thread-safe."""
        if self._loop is None or self._thread == threading.get_ident():
            self._stop_requested.set()
        elif self.state != "stopped":
            with contextlib.suppress(RuntimeError):  # the loop was closed just now
                self._loop.call_soon_threadsafe(self._stop_requested.set)

    async def wait_for_stop(self) -> None:
        """Wait until `stop` is called. Cancellation changes nothing."""
        await self._stop_requested.wait()

    def check_open(self) -> None:
        """Raise unless parts can be added.

        Raises:
            ManagerError: the manager is stopping or has stopped.
        """
        if self.state in ("stopping", "stopped"):
            raise ManagerError(f"the manager is {self.state}: nothing can be added to it")

    def add_controller(self, controller: Controller) -> None:
        """Add a controller; it starts immediately if the others have started."""
        self.controllers.append(controller)
        if self._active:
            self._supervisor.start(f"controller {controller.name}", self._run_controller(controller))
        elif self._standby:
            self._start_warm_up(controller)

    def add_webhooks(self, webhooks: Webhooks) -> None:
        """Add webhooks; they start before the cache, or immediately if the others have started."""
        self._webhooks.append(webhooks)
        self._webhook_runnables.add(type(webhooks).__name__, webhooks.run)

    async def __aenter__(self) -> None:
        """Start everything; controllers wait for the election, if there is one.

        Cancellation stops the parts that have started.

        Raises:
            ManagerError: the manager is not new.
            ConfigurationError: a server cannot listen.
            CacheSyncTimeout, CacheNotSynced: a kind could not be listed in time.
            Exception: a runnable failed during the start.
        """
        if self.state != "new":
            raise ManagerError(f"a manager runs only once, and this one is {self.state}: create a new Manager")
        self.state = "starting"
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._supervisor = Supervisor()
        self._supervisor.failed.add_done_callback(self._on_failure)
        self._watchdog.start()
        try:
            await self._start_unless_stopped(self._start())
            if self._supervisor.failure is not None:
                raise self._supervisor.failure
        except BaseException as error:
            await self._shut_down_after(error)
            raise
        self._body = asyncio.current_task()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._supervisor.end()
        body, self._body = self._body, None
        if self._body_cancelled and body is not None and body.uncancel() == 0 and kind is asyncio.CancelledError:
            error = None  # raise the failure, not the cancellation that it caused
        failure = self._supervisor.failure
        if error is not None:
            if failure is not None:
                error.add_note(f"the manager failed too: {failure!r}")
            await self._shut_down_after(error)
            return
        problem = await self._shut_down()
        failure = self._supervisor.failure
        if failure is None:
            if problem is not None:
                raise problem
            return
        if problem is not None:
            failure.add_note(str(problem))
        context = failure.__context__
        try:
            raise failure
        finally:
            failure.__context__ = context  # keep its own context, not the cancellation of the block

    def _on_failure(self, failed: asyncio.Future[BaseException]) -> None:
        if isinstance(failed.result(), LeadershipLost):
            self._request_controller_stop(0.0)  # immediately, before the block is cancelled: the lease is running out
        if self._body is not None:
            self._body_cancelled = True
            self._body.cancel()

    async def _start_unless_stopped(self, start: Coroutine[Any, Any, None]) -> None:
        """Run the start until it is complete, a part fails, or `stop` is called."""
        starting = asyncio.create_task(start, name="manager start")
        stopping = asyncio.create_task(self._stop_requested.wait())
        first: set[asyncio.Future[Any]] = {starting, stopping, self._supervisor.failed}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait([stopping, starting])
        if not starting.cancelled():
            starting.result()

    async def _shut_down_after(self, error: BaseException) -> None:
        problem = await self._shut_down()
        if problem is not None:
            error.add_note(str(problem))

    async def _shut_down(self) -> GracePeriodExceeded | None:
        """Stop everything; return an error if something did not stop. Cancellation cuts the grace period short."""
        stopping = asyncio.create_task(self._stop(), name="manager stop")
        try:
            return await asyncio.shield(stopping)
        except asyncio.CancelledError:
            self._grace_cut_short.set()
            await asyncio.wait({stopping})
            raise

    async def _start(self) -> None:
        await self._servers.start()
        _log.info(self._banner())
        waiting = remind(lambda: waits(self._cache.informers, self._elector))
        progress = report_progress(lambda: lists(self._cache.informers))
        self._reminders = [
            self._supervisor.start("reminders of the start", waiting),
            self._supervisor.start("progress of the start", progress),
        ]
        self._webhook_runnables.start(self._supervisor)
        for webhooks in self._webhooks:
            await webhooks.listening()
        await self._cache.start()
        self._supervisor.start("the cache", self._cache.finished())
        await while_listing(self._cache.informers, lambda: self._cache.wait_synced(SYNC_TIMEOUT))
        self.runnables.start(self._supervisor)
        if self._elector is None:
            await self._start_controllers()
        else:
            self._election = self._supervisor.start("leader election", self._elector.run())
            if self._warm_up:
                self._standby = True
                for each in self.controllers:
                    self._start_warm_up(each)
            self._election_waiter = self._supervisor.start("start after the election", self._start_after_election())
        self.state = "running"

    async def _start_after_election(self) -> None:
        if self._elector is not None:
            await self._elector.elected.wait()
        await self._catch_up()
        await self._start_controllers()

    def _start_warm_up(self, controller: Controller) -> None:
        name = f"warm-up of controller {controller.name}"
        self._warm_ups.append(self._supervisor.start(name, controller.warm_up()))

    async def _catch_up(self) -> None:
        """Bring the informers up to the previous leader's last write, by consistent lists.

        A watch may lag behind. A leader that acts on an older state would repeat what the previous leader did. An
        initial list in progress has the same problem, because the server may have read it before that write. It is
        restarted but not waited for here: readers and controllers wait until it is complete.
        """
        informers = self._cache.informers
        synced = [informer for informer in informers if informer.synced]
        for informer in informers:
            informer.restart_first_lists()
        await run_together(informer.refresh(SYNC_TIMEOUT) for informer in synced)

    async def _start_controllers(self) -> None:
        """Start the controllers and the runnables that only the leader may run."""
        self._active = True
        self.leader_runnables.start(self._supervisor)
        controllers = list(self.controllers)
        await run_together(each.start() for each in controllers)
        self._supervisor.cancel(self._reminders)
        names = (f"{each.name} (field manager {each.field_manager})" for each in controllers)
        _log.info("started controllers: %s", ", ".join(names) or "none")
        for each in controllers:
            self._supervisor.start(f"controller {each.name}", each.finished())

    async def _run_controller(self, controller: Controller) -> None:
        await controller.start()
        await controller.finished()
        if self._controller_stop is None:  # it was stopped alone
            self.controllers.remove(controller)

    async def _stop(self) -> GracePeriodExceeded | None:
        self.state = "stopping"
        self._supervisor.cancel(self._reminders)
        lost = isinstance(self._supervisor.failure, LeadershipLost)
        grace = 0.0 if lost else self._grace
        until = self._clock.monotonic() + grace
        left = await self._request_controller_stop(grace)
        await self._leave_election(clean=not left)
        left += await self._cancel_all(self.runnables.tasks, max(until - self._clock.monotonic(), CANCEL_TIMEOUT))
        await self._cache.stop()
        left += await self._cancel_all(self._webhook_runnables.tasks, CANCEL_TIMEOUT)
        await self._servers.stop()
        self._watchdog.stop()
        self.state = "stopped"
        if not left:
            return None
        return GracePeriodExceeded(f"did not stop within the grace period of {grace:g} s: {', '.join(left)}")

    def _request_controller_stop(self, grace: float) -> asyncio.Task[list[str]]:
        if self._controller_stop is None:
            self._controller_stop = asyncio.create_task(self._stop_controllers(grace), name="stop of the controllers")
        elif grace == 0:
            self._grace_cut_short.set()
        return self._controller_stop

    async def _stop_controllers(self, grace: float) -> list[str]:
        """Stop the controllers and the leader's runnables; return the names of those that did not stop in time."""
        if self._election_waiter is not None:
            self._supervisor.cancel([self._election_waiter])
            await asyncio.wait({self._election_waiter})
        self._supervisor.cancel(self.leader_runnables.tasks)
        stops = [asyncio.create_task(each.stop(grace=grace), name=_describe(each)) for each in self.controllers]
        running = {task for task in (*stops, *self.leader_runnables.tasks) if not task.done()}
        cut_short = asyncio.create_task(self._grace_cut_short.wait())
        progress = asyncio.create_task(report_progress(lambda: drains(self.controllers)), name="progress of the stop")
        try:
            running = await _wait_ended(running, cut_short, grace)
            if self._grace_cut_short.is_set():
                for stop in stops:
                    stop.cancel()
            if running:
                _, running = await asyncio.wait(running, timeout=CANCEL_TIMEOUT)
        finally:
            cut_short.cancel()
            progress.cancel()
            descriptions = {stop: _describe(each) for stop, each in zip(stops, self.controllers, strict=False)}
            for each in self.controllers:
                each.abandon()  # whatever happens here, a hung thread must not keep the event loop from ending
        if running:
            await asyncio.wait(running, timeout=_ABANDON_TIMEOUT)
        for stop in stops:
            if stop.done() and not stop.cancelled() and (error := stop.exception()) is not None:
                self._supervisor.record_failure(error)
        return sorted(descriptions.get(task, task.get_name()) for task in running)

    async def _leave_election(self, *, clean: bool) -> None:
        """Release the lease; if something is still running, leave the lease to expire instead."""
        if self._elector is None:
            return
        if self._election is not None:
            self._supervisor.cancel([self._election])
            await asyncio.wait({self._election})
        if clean:
            await self._elector.release()
        else:
            await self._elector.abandon()

    async def _cancel_all(self, tasks: Collection[asyncio.Task[Any]], seconds: float) -> list[str]:
        """Cancel tasks and wait for them; return the names of those that did not end in time."""
        running = self._supervisor.cancel(tasks)
        if running:
            _, running = await asyncio.wait(running, timeout=seconds)
        return sorted(task.get_name() for task in running)


async def _wait_ended(
    running: set[asyncio.Task[Any]], cut_short: asyncio.Task[Any], grace: float
) -> set[asyncio.Task[Any]]:
    """Wait until all tasks have ended, the grace period is over or was cut short; return the tasks still running."""
    if not running:
        return running
    waiting = asyncio.create_task(asyncio.wait(running, timeout=grace))
    await asyncio.wait({waiting, cut_short}, return_when=asyncio.FIRST_COMPLETED)
    await cancel_and_wait([waiting])
    return {task for task in running if not task.done()}


def _describe(controller: Controller) -> str:
    keys = ", ".join(keys_in_progress(controller))
    return f"controller {controller.name} ({keys} in progress)" if keys else f"controller {controller.name}"
