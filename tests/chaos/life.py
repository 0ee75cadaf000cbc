"""One life of an operator: processes that start and end, and random changes by others, all from one seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from reconciler import Client, Manager, ObjectMeta, Request, Watch
from reconciler.apiserver import APIServer
from reconciler.controller import CacheSyncTimeout, ChannelSource, Controller
from reconciler.errors import APIError, NotFound, TransportError
from reconciler.manager import GracePeriodExceeded, LeaderElection, LeadershipLost
from reconciler.testing import VirtualClock
from reconciler.workqueue import ExponentialBackoff
from tests.chaos.controllers import (
    CONFIG_MAP,
    NAMESPACE,
    SETTINGS,
    Gadget,
    Gadgets,
    GadgetSpec,
    Mischief,
    Record,
    Tallies,
    Tally,
    TallySpec,
    now,
)

KINDS: dict[str, Any] = {"Gadget": Gadget, "Tally": Tally}
NAMES = ("a", "b", "c", "d")
CALM = 300.0
"""Seconds after which everything has come to rest: longer than the longest backoff, timeout and due time together."""


class Pod:
    """A process with a manager: restarted when it ends, as Kubernetes does."""

    def __init__(self, life: Life, name: str) -> None:
        self.name = name
        self.manager: Manager | None = None
        self.clock = VirtualClock()
        self.losses = self.starts = 0
        self._life = life
        self._end = asyncio.Event()
        self._again = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"pod {name}")

    async def _run(self) -> None:
        while not self._end.is_set():
            self.starts += 1
            self._again.clear()
            try:
                async with self._started() as self.manager:
                    await self._again.wait()
            except (LeadershipLost, GracePeriodExceeded, CacheSyncTimeout):
                self.losses += 1
                await asyncio.sleep(1)
            finally:
                self.manager = None

    def _started(self) -> contextlib.AbstractAsyncContextManager[Manager]:
        life, rng = self._life, random.Random(f"{self._life.seed} {self.name} {self.starts}")
        # A separate process: its memory is lost with it.
        process = f"{self.name}-{self.starts}"
        self.clock = VirtualClock()
        self.clock.follow(asyncio.get_running_loop())
        client = Client(life.server, clock=self.clock, rng=rng, user_agent=f"operator {self.name}")
        election = LeaderElection("operator", namespace=NAMESPACE, identity=process) if life.replicas > 1 else None
        manager = Manager(client, leader_election=election, grace_period=5)
        items: asyncio.Queue[Request] = asyncio.Queue()
        life.channels[self.name] = items
        gadgets = Gadgets(process, life.record, life.mischief, self.clock)
        common: dict[str, Any] = {"workers": life.workers, "timeout": 40}
        manager.add_controller(
            gadgets, owns=[CONFIG_MAP], debounce=life.debounce, rate_limiter=ExponentialBackoff(0.05, 60), **common
        )
        settings = Watch(CONFIG_MAP, mapper=_of_settings)
        tallies = Tallies(process, life.record, life.mischief)
        manager.add_controller(
            tallies,
            resource=Tally,
            watches=[settings],
            sources=[ChannelSource(items)],
            rate_limiter=ExponentialBackoff(0.05, 60),
            **common,
        )
        return manager.running()

    def restart(self) -> None:
        """Stop the process gracefully and start another one."""
        self._again.set()

    async def end(self) -> None:
        self._end.set()
        self._again.set()
        await self._task


def _of_settings(settings: Any) -> list[Request]:
    return [Request(name, NAMESPACE) for name in NAMES] if settings.name == SETTINGS else []


@dataclass
class Life:
    """A server, the pods in front of it, and changes of its objects by others.

    Attributes:
        happened: what the world did, for a person who reads of a failure.
    """

    server: APIServer
    seed: int
    rng: random.Random
    replicas: int
    workers: int
    debounce: float | None
    record: Record = field(default_factory=Record)
    channels: dict[str, asyncio.Queue[Request]] = field(default_factory=dict)
    happened: list[str] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    background: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.mischief = Mischief(random.Random(f"{self.seed} mischief"))
        self.client = Client(self.server, rng=random.Random(self.seed), user_agent="others", field_manager="others")

    async def set_up(self) -> None:
        await self.server.apply(Gadget, Tally)
        await self.server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        await self.client.create(_settings("0"))
        self.pods = [Pod(self, f"pod{number}") for number in range(self.replicas)]

    # Changes by others

    async def step(self) -> None:
        """Make one change, and let some time pass."""
        action = self.rng.choice(ACTIONS)
        self.happened.append(f"{now():10.3f} {action}")
        with contextlib.suppress(APIError, TransportError):  # the object is missing or already exists
            await getattr(self, f"_{action}")()
        await asyncio.sleep(self.rng.choice([0, 0, 0.003, 0.2, 1, 5, 25]))

    def _target(self) -> tuple[Any, str]:
        kind, name = self.rng.choice(list(KINDS)), self.rng.choice(NAMES)
        self.happened[-1] += f" {kind} {name}"
        return KINDS[kind], name

    async def _create(self) -> None:
        await self.create(*self._target())

    async def create(self, kind: Any, name: str) -> None:
        size = self.rng.randrange(100)
        spec = (
            GadgetSpec(size=size, attempts=self.rng.randint(0, 4), delay=self.rng.choice([1, 7, 30, 60]))
            if kind is Gadget
            else TallySpec(size=size)
        )
        await self.client.create(kind(metadata=ObjectMeta(name=name, namespace=NAMESPACE), spec=spec))

    async def _resize(self) -> None:
        kind, name = self._target()
        await self.client.patch(kind, name, NAMESPACE, patch={"spec": {"size": self.rng.randrange(1000)}})

    async def _label(self) -> None:
        kind, name = self._target()
        labels = {"n": str(self.rng.randrange(1000))}
        await self.client.patch(kind, name, NAMESPACE, patch={"metadata": {"labels": labels}})

    async def _foreign_status(self) -> None:
        kind, name = self._target()
        patch = {"status": {"foreign": str(self.rng.randrange(1000))}}
        await self.client.patch(kind, name, NAMESPACE, patch=patch, subresource="status")

    async def _delete(self) -> None:
        kind, name = self._target()
        await self.client.delete(kind, name, NAMESPACE)

    async def _recreate(self) -> None:
        kind, name = self._target()
        await self.client.delete(kind, name, NAMESPACE)
        await self.create(kind, name)

    async def _spoil_owned(self) -> None:
        name = f"of-{self.rng.choice(NAMES)}"
        if self.rng.random() < 0.5:
            await self.client.delete(CONFIG_MAP, name, NAMESPACE)
        else:
            await self.client.patch(CONFIG_MAP, name, NAMESPACE, patch={"data": {"size": "spoilt"}})

    async def _change_settings(self) -> None:
        patch = {"data": {"value": str(self.rng.randrange(1000))}}
        await self.client.patch(CONFIG_MAP, SETTINGS, NAMESPACE, patch=patch)

    async def _enqueue(self) -> None:
        request = Request(self.rng.choice(NAMES), NAMESPACE)
        for controller in self.controllers():
            controller.enqueue(request, "chaos", after=self.rng.choice([None, 0, 0.5, 20]))

    async def _send_to_source(self) -> None:
        for items in self.channels.values():
            items.put_nowait(Request(self.rng.choice(NAMES), NAMESPACE))

    async def _cut_watches(self) -> None:
        self.server.cut_watches(self.rng.choice([None, "gadgets", "tallies", "configmaps"]))

    async def _stall_watches(self) -> None:
        self.server.stall_watches(self.rng.choice([None, "gadgets", "tallies", "configmaps"]))

    async def _compact(self) -> None:
        self.server.compact()
        self.server.cut_watches()

    async def _restart_server(self) -> None:
        await self.server.restart()

    async def _fault(self) -> None:
        fault = self.rng.choice(FAULTS)
        self.happened[-1] += f" {fault}"
        self.server.faults.add(user_agent="operator", **fault)

    async def _outage(self) -> None:
        self._later(self._cut_off("operator", self.rng.uniform(0.1, 30)))

    async def _partition(self) -> None:
        self._later(self._cut_off(f"operator {self.rng.choice(self.pods).name}", self.rng.uniform(1, 60)))

    async def _restart_pod(self) -> None:
        self.rng.choice(self.pods).restart()

    async def _step_clock(self) -> None:
        self.rng.choice(self.pods).clock.step(self.rng.choice([-7200, -20, 20, 7200]))

    async def _cut_off(self, agent: str, seconds: float) -> None:
        """Block all traffic to and from the server."""
        fault = self.server.faults.add(user_agent=agent, times=None, lost=True)
        self.server.cut_watches()
        await asyncio.sleep(seconds)
        fault.remove()

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    # Coming to rest

    def controllers(self) -> list[Controller]:
        return [each for pod in self.pods if pod.manager is not None for each in pod.manager.controllers]

    def working(self) -> list[Controller]:
        """Return the controllers of the pod that leads, or of the only one."""
        pods = [pod for pod in self.pods if pod.manager is not None]
        leading = [pod for pod in pods if self.replicas == 1 or pod.manager.statistics().leading]
        return [each for pod in leading for each in pod.manager.controllers]

    async def make_peace(self) -> None:
        """End all disturbances, and wait until everything is at rest."""
        while self.background:
            await asyncio.wait(set(self.background))
        self.server.faults.clear()
        self.mischief.on = False
        await asyncio.sleep(CALM)

    async def wake_terminal(self) -> None:
        """Change the objects that wait for a change, because their last reconcile ended with a `TerminalError`."""
        last = {(run.kind, run.request): run for run in self.record.runs}
        for (kind, request), run in last.items():
            if run.outcome == "TerminalError":
                patch = {"metadata": {"labels": {"woken": "yes"}}}
                with contextlib.suppress(NotFound):
                    await self.client.patch(KINDS[kind], request.name, NAMESPACE, patch=patch)
        await asyncio.sleep(CALM)

    async def end(self) -> None:
        for pod in self.pods:
            await pod.end()


def _settings(value: str) -> dict[str, Any]:
    metadata = {"name": SETTINGS, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


@contextlib.asynccontextmanager
async def living(seed: int) -> AsyncIterator[Life]:
    """Start the life of a seed; end it in any case."""
    rng = random.Random(seed)
    order = rng.choice(["before", "after", "late", "seeded"])
    async with APIServer(event_order=order, seed=seed, log=1_000_000) as server:
        life = Life(
            server,
            seed,
            rng,
            replicas=rng.choice([1, 1, 2]),
            workers=rng.randint(1, 3),
            debounce=rng.choice([None, None, 0.2]),
        )
        await life.set_up()
        try:
            yield life
        finally:
            await life.end()


_OFTEN = ("create", "resize", "resize", "label", "foreign_status", "enqueue", "send_to_source", "fault", "fault")
_AT_TIMES = ("delete", "recreate", "spoil_owned", "change_settings", "cut_watches", "compact", "restart_pod")
_SELDOM = ("stall_watches", "restart_server", "outage", "partition", "step_clock")
ACTIONS = (*_OFTEN * 3, *_AT_TIMES * 2, *_SELDOM)

WRITES = ("create", "update", "patch", "delete")
FAULTS: tuple[dict[str, Any], ...] = (
    {"verb": ("update", "patch"), "status": 409, "times": 2},
    {"verb": ("update", "patch"), "status": 409, "times": 8},
    {"verb": WRITES, "status": 429, "retry_after": 1},
    {"verb": WRITES, "status": 500, "times": 2},
    {"verb": WRITES, "status": 500, "after_commit": True},
    {"verb": WRITES, "status": 503, "times": 6},
    {"verb": WRITES, "status": 504, "after_commit": True},
    {"verb": WRITES, "lost": True},
    {"verb": WRITES, "lost": True, "after_commit": True},
    {"verb": WRITES, "stall": True},
    {"verb": WRITES, "latency": (0.01, 3), "times": 5},
    {"verb": ("patch", "update"), "subresource": "status", "lost": True, "after_commit": True},
    {"verb": "get", "status": 500, "times": 3},
    {"verb": ("patch", "update"), "subresource": "status", "status": 422},
    {"verb": ("patch", "update"), "subresource": "status", "status": 403},
    {"verb": ("patch", "update"), "subresource": "status", "cut_watches": True, "after_commit": False},
    {"verb": ("list", "watch"), "status": 500, "times": 2},
    {"verb": "watch", "expired": True},
    {"verb": "list", "status": 429, "retry_after": 2},
    {"verb": "list", "latency": (0.1, 5)},
)
