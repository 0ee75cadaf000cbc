"""Two kinds and their controllers, which record everything they do for the judge."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from reconciler import (
    ConditionedStatus,
    Model,
    Outcome,
    Reconciler,
    Request,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
    TerminalError,
)
from reconciler.clock import current_clock
from reconciler.errors import NotFound
from reconciler.testing import VirtualClock
from reconciler.testing.virtual_clock import EPOCH

NAMESPACE = "ns"
CONFIG_MAP = "v1/ConfigMap"
SETTINGS = "settings"
"""A ConfigMap that every Tally reads."""


class Entry(Model):
    """One reconcile that was recorded."""

    id: str


class Attempt(Model):
    """One attempt, and the earliest time of the next one."""

    n: int
    due: float


class GadgetSpec(Model):
    size: int = 1
    attempts: int = 3
    delay: float = 20


class GadgetStatus(ConditionedStatus):
    phase: str | None = None
    foreign: str | None = None
    ledger: list[Entry] = Field(default_factory=list)
    attempts: list[Attempt] = Field(default_factory=list)


class Gadget(Resource[GadgetSpec, GadgetStatus], group="chaos.reconciler.dev", version="v1"):
    """An object with a finalizer, an owned ConfigMap and attempts that must not be early."""


class TallySpec(Model):
    size: int = 1


class TallyStatus(ConditionedStatus):
    seen: int | None = None
    setting: str | None = None
    foreign: str | None = None
    runs: int = 0
    token: str | None = None
    ledger: list[Entry] = Field(default_factory=list)


class Tally(Resource[TallySpec, TallyStatus], group="chaos.reconciler.dev", version="v1", plural="tallies"):
    """An object whose reconciles are counted."""


@dataclass(slots=True)
class Run:
    """One reconcile."""

    process: str
    kind: str
    request: Request
    id: str
    started: float
    reasons: frozenset[str]
    uid: str = ""
    attempt: int | None = None
    made: float = 0.0
    due: float = 0.0
    ended: float | None = None
    outcome: str = "in progress"


@dataclass
class Record:
    """The actions of all processes, in order."""

    runs: list[Run] = field(default_factory=list)
    active: dict[tuple[str, Request], Run] = field(default_factory=dict)
    overlaps: list[str] = field(default_factory=list)

    def begin(self, run: Run) -> None:
        other = self.active.get((run.kind, run.request))
        if other is not None:
            self.overlaps.append(f"{run.kind} {run.request}: {run.process} at {run.started}, {other.process} has it")
        self.active[run.kind, run.request] = run
        self.runs.append(run)

    def end(self, run: Run, outcome: str) -> None:
        run.ended, run.outcome = now(), outcome
        if self.active.get((run.kind, run.request)) is run:
            del self.active[run.kind, run.request]


@dataclass
class Mischief:
    """The disturbances inside reconciles."""

    rng: random.Random
    on: bool = True

    async def strike(self) -> Outcome:
        """Wait a moment; sometimes fail, time out or requeue."""
        await asyncio.sleep(self.rng.choice([0, 0, 0.01, 0.5, 3]) if self.on else 0.5)
        chance = self.rng.random()
        if not self.on:
            return None
        if chance < 0.08:
            raise RuntimeError("chance")
        if chance < 0.12:
            raise TerminalError("chance")
        if chance < 0.14:
            await asyncio.sleep(1000)
        if chance < 0.2:
            return Result(again=True)
        if chance < 0.25:
            return Result(requeue_after=self.rng.uniform(0.1, 30))
        return None


def now() -> float:
    return current_clock().monotonic()


class Recorded(Reconciler):
    """A mixin that records each reconcile."""

    kind: str
    process: str
    record: Record
    mischief: Mischief

    def begin(self, request: Request) -> Run:
        run = Run(self.process, self.kind, request, self.run.reconcile_id, now(), self.run.reasons)
        self.record.begin(run)
        return run


async def noted(record: Record, run: Run, work: Any) -> Outcome:
    try:
        outcome: Outcome = await work
    except asyncio.CancelledError:
        record.end(run, "cancelled")
        raise
    except BaseException as error:
        record.end(run, type(error).__name__)
        raise
    record.end(run, "success")
    return outcome


class Gadgets(ResourceReconciler[Gadget], Recorded):
    """A reconciler that keeps a ConfigMap per Gadget, and makes attempts with stored due times."""

    kind = "Gadget"

    def __init__(self, process: str, record: Record, mischief: Mischief, clock: VirtualClock) -> None:
        super().__init__()
        self.process, self.record, self.mischief, self.clock = process, record, mischief, clock
        self._runs: dict[Request, Run] = {}

    async def reconcile(self, request: Request, /) -> Outcome:
        run = self._runs[request] = self.begin(request)
        try:
            return await noted(self.record, run, super().reconcile(request))
        finally:
            del self._runs[request]

    async def reconcile_object(self, obj: Gadget, status: StatusBatcher[GadgetStatus], /) -> Outcome:
        run = self._runs[obj.key]
        run.uid = obj.metadata.uid or ""
        wait = self._attempt(obj, status, run)
        status.set(phase=f"size {obj.spec.size}")
        status.set_condition("Ready", True, reason="Sized", message=f"size {obj.spec.size}")
        asked = await self.mischief.strike()
        owned = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"of-{obj.name}", "namespace": NAMESPACE},
            "data": {"size": str(obj.spec.size)},
        }
        await self.client.apply(owned, owner=obj, force=True)
        if wait is None or (asked is not None and (asked.again or (asked.requeue_after or 0) < wait)):
            return asked
        return Result(requeue_after=wait)

    def _attempt(self, obj: Gadget, status: StatusBatcher[GadgetStatus], run: Run) -> float | None:
        """Make the attempt that is due; return the seconds until the next one, None after the last."""
        made = obj.status.attempts
        server_time = (self.clock.now() + self.client.clock_offset - EPOCH).total_seconds()
        if made and made[-1].due > server_time:
            return made[-1].due - server_time
        if len(made) >= obj.spec.attempts:
            return None
        run.attempt, run.made, run.due = len(made) + 1, now(), server_time + obj.spec.delay
        status.append("ledger", {"id": run.id}, key="id")
        status.append("attempts", {"n": run.attempt, "due": run.due}, key="n")
        return obj.spec.delay

    async def finalize(self, obj: Gadget, status: StatusBatcher[GadgetStatus], /) -> Outcome:
        self._runs[obj.key].uid = obj.metadata.uid or ""
        asked = await self.mischief.strike()
        if asked is None:
            try:
                await self.client.delete(CONFIG_MAP, f"of-{obj.name}", NAMESPACE)
            except NotFound:
                return None
        return asked


class Tallies(Recorded):
    """A reconciler that counts its reconciles by key, with its own batcher."""

    kind = "Tally"

    def __init__(self, process: str, record: Record, mischief: Mischief) -> None:
        super().__init__()
        self.process, self.record, self.mischief = process, record, mischief

    async def reconcile(self, request: Request, /) -> Outcome:
        run = self.begin(request)
        return await noted(self.record, run, self._count(run))

    async def _count(self, run: Run) -> Outcome:
        try:
            obj = await self.client.get(Tally, run.request.name, run.request.namespace)
        except NotFound:
            return None
        settings = await self.client.get(CONFIG_MAP, SETTINGS, NAMESPACE)
        run.uid = obj.metadata.uid or ""
        async with StatusBatcher(self.client, obj, token="token") as status:
            status.increment("runs")
            status.append("ledger", {"id": run.id}, key="id")
            status.set(seen=obj.spec.size, setting=settings.to_dict()["data"]["value"])
            return await self.mischief.strike()
