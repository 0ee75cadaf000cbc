"""Disturbances: what strikes one point of a run, as values that a line of text repeats."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.faults import FaultOptions
from reconciler.controller import current_run
from reconciler.controller.effects import EffectCall
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import LeaderElection
from reconciler.testing.explore.points import Point
from reconciler.testing.explore.run import Windows
from reconciler.testing.operator_process import sending_run
from reconciler.testing.trace import TraceEvent
from reconciler.testing.world import World

Act = Callable[[], Awaitable[None]]

FAMILIES: Mapping[str, str] = {
    "crash": "the process ends before a request, after it took effect, or after an effect, and a new one starts",
    "shutdown": "the process is stopped with SIGTERM at a request, and a new one starts",
    "handover": "the leader loses its lease while a request is on its way, and a standby takes over",
    "lag": "the watches of one kind lag behind",
    "travel": "a new process reads an earlier state at version 0",
    "foreign": "somebody else writes at that moment",
    "refuse": "a request is refused once",
    "lose": "the response to a request is lost",
    "cancel": "the reconcile is cancelled at a request or an effect",
    "slow": "a request takes long, while other keys are reconciled",
}
"""The families of disturbances, each with what it does."""

_RESTART_SECONDS = 1.0
_SLOW_SECONDS = 5.0
_HANDOVER_SECONDS = 40.0
"""Seconds within which a leader that cannot renew its lease ends, and a standby has become leader."""

_DENIAL = 'admission webhook "policy.example.com" denied the request: try later'
_REFUSALS: Mapping[str, FaultOptions] = {
    "429": {"status": 429, "retry_after": 1.0},
    "500": {"status": 500},
    "webhook": {"status": 403, "reason": "Forbidden", "message": _DENIAL},
    "before": {"lost": True},
    "after": {"lost": True, "after_commit": True},
}


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One disturbance of a run. Its `str` repeats it: `parse`.

    Attributes:
        family: a key of `FAMILIES`.
        variant: what exactly happens, such as ``"before"`` or ``"429"``.
        point: the request or effect that it strikes; None for a lag that begins before a step.
        kind: the plural name of the kind that lags from a step on; at a point, that of its object lags.
        since: the step before which a lag begins.
        steps: after how many further steps of the user it ends; 0: when the user waits, or a second later for a crash.
    """

    family: str
    variant: str
    point: Point | None = None
    kind: str = ""
    since: int = 0
    steps: int = 0

    def __str__(self) -> str:
        where = f"@{self.point}" if self.point is not None else f"@{self.kind}:{self.since}"
        return f"{self.family}.{self.variant}{where}+{self.steps}"

    @classmethod
    def parse(cls, text: str) -> Disturbance:
        """Return the disturbance that `str` gave.

        Raises:
            ConfigurationError: it is something else.
        """
        try:
            what, _, rest = text.partition("@")
            family, _, variant = what.partition(".")
            where, _, steps = rest.rpartition("+")
            if family not in FAMILIES:
                raise ValueError(f"unknown family {family!r}")
            if "," in where:
                return cls(family, variant, Point.parse(where), steps=int(steps))
            kind, _, since = where.partition(":")
            return cls(family, variant, None, kind, int(since), int(steps))
        except ValueError as error:
            raise ConfigurationError(f"{text!r} is not a disturbance: copy the line of a report ({error})") from error

    def describe(self) -> str:
        """Return what happens, for people."""
        at = "" if self.point is None else self.point.describe()
        when = {"before": "before", "after": "right after", "effect": "right after"}.get(self.variant, "at")
        return _DESCRIPTIONS[self.family, self.point is None].format(
            at=at,
            when=when,
            kind=self.kind if self.point is None else self.point.resource,
            foreign=_FOREIGN.get(self.variant, ""),
            variant=self.variant,
            since=self.since,
            until=self.since + self.steps - 1,
            answer="takes effect, but is not answered" if self.variant == "after" else "is lost",
            restart=_RESTARTS[min(self.steps, 2)],
        )

    def arm(self, world: World, windows: Windows) -> None:
        """Prepare it in a world whose operator has not started."""
        _ARMS[self.family](self, world, windows)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the controllers that it needs."""
        return {"workers": 4} if self.family == "slow" else {}

    @property
    def manager_options(self) -> dict[str, Any]:
        """Return the options of the manager that it needs."""
        if self.family != "handover":
            return {}
        return {"leader_election": LeaderElection("operator", namespace="default")}


_RESTARTS = (
    "a new one starts a second later",
    "a new one starts after the next step of the user",
    "a new one starts after the next but one step of the user",
)
_FOREIGN = {
    "touch": "annotates its object",
    "owner": "annotates the object that is reconciled",
    "change": "changes its object",
    "delete": "deletes its object",
    "recreate": "deletes its object and creates another one of the same name",
}
_DESCRIPTIONS = {
    ("crash", False): "the process is killed {when} {at}; {restart}",
    ("shutdown", False): "the process is stopped with SIGTERM at {at}, and started again",
    ("handover", False): "the leader loses its lease while {at} is on its way, and a standby takes over",
    ("lag", False): "the watches of {kind} lag for some time from {at} on",
    ("lag", True): "the watches of {kind} lag from before step {since} until after step {until}",
    (
        "travel",
        False,
    ): "the process is killed right after {at}; the new one reads version {variant} at version 0",
    ("foreign", False): "somebody {foreign} right before {at}",
    ("refuse", False): "{at} is refused once ({variant})",
    ("lose", False): "{at} {answer}",
    ("cancel", False): "the reconcile is cancelled {when} {at}",
    ("slow", False): f"{{at}} takes {_SLOW_SECONDS:g} s, while other keys are reconciled",
}


def _strike(each: Disturbance, world: World, windows: Windows, act: Act) -> None:
    """Call `act` at the point of a disturbance, before or after it, as its variant says."""
    point = each.point
    assert point is not None  # noqa: S101 - lags by steps have no point, and do not come here

    async def note_and_act() -> None:
        world.happened(TraceEvent(what="disturbed", at=world.now, author="somebody", text=each.describe()))
        await act()

    if point.verb == "effect":
        windows.effects.append(_EffectStrike(point, each.variant != "effect", note_and_act))
        return

    def call(_: HTTPRequest) -> Awaitable[None]:
        return note_and_act()

    match, faults = point.match(world.name), world.server.faults
    if each.variant == "after":
        faults.add(nth=point.nth, after=call, **match)
    else:
        lost = each.family == "crash" and each.variant == "before"
        faults.add(nth=point.nth, before=call, lost=lost, **match)


class _EffectStrike:
    """Acts before or after the n-th call of an effect with one key."""

    def __init__(self, point: Point, before: bool, act: Act) -> None:
        self._point = point
        self._before = before
        self._act = act
        self._count = 0

    async def __call__(self, call: EffectCall, before: bool, /) -> None:
        if before != self._before or (call.name, call.key) != (self._point.resource, self._point.name):
            return
        self._count += 1
        if self._count == self._point.nth:
            await self._act()


def _crash(each: Disturbance, world: World, windows: Windows) -> None:
    async def kill() -> None:
        world.crash(restart_after=None if each.steps else _RESTART_SECONDS)
        if each.steps:
            windows.open(each.steps, world.ensure_running)

    _strike(each, world, windows, kill)


def _shutdown(each: Disturbance, world: World, windows: Windows) -> None:
    async def stop() -> None:
        world.stop(restart_after=_RESTART_SECONDS)

    _strike(each, world, windows, stop)


def _hand_over(each: Disturbance, world: World, windows: Windows) -> None:
    async def start_standby() -> None:
        await world.start()

    async def lose_lease() -> None:
        verbs, agent = ("get", "update", "create", "patch"), f"{world.name}/1 "
        world.server.faults.add(status=500, times=None, resource="leases", user_agent=agent, verb=verbs)
        await asyncio.sleep(_HANDOVER_SECONDS)

    windows.befores.setdefault(1, []).append(start_standby)
    _strike(each, world, windows, lose_lease)


def _lag(each: Disturbance, world: World, windows: Windows) -> None:
    async def hold() -> None:
        kind = each.kind if each.point is None else each.point.resource
        held = world.server.hold_watches(kind, user_agent=world.name)

        async def release() -> None:
            held.release()

        if each.point is None:
            world.happened(TraceEvent(what="disturbed", at=world.now, author="somebody", text=each.describe()))
            windows.open(each.steps, release)
        else:
            world.later(world.lag, release)

    if each.point is None:
        windows.befores.setdefault(each.since, []).append(hold)
    else:
        _strike(each, world, windows, hold)


def _travel(each: Disturbance, world: World, windows: Windows) -> None:
    async def kill() -> None:
        world.crash(restart_after=_RESTART_SECONDS)
        reads, version = ("get", "list", "watch"), int(each.variant)
        stale = world.server.faults.add(stale_version=version, times=None, verb=reads, user_agent=world.name)

        async def catch_up() -> None:
            stale.remove()

        world.later(world.lag, catch_up)

    _strike(replace(each, variant="after"), world, windows, kill)


def _write(each: Disturbance, world: World, _windows: Windows) -> None:
    point = each.point
    assert point is not None  # noqa: S101 - see `candidates`

    async def write(request: HTTPRequest) -> None:
        world.happened(TraceEvent(what="disturbed", at=world.now, author="somebody", text=each.describe()))
        with contextlib.suppress(ReconcilerError):  # the object may be gone, and the write invalid
            await interfere(world, request, each.variant)

    world.server.faults.add(nth=point.nth, before=write, **point.match(world.name))


def _fail(each: Disturbance, world: World, _windows: Windows) -> None:
    point = each.point
    assert point is not None  # noqa: S101 - see `candidates`

    def note(_: HTTPRequest) -> None:
        world.happened(TraceEvent(what="disturbed", at=world.now, author="somebody", text=each.describe()))

    slow: FaultOptions = {"latency": _SLOW_SECONDS}
    effects = slow if each.family == "slow" else _REFUSALS[each.variant]
    fault: FaultOptions = {**point.match(world.name), **effects, "before": note}
    world.server.faults.add(nth=point.nth, **fault)


def _cancel(each: Disturbance, world: World, windows: Windows) -> None:
    async def cancel() -> None:
        run = current_run() or sending_run()
        name = "" if run is None else f"reconcile {run.controller} {run.request}"
        for task in asyncio.all_tasks():
            if task.get_name() == name and not task.done():
                task.cancel()

    _strike(each, world, windows, cancel)


_ARMS: Mapping[str, Callable[[Disturbance, World, Windows], None]] = {
    "crash": _crash,
    "shutdown": _shutdown,
    "handover": _hand_over,
    "lag": _lag,
    "travel": _travel,
    "foreign": _write,
    "refuse": _fail,
    "lose": _fail,
    "cancel": _cancel,
    "slow": _fail,
}


TOUCHED = "explore.test/touched"
"""The annotation that somebody writes."""

CHANGED = "changed by somebody"
"""The text that somebody writes."""

_SERVERS = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "deletionTimestamp")


async def interfere(world: World, request: HTTPRequest, how: str) -> None:
    """Write to the object of a request as somebody else does; does nothing if there is none.

    Args:
        world: the world.
        request: the request of the operator.
        how: ``"touch"`` annotates the object, ``"owner"`` the one that is reconciled, ``"change"`` changes a text or a
            number of it, ``"delete"`` deletes it, and ``"recreate"`` creates another one after that. If the operator
            was about to delete it, the other one belongs to somebody else.
    """
    if how == "owner":
        await _touch_owner(world)
        return
    path = request.path.removesuffix("/status").removesuffix("/scale")
    found = await _send(world, "GET", path)
    if found.status != 200 or request.method == "POST":
        return
    document: JSONObject = msgspec.json.decode(found.body)
    if how == "touch":
        await _send(world, "PATCH", path, {"metadata": {"annotations": {TOUCHED: "true"}}})
    elif how == "change":
        patch = _other_value({name: value for name, value in document.items() if name in ("data", "spec")})
        if patch:
            await _send(world, "PATCH", path, patch)
    else:
        await _send(world, "DELETE", path)
    if how == "recreate":
        metadata = {name: value for name, value in document["metadata"].items() if name not in _SERVERS}
        if request.method == "DELETE":
            metadata = {name: value for name, value in metadata.items() if name in ("name", "namespace")}
        body = {name: value for name, value in document.items() if name != "status"} | {"metadata": metadata}
        await _send(world, "POST", path.rpartition("/")[0], body)


async def _touch_owner(world: World) -> None:
    run = sending_run()
    for process in world.processes:
        for controller in process.manager.controllers if process.manager is not None else ():
            if run is not None and controller.name == run.controller:
                patch = {"metadata": {"annotations": {TOUCHED: "true"}}}
                await world.somebody.patch(controller.kind, run.request.name, run.request.namespace, patch=patch)
                return


async def _send(world: World, method: str, path: str, body: Mapping[str, Any] | None = None) -> HTTPResponse:
    content = "application/merge-patch+json" if method == "PATCH" else "application/json"
    request = HTTPRequest(
        method,
        path,
        headers={"user-agent": "somebody", "content-type": content},
        body=b"" if body is None else msgspec.json.encode(body),
    )
    return await world.somebody.session.connection.transport.send(request)


def _other_value(document: Any) -> Any:
    """Return a merge patch that changes the first text or number in a document; None if there is none."""
    if isinstance(document, dict):
        for name, value in document.items():
            inner = _other_value(value)
            if inner is not None:
                return {name: inner}
        return None
    if isinstance(document, bool) or document is None:
        return None
    if isinstance(document, str):
        return CHANGED
    return document + 1 if isinstance(document, int) else None
