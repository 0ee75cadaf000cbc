"""The run of an operator on a fork, in virtual time, until nothing happens any more; the plan is what it changed."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import FrameType
from typing import Any

from reconciler._core.redaction import redact, redact_error
from reconciler.apiserver import APIServer
from reconciler.apiserver.fork import Fork
from reconciler.apiserver.serving.request_log import Defined
from reconciler.apiserver.state import DEFINITIONS, ForkReport
from reconciler.cli.crd import own_definitions
from reconciler.cli.plan.document import (
    OperatorPlan,
    PlannedBy,
    PlannedCall,
    PlannedError,
    PlannedTimer,
    Unrest,
    planned_object,
)
from reconciler.cli.plan.watch import PlanWatch
from reconciler.cli.run import program_name
from reconciler.controller import Controller, current_run
from reconciler.controller.effects import EffectCall
from reconciler.controller.reconcile.cycle import ReconcileRun, current_reconcile
from reconciler.controller.reconcile.watchdogs import CodePlace, frames_of, place_of
from reconciler.errors import APIError, ConfigurationError, ReconcilerError, describe_error
from reconciler.manager import Manager
from reconciler.meta import Request
from reconciler.status.write_guard import callers_of
from reconciler.status.write_interception import Addressed, listen, stop_listening
from reconciler.testing.operator_process import OperatorFailed, OperatorProcess
from reconciler.testing.trace import TraceEvent, WorldTrace
from reconciler.testing.world import NotSettled, World

Key = tuple[str, Request]
"""A controller and a key of it."""

Calls = defaultdict[tuple[str, str, str, bool], Counter[str]]
"""The calls that a plan shows, and how often the reconciles of each object made them."""

_EVENTS = ("events", "events.events.k8s.io")
_MIN_HOT = 200
_MAX_FIELDS = 3
_MAX_KEYS = 3
_PLACES = 2
"""Frames of an error that are shown."""
_TASK_WAITS = 1.0
"""Seconds in which a task that starts a thread waits for it."""
_RECENT = 3
"""How many changes of a field in a row make it one that never comes to rest."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a plan runs at most.

    Attributes:
        hours: virtual hours; timers within them are waited for.
        rounds: reconciles of a key, after which it is not waited for.
        seconds: CPU seconds of this process, and seconds in which nothing happens.
    """

    hours: float = 1.0
    rounds: int = 10
    seconds: float = 600.0


class OutsideRequest(ReconcilerError):
    """A request of another library was refused, because a plan changes nothing outside of its fork."""


class PlanTrace(WorldTrace):
    """The trace of a plan: what is needed of each key and object, and not each event.

    Args:
        rounds: reconciles of a key, after which it is not waited for.
        progress: called occasionally with the number of reconciles.
    """

    def __init__(self, rounds: int, progress: Callable[[int], None]) -> None:
        super().__init__()
        self._rounds, self._progress = rounds, progress
        self.hot = 0  # successive reconciles of keys that are not waited for
        self.reconciles: Counter[Key] = Counter()
        self.effects: Calls = defaultdict(Counter)
        self.causes: defaultdict[tuple[str, str], dict[tuple[str, Request], ReconcileRun]] = defaultdict(dict)
        self.recent: defaultdict[tuple[Key, str, str], list[tuple[str, ...]]] = defaultdict(list)

    def add(self, event: TraceEvent) -> None:
        """Count an event."""
        run, request = event.run, event.request
        if event.what == "begun" and run is not None:
            key = run.controller, run.request
            self.reconciles[key] += 1
            self.hot = self.hot + 1 if self.reconciles[key] > self._rounds else 0
            if self.reconciles.total() % 100 == 0:
                self._progress(self.reconciles.total())
        elif event.effect is not None:
            effect = event.effect
            lasting = effect.declaration.once or bool(effect.declaration.undoes)
            _count(self.effects, run, effect.name, redact(effect.key), lasting=lasting)
        elif request is not None and request.writes and request.effective and request.resource not in _EVENTS:
            resource = f"{request.resource}.{request.group}" if request.group else request.resource
            name = f"{request.namespace}/{request.name}" if request.namespace else request.name
            if run is not None:
                by = (run.controller, run.request)
                self.causes[resource, name].setdefault(by, run)
                recent = self.recent[by, f"{request.kind} {name}", resource]
                recent.append(request.changed)
                del recent[:-_RECENT]


class _Planned:
    """The handler of effects: none is called."""

    planning = True

    async def __call__(self, call: EffectCall, /) -> Any:
        return call.planned()


class _Outside:
    """Refuses the requests that reconciles send through other libraries; a fork cannot stand in for those."""

    def __init__(self) -> None:
        self.calls: Calls = defaultdict(Counter)

    def on_write(
        self, _addressed: Addressed, _request: str, _frame: FrameType | None, /
    ) -> Callable[[int | None], None]:
        return lambda _code: None

    def on_request(self, request: str, frame: FrameType | None) -> None:
        if request.startswith(("GET ", "HEAD ", "OPTIONS ")) and "/api/v" not in request and "/apis/" not in request:
            return
        lines = [f"{each.f_code.co_filename}:{number} in {each.f_code.co_name}" for each, number in callers_of(frame)]
        line = lines[0] if lines else _place_of_task()
        _count(self.calls, current_run(), request, line, lasting=True)
        raise OutsideRequest(
            f"{request} is not sent, because this is a plan ({line}): use self.client for the cluster, and declare "
            "other calls with @effect"
        )


class _PlannedWorld(World):
    """A world that has the cluster's definitions, with the changes that the operator's own classes make to them."""

    trace: PlanTrace
    owns_interrupts = True

    def __init__(
        self, target: str, setup: Callable[[Manager], Awaitable[None]], fork: Fork, bounds: Bounds, **options: Any
    ) -> None:
        super().__init__(setup, name=program_name(target), effects=_Planned(), **options)
        self._target, self._setup, self._fork, self._bounds = target, setup, fork, bounds
        self.watch = PlanWatch(bounds.seconds, self._progress, self.check_bounds)
        self.notes: list[str] = []

    def _progress(self) -> object:
        copied = self._fork.report.copied
        return self._activity, self.trace.reconciles.total(), len(copied), sum(copied.values())

    async def start_within_bounds(self) -> None:
        """Start the operator.

        Raises:
            OperatorFailed: it did not start, or not in time.
        """
        if not await self.watch.until_stopped(self.start()) and not self.trace.reconciles:
            at = f" at {self.watch.blocked}" if self.watch.blocked is not None else ""
            raise OperatorFailed(f"it had not started after {self.watch.stopped}{at}")

    async def settle_within_bounds(self) -> str:
        """Wait until nothing happens any more; return the bound that ended it, or an empty text."""
        if self.watch.stopped:
            return self.watch.stopped
        try:
            await self.settle(horizon=None, limit=self._bounds.hours * 3600, reconciles=None)
        except NotSettled as error:
            return error.bound
        if self.process is None:
            raise OperatorFailed("it ended by itself, without an error")
        left = self.left()
        return f"{self._bounds.rounds} reconciles of a key" if left else ""

    async def close(self) -> None:
        """Do the same as `World.close`; code of the operator that blocks meanwhile is broken off."""
        with self.watch.watching():
            await super().close()

    def left(self) -> set[Key]:
        """Return the keys that would be reconciled within the bounds, without those that fail."""
        pending = self.processes[0].pending(self._bounds.hours * 3600 - self.now)
        return {(controller.name, state.key) for controller, state in pending} - self.failures.keys()

    def waits_for(self, controller: str, key: Request) -> bool:
        """Return whether a key was not reconciled too often."""
        return self.trace.reconciles[controller, key] <= self._bounds.rounds

    def _pause(self, dues: Sequence[float]) -> float:
        return max(self.quiet, min(dues, default=0.0) - self.quiet)

    def _exceeded_bound(self) -> str:
        if self.trace.hot > max(_MIN_HOT, len(self.trace.reconciles)):
            return f"{self._bounds.rounds} reconciles of each key that was still active"
        return self.watch.stopped

    def _take_over_failures(self) -> None:
        if self._fork.failure is not None:
            raise self._fork.failure
        if not self.watch.stopped:
            super()._take_over_failures()

    def can_be_idle_after(self, run: ReconcileRun) -> bool:  # noqa: ARG002 - a plan is about now, not about timers
        """Return True: what a timer does later is not planned."""
        return True

    async def set_up(self, manager: Manager) -> None:
        """Add the controllers to a manager, and apply the definitions."""
        await self._setup(manager)
        known = self._fork.before.get(DEFINITIONS, {})
        kinds: list[object] = [kind for each in manager.controllers for kind in each.kinds]
        classes = (kind.crd() for kind in kinds if isinstance(kind, Defined))
        for definition in (*classes, *own_definitions(manager, self._target)):
            name = definition["metadata"]["name"]
            if (before := known.get(name)) is not None:
                metadata = {key: value for key, value in before["metadata"].items() if key != "managedFields"}
                spec = {**definition["spec"], "conversion": before["spec"].get("conversion")}
                definition = {**definition, "metadata": metadata, "spec": spec}  # noqa: PLW2901 - the same, completed
            try:
                await self.server.apply(definition)
            except APIError as error:
                self.notes.append(
                    f"the cluster keeps its definition {name}, since it would refuse the code's: {error.message}"
                )


async def make_plan(
    target: str,
    setup: Callable[[Manager], Awaitable[None]],
    server: APIServer,
    *,
    bounds: Bounds,
    namespaces: list[str],
    progress: Callable[[int], None],
) -> OperatorPlan:
    """Run an operator on a fork, and return what it would do. Run it under virtual time.

    Args:
        target: the name of the operator.
        setup: adds its controllers to a manager.
        server: the fork.
        bounds: when to stop.
        namespaces: the namespaces that the operator watches; empty for all.
        progress: called occasionally with the number of reconciles.

    Raises:
        ConfigurationError: the operator did not start, or ended by itself.
        APIError, TransportError: the cluster refused a copy, or does not respond.
    """
    fork, outside = server.forked, _Outside()
    if fork is None:
        raise ConfigurationError("a plan needs a fork of a cluster")
    options = {"namespaces": namespaces} if namespaces else {}
    world = _PlannedWorld(target, setup, fork, bounds, server=server, manager_options=options)
    world.trace = PlanTrace(bounds.rounds, progress)
    listen(outside)
    try:
        async with world:
            with world.watch.watching():
                await world.start_within_bounds()
                stopped = await world.settle_within_bounds()
                if not stopped and await world.watch.until_stopped(fork.collect_dependents()):
                    stopped = await world.settle_within_bounds()
            stopped = stopped or world.watch.stopped
            pending = world.left() if stopped else set()
            plan = _plan_of(target, fork, world)
            plan.timers = list(_timers(world.processes[0], pending))
            plan.outside = _calls(outside.calls)
            restless = dict(_restless(world.trace, pending))
            plan.unrest = list(_unrest(restless))
            if stopped and not (pending and pending <= {key for key, _ in restless}):
                plan.incomplete = _incomplete(world, stopped, pending)
            plan.notes = [*_notes(fork), *dict.fromkeys(world.notes)]
            return plan
    except OperatorFailed as error:
        raise fork.failure or ConfigurationError(f"{target}: {error}") from error
    finally:
        stop_listening(outside)


def _timers(process: OperatorProcess, pending: set[Key]) -> Iterator[PlannedTimer]:
    found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for controller in process.controllers:
        for request in controller.queue.keys():  # noqa: SIM118
            state = controller.queue.explain(request)
            if state.due is not None and (controller.name, request) not in pending:
                found[controller.name, int(state.due).bit_length()].append(state.due)
    for (name, _), dues in sorted(found.items()):
        yield PlannedTimer(name, len(dues), min(dues))


def _plan_of(target: str, fork: Fork, world: _PlannedWorld) -> OperatorPlan:
    trace = world.trace
    kinds = {each.name: each.kind.kind for each in world.processes[0].controllers}
    plan = OperatorPlan(target, fork.report, reconciles=trace.reconciles.total())
    for change in fork.changes():
        if change.resource in _EVENTS:
            plan.events += change.before is None
            continue
        found = planned_object(change.before, change.after)
        if found is not None:
            runs = trace.causes.get((change.resource, change.key), {}).values()
            found.by = [
                PlannedBy(run.controller, kinds.get(run.controller, ""), str(run.request), sorted(run.reasons))
                for run in runs
            ]
            plan.objects.append(found)
    plan.objects.sort(key=lambda each: each.key)
    plan.errors = [
        PlannedError(
            controller,
            str(request),
            redact_error(describe_error(error)),
            ", ".join(frames_of(error.__traceback__)[-_PLACES:]),
        )
        for (controller, request), error in sorted(world.failures.items(), key=str)
        if not isinstance(error, OutsideRequest)
    ]
    plan.effects = _calls(trace.effects)
    return plan


def _incomplete(world: _PlannedWorld, stopped: str, pending: set[Key]) -> str:
    """Return what ended a plan too early, and what it left."""
    keys = [f"{controller} {request}" for controller, request in sorted(pending, key=str)]
    more = [f"{len(keys) - _MAX_KEYS} more"] * (len(keys) > _MAX_KEYS)
    still = ", ".join([*keys[:_MAX_KEYS], *more]) or "no object waits"
    places = [
        world.watch.blocked,
        *(place for controller in world.processes[0].controllers for place in _places(controller, pending)),
    ]
    at = next((f" at {place}" for place in places if place is not None), "")
    return f"the operator still worked after {stopped} ({still}){at}"


def _places(controller: Controller, pending: set[Key]) -> Iterator[CodePlace | None]:
    return (controller.explain(request).place for name, request in pending if name == controller.name)


def _count(calls: Calls, run: ReconcileRun | None, name: str, key: str, *, lasting: bool) -> None:
    controller, subject = ("", "") if run is None else (run.controller, str(run.request))
    calls[name, key, controller, lasting][subject] += 1


def _calls(calls: Calls) -> list[PlannedCall]:
    return [PlannedCall(*call, found.total(), list(found)) for call, found in calls.items()]


def _restless(trace: PlanTrace, pending: set[Key]) -> Iterator[tuple[tuple[Key, str], tuple[str, ...]]]:
    """Yield a key, an object, and the fields of it that each of the key's latest reconciles changed."""
    for (key, name, _), changes in trace.recent.items():
        fields = tuple(sorted(set.intersection(*map(set, changes))))
        if key in pending and len(changes) == _RECENT and fields:
            yield (key, name), fields


def _unrest(restless: Mapping[tuple[Key, str], tuple[str, ...]]) -> Iterator[Unrest]:
    """Yield what never comes to rest, by kind and fields."""
    found: defaultdict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for ((controller, _), name), fields in restless.items():
        found[controller, name.partition(" ")[0], fields[:_MAX_FIELDS]].append(name)
    for (controller, kind, fields), names in found.items():
        yield Unrest(controller, kind, len(names), list(fields), names[0])


def _place_of_task() -> str:
    """Return where the reconcile that started this thread waits; an empty text if there is none or it does not wait."""
    reconcile, place = current_reconcile(), Future[object]()
    if reconcile is not None and reconcile.task is not None:
        reconcile.task.get_loop().call_soon_threadsafe(lambda: place.set_result(place_of(reconcile)))
        with contextlib.suppress(TimeoutError):
            return str(place.result(_TASK_WAITS))
    return ""


def _notes(fork: Fork) -> Iterator[str]:
    report: ForkReport = fork.report
    for kind, message in report.denied.items():
        yield f"{kind} could not be listed, so the plan takes it that there are none: {message}"
    for kind, why in report.missing.items():
        yield f"{kind} looks empty to the operator: {why}"
    if report.replaced and "secrets" in report.copied:
        yield (
            f"{report.replaced} values of Secrets were replaced, so what the operator computes from them, such as a "
            "checksum, differs: --secrets copies them"
        )
    if (behind := fork.version_note()) is not None:
        yield behind
