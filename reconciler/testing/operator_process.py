"""A process of an operator in a world: its life, its requests, and what it does, attributed in the trace."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.cache import CacheEvent
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.controller import Controller
from reconciler.controller.effects import EffectCall, use_effect_handler
from reconciler.controller.observers import observe_reconciles
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.wake import reasons
from reconciler.errors import NotSent, ReconcilerError, describe_error
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import Manager
from reconciler.meta import GroupVersionKind, Request
from reconciler.recording.collector import Collector, ReconcileTrace, current_trace
from reconciler.testing.life import Life
from reconciler.testing.trace import (
    Author,
    Happening,
    StateChange,
    TraceEvent,
    calling_line,
)
from reconciler.workqueue import Explanation

if TYPE_CHECKING:
    from reconciler.testing.world import World


class OperatorFailed(ReconcilerError):
    """The operator did not start, or its process ended by itself; its cause is the exception."""


class Sender:
    """Who sends a request, and what it changed."""

    def __init__(
        self,
        author: Author,
        process: int = 0,
        reconcile: ReconcileTrace | None = None,
        *,
        line: str = "",
        text: str = "",
    ) -> None:
        self.author: Author = author
        self.process = process
        self.reconcile = reconcile
        self.line = line
        self.text = text
        self.changes: list[StateChange] = []


current_sender: contextvars.ContextVar[Sender | None] = contextvars.ContextVar("sender", default=None)


def has_sender() -> bool:
    """Return whether the running code handles a request whose author is known."""
    return current_sender.get() is not None


@contextlib.contextmanager
def sent_by(author: Author, process: int = 0, *, text: str = "") -> Iterator[None]:
    """Attribute the requests inside the block to an author."""
    token = current_sender.set(Sender(author, process, text=text))
    try:
        yield
    finally:
        current_sender.reset(token)


def sending_run() -> ReconcileRun | None:
    """Return the reconcile whose request the server handles in the running code; None if it belongs to none."""
    sender = current_sender.get()
    return None if sender is None or sender.reconcile is None else sender.reconcile.run


class Interference:
    """What happens around the steps of a scenario; a subclass overrides what it needs."""

    async def before_step(self, number: int, /) -> bool:  # noqa: ARG002 - for overrides
        """Called before a step, counted from 1; a step is left out if it returns False."""
        return True

    async def after_step(self, number: int, /) -> None:
        """Called after a step."""

    async def before_wait(self, horizon: float, /) -> float | None:
        """Called before the user waits for the operator; it returns the horizon, or None to skip it."""
        return horizon

    async def after_wait(self) -> None:
        """Called when nothing happens any more."""

    async def after_refusal(self) -> bool:
        """Called when an object of the user's request is missing, or in the way; it returns whether to try again."""
        return False

    async def before_read(self) -> None:
        """Called before the user reads, and would see what the operator has done by now."""

    def started(self, process: OperatorProcess, /) -> None:
        """Called when a process of the operator starts, in its context."""

    async def before_effect(self, call: EffectCall, /) -> None:
        """Called before an effect."""

    async def after_effect(self, call: EffectCall, /) -> None:
        """Called after an effect, before the operator gets its result."""


current_process: contextvars.ContextVar[OperatorProcess | None] = contextvars.ContextVar("process", default=None)
"""The process that the running code belongs to."""


class OperatorProcess:
    """One process of the operator: its life, its connection to the server and its manager.

    Args:
        number: from 1, in the order of the starts.
        world: the world that it runs in.

    Attributes:
        number: as given.
        life: ends with the process.
        manager: the manager; None until it is created.
        failure: the exception with which the process ended by itself; None if it did not.
    """

    def __init__(self, number: int, world: World) -> None:
        self.number = number
        self.life = Life()
        self.life.exited = self._exited
        self.manager: Manager | None = None
        self.failure: BaseException | None = None
        self._world = world
        self._ready = asyncio.Event()
        self._in_flight = 0
        self._main: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the operator, and return when its controllers run.

        Raises:
            OperatorFailed: it did not start.
        """
        self._main = self.life.start(self._run(), name=f"operator {self.number}")
        ready = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait({self._main, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self.failure is not None:
            if isinstance(self.failure, OperatorFailed):
                raise self.failure
            raise OperatorFailed(f"the operator did not start: {describe_error(self.failure)}") from self.failure

    def _exited(self, error: BaseException) -> bool:
        if isinstance(error, KeyboardInterrupt) and not self._world.owns_interrupts:
            return False
        if self._main is not None and self.failure is None:
            self.failure = OperatorFailed(f"the operator ended its process: {error!r}")
            self.failure.__cause__ = error
            self._world.happened(TraceEvent(what="ended", at=self._world.now, process=self.number, error=self.failure))
            self._main.cancel()
        return True

    async def _run(self) -> None:
        world = self._world
        rng = random.Random(f"{world.seed}/{self.number}")  # noqa: S311 - reproducible on purpose
        collector = _ProcessCollector(self, world)
        current_process.set(self)
        world.interference.started(self)
        try:
            with use_effect_handler(collector), observe_reconciles(collector):
                manager = self.manager = Manager(
                    Client(self, user_agent=f"{world.name}/{self.number} test", rng=rng), **world.manager_options
                )
                await world.set_up(manager)
                async with manager.running():
                    self._ready.set()
                    await asyncio.Event().wait()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            cancelled = isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling())
            if cancelled or (self.life.ended and isinstance(error, GeneratorExit)):
                raise
            self.failure = error  # whatever else ends the process
            if not self.life.ended:
                world.happened(TraceEvent(what="ended", at=world.now, process=self.number, error=error))

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request to the server, which handles a write even if this process ends before the response.

        Raises:
            NotSent: the process has ended.
        """
        if self.life.ended:
            raise NotSent(f"operator {self.number} has ended")
        reads = request.method in ("GET", "HEAD")
        text = "at version 0" if reads and ("resourceVersion", "0") in request.query else ""
        line = "" if reads and not text else calling_line()
        sender = Sender("operator", self.number, current_trace(), line=line, text=text)
        if reads:
            token = current_sender.set(sender)
            try:
                response = await self._world.connection.send(request)
            finally:
                current_sender.reset(token)
            if response.chunks is not None:
                self.life.keep_stream(response.chunks)
            return response
        self._in_flight += 1
        try:
            return await self._world.serve(request, sender)
        finally:
            self._in_flight -= 1

    async def unless_ended(self) -> None:
        """Return at once while the process lives, and never afterwards: the code that killed it goes no further."""
        if self.life.ended:
            await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Stop the process as SIGTERM does: it drains, and cleans up."""
        if self.running and self._main is not None:
            self._main.cancel()
            await asyncio.wait({self._main})
            self._world.happened(TraceEvent(what="ended", at=self._world.now, process=self.number))

    def kill(self) -> None:
        """End the process as SIGKILL does: nothing of it runs again."""
        if not self.running:
            return
        self.life.end()
        self._world.happened(TraceEvent(what="ended", at=self._world.now, process=self.number, text="killed"))

    @property
    def running(self) -> bool:
        """Return whether the process runs."""
        return not self.life.ended and self._main is not None and not self._main.done()

    @property
    def controllers(self) -> Sequence[Controller]:
        """Return its controllers; none until its manager is created."""
        return () if self.manager is None else self.manager.controllers

    def pending(self, horizon: float) -> Iterator[tuple[Controller, Explanation[Request]]]:
        """Yield the keys that are reconciled, or will be within a number of seconds; idle timers do not count."""
        for controller in self.controllers:
            for key in controller.queue.keys():  # noqa: SIM118 - a queue is not a dict
                state = controller.queue.explain(key)
                is_due = state.due is not None and state.due <= horizon
                if state.is_active or (is_due and not self._world.is_idle(controller.name, key, state.reasons)):
                    yield controller, state

    def unfinished(self, horizon: float) -> list[tuple[float, str]]:
        """Return what still runs, or will within a number of seconds, and in how many; idle timers do not count."""
        found = [(0.0, f"{self._in_flight} requests wait for their responses")] if self._in_flight else []
        found += [
            (0.0, f"{each.name}: a mapper has not ended")
            for each in self.controllers
            if each.statistics().mapper_pending
        ]
        for controller, state in self.pending(horizon):
            if self._world.waits_for(controller.name, state.key):
                due = 0.0 if state.is_active else state.due or 0.0
                failed = self._world.failure_of(controller.name, state.key)
                found.append((due, f"{controller.kind.kind} {state}{failed}"))
        return found


def is_declared(reason: str) -> bool:
    """Return whether a reason to reconcile is a delay that the operator asked for."""
    return reason == reasons.REQUEUE_AFTER or reason.startswith(reasons.ENQUEUE)


class _ProcessCollector(Collector):
    """Adds what a process is told, reconciles and calls to the trace of its world.

    Args:
        process: the process.
        world: its world.
    """

    def __init__(self, process: OperatorProcess, world: World) -> None:
        super().__init__(current_clock(), effects=world.effects)
        self._process = process
        self._world = world

    def event(self, key: Request, gvk: GroupVersionKind, event: CacheEvent, /) -> None:
        text = f"{event.type.value} {gvk.kind} {event.object.request} at version {event.object.version}"
        self._add("event", key=key, text=text)

    def begun(self, reconcile: Reconcile, /) -> None:
        super().begun(reconcile)
        self._world.begun(reconcile)
        self._add("begun", reconcile=current_trace(), key=reconcile.request)

    def ended(self, reconcile: Reconcile, /) -> None:
        super().ended(reconcile)
        error = None if reconcile.completion is None else reconcile.completion.error
        self._world.ended(reconcile, error)
        self._add("done", reconcile=self.latest, key=reconcile.request, error=error, basis=reconcile.basis)

    def _add(self, what: Happening, **fields: Any) -> None:
        self._world.happened(TraceEvent(what=what, at=self._world.now, process=self._process.number, **fields))

    async def __call__(self, call: EffectCall, /) -> Any:
        if self._process.life.ended:
            raise asyncio.CancelledError  # the code of a killed process cleans up, and must not reach anything
        await self._world.interference.before_effect(call)
        await self._process.unless_ended()
        self._add("effect", reconcile=current_trace(), effect=call, line=calling_line())
        result = await super().__call__(call)
        await self._world.interference.after_effect(call)
        await self._process.unless_ended()
        return result
