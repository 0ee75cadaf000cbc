"""One run of a scenario: an operator from nothing to rest, perhaps disturbed; a seed repeats its random numbers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest import mock

from reconciler._core.wire import JSONObject
from reconciler.clock import current_clock
from reconciler.controller.effects import EffectCall
from reconciler.errors import ReconcilerError
from reconciler.testing.operator_process import Interference, OperatorProcess, current_process
from reconciler.testing.trace import TraceEvent, WorldTrace
from reconciler.testing.virtual_clock import virtual_time
from reconciler.testing.world import World, first_failure


@contextlib.contextmanager
def seeded_randomness(seed: int) -> Iterator[None]:
    """Let `os.urandom`, and so `uuid.uuid4` and `secrets`, return what a seed determines, until the block ends.

    Each process of the operator has its own stream: the same numbers again would hide a name that is drawn twice.
    The server and the user draw from the system; an operator sees nothing of that.
    """
    streams: dict[int, random.Random] = {}
    state, system = random.getstate(), os.urandom

    def urandom(size: int, /) -> bytes:
        process = current_process.get()
        if process is None or _is_importing():
            return system(size)
        stream = streams.get(process.number)
        if stream is None:
            stream = streams[process.number] = random.Random(f"{seed}/{process.number}")  # noqa: S311 - repeatable
        return stream.randbytes(size)

    with mock.patch.object(os, "urandom", urandom), mock.patch.object(random, "_urandom", urandom):
        try:
            yield
        finally:
            random.setstate(state)


def _is_importing() -> bool:
    """Return whether a module is being imported, which happens in the first run only."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack, without its source
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


Scenario = Callable[[World], Awaitable[object]]
"""What users do, as an ``async`` function of a world."""

End = Callable[[], Awaitable[None]]


class RunInterrupted(ReconcilerError):
    """A run was interrupted before its end."""


@dataclass(frozen=True)
class Subject:
    """What is explored: an operator and a scenario.

    Attributes:
        operator: a Reconciler class, several, or a function that adds controllers to a Manager.
        scenario: what users do.
        options: options of the controllers, such as ``owns``.
        definitions: CustomResourceDefinitions and other objects to begin with.
        manager_options: options of the Manager.
    """

    operator: object
    scenario: Scenario
    options: Mapping[str, Any] = field(default_factory=dict)
    definitions: Sequence[object] = ()
    manager_options: Mapping[str, Any] = field(default_factory=dict)

    def new_world(self, *, seed: int, roles: bool, options: Mapping[str, Any], manager: Mapping[str, Any]) -> World:
        """Return a new world with the operator; the options are added to those of the subject."""
        return World(
            self.operator,
            definitions=self.definitions,
            seed=seed,
            manager_options={**self.manager_options, **manager},
            roles=roles,
            **{**self.options, **options},
        )

    def run(self, life: Coroutine[Any, Any, Run], *, seed: int) -> Run:
        """Run a life of the operator on an event loop of its own."""
        with virtual_time(), seeded_randomness(seed):
            return asyncio.run(life)

    def interrupt(self) -> None:
        """Interrupt the runs in real time, also from another thread; those in virtual time are short."""


@dataclass(slots=True)
class Run:
    """What one run left.

    Attributes:
        trace: what happened, up to the end of the scenario and a rest.
        objects: the documents of all objects then.
        rests: the documents of all objects whenever the user had waited for the operator, by the numbers of the step
            before and of the wait after it; without those at which the operator was down, or its view was late.
        error: how the scenario failed, or why the operator did not come to rest; None if all went well.
        check: how a check of the scenario (`always`, `finally_`) failed; None if none did.
        again: what happened when each key was reconciled once more.
        watched: the plural names of the kinds that the operator watches.
    """

    trace: WorldTrace
    objects: list[JSONObject]
    rests: Mapping[tuple[int, int], list[JSONObject]]
    error: Exception | None = None
    check: Exception | None = None
    again: list[TraceEvent] = field(default_factory=list)
    watched: tuple[str, ...] = ()

    @property
    def disturbed(self) -> bool:
        """Return whether a disturbance has struck."""
        return any(event.what == "disturbed" for event in self.trace)


class Windows(Interference):
    """The open windows of a run: while one is open, the operator is down, or its view is late.

    A window ends after a step of the user, or when the user waits for the operator, or reads what it did.

    Attributes:
        world: the world.
        seed: the seed of `random` in the operator.
        left_out: the steps that are left out.
        befores: called before a step.
        effects: called before and after each effect, with whether it is before.
        step: the number of the latest step, which may not have ended.
        wait: how many times the user has waited since.
        rests: see `Run`.
        again: see `Run`.
        finished: whether the scenario has ended.
        probes: whether each key is reconciled once more at each rest, also before a disturbance.
    """

    def __init__(self, world: World, seed: int, left_out: Collection[int] = (), *, probes: bool = False) -> None:
        self.world = world
        self.seed = seed
        self.left_out = left_out
        self.befores: dict[int, list[End]] = {}
        self.effects: list[Callable[[EffectCall, bool], Awaitable[None]]] = []
        self.step = self.wait = 0
        self.rests: dict[tuple[int, int], list[JSONObject]] = {}
        self.again: list[TraceEvent] = []
        self.finished = False
        self.probes = probes
        self._is_free = bool(getattr(current_clock(), "virtual", False))  # in real time, waiting costs time
        self._user_waits = True
        self._horizon = 0.0
        self._open: list[tuple[int, End]] = []

    def open(self, steps: int, end: End) -> None:
        """Open a window that ends after a number of further steps; 0: when the user waits."""
        self._open.append((self.step + steps if steps else 0, end))

    async def finish(self) -> None:
        """End all windows; what has time to happen before happens."""
        if self._open and self.world.process is not None:
            await self._settle()
        while self._open:
            _, end = self._open.pop(0)
            await end()

    async def before_step(self, number: int, /) -> bool:
        """Leave out a step, or begin what lags from here on."""
        if number in self.left_out:
            return False
        for before in self.befores.pop(number, ()):
            await before()
        self.step, self.wait = number, 0  # what the operator does while the step is made belongs to it
        return True

    async def after_step(self, number: int, /) -> None:
        """End the windows that end here."""
        due = [end for until, end in self._open if until == number]
        self._open = [(until, end) for until, end in self._open if until != number]
        for end in due:
            await end()

    async def before_wait(self, horizon: float, /) -> float | None:
        """End the windows in which the user waits; return the horizon, None if there is nobody to wait for.

        A wait after a window looks as far ahead as those in it.
        """
        self._horizon = max(self._horizon, horizon)
        due = [end for until, end in self._open if not until]
        self._open = [(until, end) for until, end in self._open if until]
        self.wait += self._user_waits
        for end in due:
            await end()
        return self._horizon if not self._open or self.world.process is not None else None

    async def after_wait(self) -> None:
        """Keep the state, unless the operator could not do its work; and see whether a further reconcile changes it."""
        if self._open:
            return
        self._horizon = 0.0
        if not self._user_waits:
            return
        self.rests[self.step, self.wait] = self.world.server.objects()
        trace = self.world.trace
        if self.finished or self.probes or (self._is_free and any(event.what == "disturbed" for event in trace)):
            count = len(trace)
            try:
                await self.world.reconcile_all()
                await self._settle()
            finally:
                self.again += trace.events[count:]

    async def _settle(self) -> None:
        """Wait until nothing happens any more, when the user does not."""
        self._user_waits = False
        try:
            await self.world.settle()
        finally:
            self._user_waits = True

    async def after_refusal(self) -> bool:
        """End all windows, if there are any: what the operator has not done yet is in the user's way."""
        if not self._open:
            return False
        await self.before_read()
        return True

    async def before_read(self) -> None:
        """End all windows, so that the user sees what the operator did."""
        if self._open:
            await self.finish()
            await self._settle()

    def started(self, process: OperatorProcess, /) -> None:
        """Seed the numbers of a new process."""
        random.seed(f"{self.seed}/{process.number}")

    async def before_effect(self, call: EffectCall, /) -> None:
        """Strike before an effect."""
        for each in self.effects:
            await each(call, True)

    async def after_effect(self, call: EffectCall, /) -> None:
        """Strike after an effect."""
        for each in self.effects:
            await each(call, False)


Arm = Callable[[World, Windows], None]
"""Prepares a disturbance of a run."""


def execute(
    subject: Subject,
    arms: Sequence[Arm] = (),
    *,
    seed: int = 0,
    left_out: Collection[int] = (),
    options: Mapping[str, Any] | None = None,
    manager_options: Mapping[str, Any] | None = None,
    roles: bool = False,
    probes: bool = False,
) -> Run:
    """Run a scenario once, on an event loop of its own.

    Args:
        subject: what is explored.
        arms: prepare disturbances. Default: none.
        seed: the seed of everything random. Default 0.
        left_out: the steps of the user that are left out, counted from 1. Default: none.
        options: further options of the controllers. Default: none.
        manager_options: further options of the Manager. Default: none.
        roles: whether the operator may do only what its roles allow. Default False.
        probes: whether each key is reconciled once more whenever the operator has come to rest. Default False: after a
            disturbance, and at the end.
    """

    async def live() -> Run:
        async with subject.new_world(
            seed=seed, roles=roles, options=options or {}, manager=manager_options or {}
        ) as world:
            windows = world.interference = Windows(world, seed, left_out, probes=probes)
            for arm in arms:
                arm(world, windows)
            return await _complete(world, windows, subject.scenario)

    return subject.run(live(), seed=seed)


async def _complete(world: World, windows: Windows, scenario: Scenario) -> Run:
    error: Exception | None = None
    try:
        await scenario(world)
        await windows.finish()
        windows.step, windows.wait = windows.step + 1, 0  # what was done since the user's last wait is another state
        windows.finished = True
        await world.settle()
    except Exception as raised:  # noqa: BLE001 - any failure of the scenario is a finding
        error = raised
    trace, check = WorldTrace(world.trace), world.failed_check
    watched = tuple(dict.fromkeys(each.resource for each in world.server.requests(verb="watch")))
    if error is None:
        check = check or first_failure(world.final_checks)
    return Run(trace, world.server.objects(), windows.rests, error, check, windows.again, watched)
