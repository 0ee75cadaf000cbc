"""Start the parts of a manager in order, notice when one fails, and stop them the other way round."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine
from types import TracebackType
from typing import Any, Literal

from reconciler.cache import Cache
from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.manager.election.leader import Elector
from reconciler.manager.endpoints.http import Servers
from reconciler.manager.errors import GracePeriodExceeded, LeadershipLost, ManagerError
from reconciler.manager.runnables import Entry, Supervisor, Webhooks, awaited, first_failure

__all__ = ["Lifecycle", "State"]

_log = logging.getLogger("reconciler.manager")

SYNC_TIMEOUT = 120.0
"""Seconds for informers that exist before the controllers to be listed; controller-runtime's number."""

CUT_OFF = 10.0
"""Seconds after the grace period for what was cancelled to end: a status flush takes no longer."""

_GIVE_UP = 1.0
"""Seconds for the rest of a controller to stop once it waits for its threads no more."""

State = Literal["new", "starting", "running", "stopping", "stopped"]
"""Where a manager is in its life; it lives once."""


class Lifecycle:
    """Be an ``async with`` block during which everything runs.

    A failure of a part cancels the block and is raised in its place. Cancellation from elsewhere ends the block as
    usual; a second one, while the parts stop, cuts the grace period short.

    Args:
        servers: started first, stopped last.
        cache: started before anything that may need it.
        elector: decides when the controllers may start; None for at once.
        warm_up: let the controllers watch and queue while they wait for the election.
        grace: seconds in which what works may end.
        clock: source of time.
    """

    def __init__(
        self, *, servers: Servers, cache: Cache, elector: Elector | None, warm_up: bool, grace: float, clock: Clock
    ) -> None:
        self._servers = servers
        self._cache = cache
        self._elector = elector
        self._warm_up = warm_up and elector is not None
        self._grace = grace
        self._clock = clock
        self.state: State = "new"
        self.controllers: list[Controller] = []
        self._runnables: list[Entry] = []
        self._webhooks: list[Webhooks] = []
        self._supervisor: Supervisor
        self._everywhere: list[asyncio.Task[Any]] = []  # runnables of all replicas
        self._leading: list[asyncio.Task[Any]] = []  # runnables of the leader
        self._serving: list[asyncio.Task[Any]] = []  # webhooks
        self._warming = False  # controllers watch, and wait for the election
        self._leads = False  # controllers were started, or are being so
        self._promotion: asyncio.Task[Any] | None = None  # waits for the election, then starts the controllers
        self._election: asyncio.Task[Any] | None = None
        self._demotion: asyncio.Task[list[str]] | None = None  # stops the controllers
        self._stop_asked = asyncio.Event()
        self._hurried = asyncio.Event()
        self._body: asyncio.Task[Any] | None = None  # the block, while a failure is to be raised in it
        self._interrupted = False

    def stop(self) -> None:
        """Ask for the end of the block that `stop_asked` waits in."""
        self._stop_asked.set()

    async def stop_asked(self) -> None:
        """Wait until `stop` was called. Cancellation changes nothing."""
        await self._stop_asked.wait()

    def check_open(self) -> None:
        """Raise if nothing can be added any more.

        Raises:
            ManagerError: the manager stops, or has stopped.
        """
        if self.state in ("stopping", "stopped"):
            raise ManagerError(f"the manager is {self.state}: nothing can be added any more")

    def add_controller(self, controller: Controller) -> None:
        """Take a controller; it starts at once if the others have started."""
        self.controllers.append(controller)
        if self._leads:
            self._supervisor.start(f"controller {controller.name}", self._work(controller))
        elif self._warming:
            self._warm(controller)

    def add_runnable(self, entry: Entry) -> None:
        """Take a runnable; it starts at once if its group has started."""
        self._runnables.append(entry)
        if self._leads if entry.leader_only else self.state == "running":
            self._run(entry)

    def add_webhooks(self, webhooks: Webhooks) -> None:
        """Take webhooks; they start before the cache, or at once if that has started."""
        self._webhooks.append(webhooks)
        if self.state != "new":
            self._serve(webhooks)

    # The block

    async def __aenter__(self) -> None:
        """Start everything, controllers too unless they have to wait for the election.

        Cancellation stops what was started.

        Raises:
            ManagerError: it is not new.
            ConfigurationError: a server cannot listen.
            CacheSyncTimeout, CacheNotSynced: a kind could not be listed in time.
            Exception: a runnable failed meanwhile.
        """
        if self.state != "new":
            raise ManagerError(f"a manager runs once, and this one is {self.state}: make another one")
        self.state = "starting"
        self._supervisor = Supervisor()
        self._supervisor.failed.add_done_callback(self._on_failure)
        try:
            await self._unless_stopped(self._start())
            if self._supervisor.failure is not None:
                raise self._supervisor.failure
        except BaseException as error:
            await self._end_after(error)
            raise
        self._body = asyncio.current_task()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        if self._interrupted and body is not None and body.uncancel() == 0 and kind is asyncio.CancelledError:
            error = None  # the failure is the news, not the cancellation that told of it
        failure = self._supervisor.failure
        if error is not None:
            if failure is not None:
                error.add_note(f"the manager failed as well: {failure!r}")
            await self._end_after(error)
            return
        problem = await self._end()
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
            failure.__context__ = context  # its own, not the cancellation of the block

    def _on_failure(self, failed: asyncio.Future[BaseException]) -> None:
        if isinstance(failed.result(), LeadershipLost):
            self._begin_demotion(0.0)  # before the block has taken notice: every moment counts
        if self._body is not None:
            self._interrupted = True
            self._body.cancel()

    async def _unless_stopped(self, start: Coroutine[Any, Any, None]) -> None:
        """Run the start until it has ended, a part has failed, or somebody has asked for the end."""
        starting = asyncio.create_task(start, name="manager start")
        asked = asyncio.create_task(self._stop_asked.wait())
        news: set[asyncio.Future[Any]] = {starting, asked, self._supervisor.failed}
        try:
            await asyncio.wait(news, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            starting.cancel()
            await asyncio.wait({starting, asked})
        if not starting.cancelled():
            starting.result()

    async def _end_after(self, error: BaseException) -> None:
        problem = await self._end()
        if problem is not None:
            error.add_note(str(problem))

    async def _end(self) -> GracePeriodExceeded | None:
        """Stop everything; return what had not ended in time. Cancellation cuts the grace period short."""
        ending = asyncio.create_task(self._stop(), name="manager stop")
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            self._hurry()
            await asyncio.wait({ending})
            raise

    # Starting

    async def _start(self) -> None:
        await self._servers.start()
        for webhooks in self._webhooks:
            self._serve(webhooks)
        for webhooks in self._webhooks:
            await webhooks.listening()
        await self._cache.start()
        await self._cache.wait_synced(SYNC_TIMEOUT)
        for entry in self._runnables:
            if not entry.leader_only:
                self._run(entry)
        if self._elector is None:
            await self._promote()
        else:
            self._election = self._supervisor.start("leader election", self._elector.run())
            if self._warm_up:
                self._warming = True
                for each in self.controllers:
                    self._warm(each)
            self._promotion = self._supervisor.start("start after the election", self._promote_when_elected())
        self.state = "running"

    async def _promote_when_elected(self) -> None:
        if self._elector is not None:
            await self._elector.elected.wait()
        await self._catch_up()
        await self._promote()

    def _warm(self, controller: Controller) -> None:
        self._supervisor.start(f"warm-up of controller {controller.name}", controller.warm_up())

    async def _catch_up(self) -> None:
        """Bring what was watched during the wait to the last write of the leader before, by consistent lists.

        A watch may lag behind, and whoever acts on an older state does a second time what that leader did. The same is
        true of an initial list that is still in progress, since the server may have read it before that write. Nobody
        waits for those here: readers and controllers wait until they are complete.
        """
        informers = self._cache.informers
        watched = [informer for informer in informers if informer.synced]
        for informer in informers:
            informer.restart_first_lists()
        await first_failure([asyncio.create_task(informer.refresh(SYNC_TIMEOUT)) for informer in watched])

    async def _promote(self) -> None:
        """Start what only one process may run."""
        self._leads = True
        for entry in self._runnables:
            if entry.leader_only:
                self._run(entry)
        controllers = list(self.controllers)
        await first_failure(
            [asyncio.create_task(each.start(), name=f"start of controller {each.name}") for each in controllers]
        )
        named = (f"{each.name} (field manager {each.field_manager})" for each in controllers)
        _log.info("started the controllers %s", ", ".join(named) or "(none)")
        for each in controllers:
            self._supervisor.start(f"controller {each.name}", each.finished())

    async def _work(self, controller: Controller) -> None:
        await controller.start()
        await controller.finished()

    def _serve(self, webhooks: Webhooks) -> None:
        self._serving.append(self._supervisor.start(f"runnable {type(webhooks).__name__}", awaited(webhooks.run)))

    def _run(self, entry: Entry) -> None:
        group = self._leading if entry.leader_only else self._everywhere
        group.append(self._supervisor.start(f"runnable {entry.name}", awaited(entry.call)))

    # Stopping

    async def _stop(self) -> GracePeriodExceeded | None:
        self.state = "stopping"
        lost = isinstance(self._supervisor.failure, LeadershipLost)
        grace = 0.0 if lost else self._grace
        until = self._clock.monotonic() + grace
        left = await self._begin_demotion(grace)
        await self._end_election(clean=not left)
        left += await self._cancelled(self._everywhere, max(until - self._clock.monotonic(), CUT_OFF))
        await self._cache.stop()
        left += await self._cancelled(self._serving, CUT_OFF)
        await self._servers.stop()
        self.state = "stopped"
        if not left:
            return None
        return GracePeriodExceeded(f"not ended within the grace period of {grace:g} s: {', '.join(left)}")

    def _begin_demotion(self, grace: float) -> asyncio.Task[list[str]]:
        if self._demotion is None:
            self._demotion = asyncio.create_task(self._demote(grace), name="controllers stop")
        elif grace == 0:
            self._hurry()
        return self._demotion

    def _hurry(self) -> None:
        """Let what works be cancelled now."""
        self._hurried.set()

    async def _demote(self, grace: float) -> list[str]:
        """Stop what only one process may run; return what had not ended in time."""
        if self._promotion is not None:
            self._promotion.cancel()
            await asyncio.wait({self._promotion})
        for task in self._leading:
            task.cancel()
        stops = [asyncio.create_task(each.stop(grace=grace), name=_describe(each)) for each in self.controllers]
        working = {task for task in (*stops, *self._leading) if not task.done()}
        hurried = asyncio.create_task(self._hurried.wait())
        try:
            working = await _ended(working, hurried, grace)
            if self._hurried.is_set():
                for stop in stops:
                    stop.cancel()
            if working:
                _, working = await asyncio.wait(working, timeout=CUT_OFF)
        finally:
            hurried.cancel()
            hands = {stop: _describe(each) for stop, each in zip(stops, self.controllers, strict=False)}
            for each in self.controllers:
                each.abandon()  # a hung thread must not keep the event loop from its end, whatever happens here
        if working:
            await asyncio.wait(working, timeout=_GIVE_UP)
        for stop in stops:
            if stop.done() and not stop.cancelled() and (error := stop.exception()) is not None:
                self._supervisor.fail(error)
        return sorted(hands.get(task, task.get_name()) for task in working)

    async def _end_election(self, *, clean: bool) -> None:
        """Give the lease back, unless something still works: then it has until the lease's end."""
        if self._elector is None:
            return
        if self._election is not None:
            self._election.cancel()
            await asyncio.wait({self._election})
        if clean:
            await self._elector.release()
        else:
            await self._elector.abandon()

    async def _cancelled(self, tasks: Collection[asyncio.Task[Any]], seconds: float) -> list[str]:
        """Cancel tasks and wait for them; return those that had not ended in time."""
        working = {task for task in tasks if not task.done()}
        for task in working:
            task.cancel()
        if working:
            _, working = await asyncio.wait(working, timeout=seconds)
        return sorted(task.get_name() for task in working)


async def _ended(working: set[asyncio.Task[Any]], hurried: asyncio.Task[Any], grace: float) -> set[asyncio.Task[Any]]:
    """Wait until all have ended, the grace is over or somebody is in a hurry; return those that have not."""
    if not working:
        return working
    waiting = asyncio.create_task(asyncio.wait(working, timeout=grace))
    await asyncio.wait({waiting, hurried}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.wait({waiting})
    return {task for task in working if not task.done()}


def _describe(controller: Controller) -> str:
    queue = controller.queue
    in_hand = ", ".join(str(key) for key in queue.keys() if queue.in_progress(key) is not None)  # noqa: SIM118
    return f"controller {controller.name} ({in_hand} in hand)" if in_hand else f"controller {controller.name}"
