"""Runs of a scenario with a program in any language, each with one disturbance at the server."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reconciler._core.wire import JSONObject
from reconciler.apiserver import Callbacks, Fault, Lose, Match, Refuse, Stale
from reconciler.apiserver.serving.request_log import LoggedRequest
from reconciler.apiserver.verbs.watch import WatchHold
from reconciler.errors import OutcomeUnknown
from reconciler.http import HTTPRequest
from reconciler.testing.differences import compare_states
from reconciler.testing.explore.program import USER, ProgramWorld
from reconciler.testing.explore.states import objects_in
from reconciler.testing.world import NotSettled, OperatorFailed, is_bookkeeping

Step = Callable[[ProgramWorld], Awaitable[object]]
"""What the user does."""
Kind = Literal["crash-after", "crash-before", "lost-after", "lost-before", "refused", "stale", "time-travel"]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One disturbance of a run.

    Attributes:
        kind: what happens: the program is killed before a write or after it, its response or the write is lost, the
            write is refused with 500, the watches of a kind lag over steps of the user, or a program that starts again
            reads an earlier state at version "0".
        verb: the verb of the write.
        resource: the plural name of its kind, or of the kind whose watches lag.
        subresource: of the write.
        nth: which of these writes, from 1.
        step: the step of the user before which the watches begin to lag, or after which the program starts again, from
            1.
        steps: over how many steps the watches lag.
    """

    kind: Kind
    verb: str = ""
    resource: str = ""
    subresource: str = ""
    nth: int = 1
    step: int = 1
    steps: int = 1

    def __str__(self) -> str:
        """Return the name, which selects it."""
        where = "/".join(filter(None, (self.resource, self.subresource)))
        if self.kind == "stale":
            return f"{self.kind}:{where}:{self.step}-{self.step + self.steps - 1}"
        return (
            f"{self.kind}:{self.step}" if self.kind == "time-travel" else f"{self.kind}:{self.verb}:{where}:{self.nth}"
        )


@dataclass(slots=True)
class ProgramRun:
    """What a run showed.

    Attributes:
        states: the objects after each step of the user.
        writes: the effective writes of the program.
        findings: what is wrong, each an oracle's name and lines for people.
        reached: whether the disturbance happened.
        timeline: the writes and faults, a line each.
        seconds: how long it took.
    """

    states: list[list[JSONObject]] = field(default_factory=list)
    writes: list[LoggedRequest] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)
    reached: bool = True
    timeline: list[str] = field(default_factory=list)
    seconds: float = 0.0


class ProgramRuns:
    """A scenario that a program goes through again and again.

    Args:
        new_world: returns a new world, whose kubeconfig is written to a directory.
        steps: what the user does. The last one deletes what the first one created.
    """

    def __init__(self, new_world: Callable[[Path], ProgramWorld], steps: Sequence[Step]) -> None:
        self._new_world = new_world
        self._steps = steps
        self.reference = ProgramRun()

    async def run_reference(self) -> ProgramRun:
        """Run the scenario twice without a disturbance, and return what is wrong already.

        Cancellation kills the program.
        """
        first = self.reference = await self._run(None)
        if not first.findings:
            second = await self._run(None)
            for before, after in zip(first.states, second.states, strict=False):
                if not second.findings and (differences := compare_states(before, after)):
                    text = "two runs without a disturbance end differently:\n" + "\n".join(map(str, differences))
                    second.findings.append(("deterministic", text))
            first.findings += second.findings
        return first

    def disturbances(self) -> Iterator[Disturbance]:
        """Yield what can be disturbed in the reference run, the most telling first."""
        counts: Counter[tuple[str, str, str]] = Counter()
        writes: list[tuple[str, str, str, int]] = []
        for write in self.reference.writes:
            place = write.verb, write.resource, write.subresource
            counts[place] += 1
            writes.append((*place, counts[place]))
        resources = dict.fromkeys(write.resource for write in self.reference.writes)
        lags = [
            Disturbance("stale", resource=resource, step=step, steps=steps)
            for steps in (1, 2)
            for resource in resources
            for step in range(1, len(self._steps) - steps + 1)
        ]
        travels = [Disturbance("time-travel", step=step) for step in range(2, len(self._steps) + 1)]
        kinds: tuple[Kind, ...] = ("crash-after", "crash-before", "lost-after", "refused", "lost-before")
        queues = [*([Disturbance(kind, *write) for write in writes] for kind in kinds[:2]), travels, lags]
        queues += ([Disturbance(kind, *write) for write in writes] for kind in kinds[2:])
        while any(queues):
            for queue in queues:
                if queue:
                    yield queue.pop(0)

    async def run(self, disturbance: Disturbance) -> ProgramRun:
        """Run the scenario with a disturbance, and compare it with the reference. Cancellation kills the program."""
        found = await self._run(disturbance)
        if found.findings or not found.reached:
            return found
        for number, name in ((-2, "before the deletion"), (-1, "at the end")):
            held = (
                disturbance.kind == "stale" and disturbance.step + disturbance.steps > len(self._steps) and number == -2
            )
            if not held and (differences := compare_states(self.reference.states[number], found.states[number])):
                text = f"the state {name} differs from that of the reference run:\n" + "\n".join(map(str, differences))
                found.findings.append(("same-end", text))
                break
        expected, counted = _counted(self.reference.writes), _counted(found.writes)
        for place, count in counted.items():
            if count > expected[place]:
                verb, resource = place
                text = f"{count} times {verb} of {resource}, in the reference run {expected[place]} times"
                found.findings.append(("no-excess", text))
        return found

    async def _run(self, disturbance: Disturbance | None) -> ProgramRun:
        run = ProgramRun()
        with tempfile.TemporaryDirectory() as directory:
            async with self._new_world(Path(directory)) as world:
                try:
                    if disturbance is None:
                        await self._undisturbed(world, run)
                    else:
                        await self._disturbed(world, run, disturbance)
                except NotSettled as error:
                    run.findings.append(("settles", str(error)))
                except OperatorFailed as error:
                    run.findings.append(("runs", str(error)))
                run.writes = [
                    event.request
                    for event in world.trace
                    if event.process and event.request is not None and is_work(event.request)
                ]
                run.timeline = world.server.log.timeline()
                run.seconds = world.now
        return run

    async def _undisturbed(self, world: ProgramWorld, run: ProgramRun) -> None:
        before = objects_in(world)
        for number, step in enumerate(self._steps, 1):
            if number == len(self._steps):
                await self._check_stable(world, run)
            await step(world)
            await world.settle()
            run.states.append(objects_in(world))
        left = [each for each in compare_states(before, run.states[-1]) if each.what == "created"]
        if left:
            run.findings.append(("nothing-left", "after the deletion there is still:\n" + "\n".join(map(str, left))))

    async def _check_stable(self, world: ProgramWorld, run: ProgramRun) -> None:
        """Start the program again, which reads everything anew: it must not write."""
        written = len(world.trace.writes())
        world.crash_and_restart(0.0)
        await world.settle()
        found = [event.request for event in world.trace.writes()[written:] if event.request is not None]
        if again := [entry.summary() for entry in found if is_work(entry)]:
            run.findings.append(
                ("stable", "started again, it writes although nothing changed: " + "; ".join(again[:5]))
            )

    async def _disturbed(self, world: ProgramWorld, run: ProgramRun, disturbance: Disturbance) -> None:
        fault = _arm(world, disturbance)
        before = world.now
        first, last = disturbance.step, disturbance.step + disturbance.steps - 1
        hold: WatchHold | None = None
        for number, step in enumerate(self._steps, 1):
            begun = world.now
            if disturbance.kind == "stale" and number == first:
                hold = world.server.hold_watches(disturbance.resource)
            await step(world)
            await world.settle()
            if hold is not None and number == last:
                hold.release()
                await world.settle()
            if disturbance.kind == "time-travel" and number == first:
                fault = await _travel(world, world.now - before)
            before = begun
            run.states.append(objects_in(world))
        run.reached = fault is None or fault.hits > 0


def is_work(entry: LoggedRequest) -> bool:
    """Return whether a request is a write of more than a Lease or an Event."""
    return entry.writes and not is_bookkeeping(entry)


def _counted(writes: Sequence[LoggedRequest]) -> Counter[tuple[str, str]]:
    counted = (each for each in writes if each.effective and each.verb in ("create", "delete"))
    return Counter((each.verb, each.resource) for each in counted)


def _arm(world: ProgramWorld, disturbance: Disturbance) -> Fault | None:
    """Let the server disturb the write; None for a disturbance of reads."""

    def kill(_request: HTTPRequest) -> None:
        world.crash_and_restart()

    def kill_before(_request: HTTPRequest) -> None:
        world.crash_and_restart()
        raise OutcomeUnknown("the program was killed")

    effects: dict[Kind, Any] = {
        "crash-after": Callbacks(after=kill),
        "crash-before": Callbacks(before=kill_before),
        "lost-after": Lose(after_commit=True),
        "lost-before": Lose(),
        "refused": Refuse(500),
    }
    if disturbance.kind not in effects:
        return None
    place = Match(user=USER, verb=disturbance.verb, resource=disturbance.resource, subresource=disturbance.subresource)
    return world.server.faults.add(place, effects[disturbance.kind], nth=disturbance.nth)


async def _travel(world: ProgramWorld, age: float) -> Fault:
    """Start the program again, and show it an earlier state where it reads at version "0"; count those reads."""
    reads = Match(user=USER, verb=("get", "list", "watch"))
    stale = world.server.faults.add(reads, Stale(age), times=None)
    stale.hits = 0
    world.crash_and_restart(0.0)
    await world.settle()
    stale.remove()
    return stale
