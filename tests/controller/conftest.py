"""Controllers in the test process: the embedded API server, a cache and a client, on the clock of the test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.controller import Controller, Outcome, Reconciler, ResourceReconciler
from reconciler.meta import Request
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.status import StatusBatcher


class WidgetSpec(Model):
    size: int = 1


class WidgetStatus(ConditionedStatus):
    phase: str | None = None
    seen_size: int | None = None
    foreign: str | None = None
    runs: int = 0


class Widget(Resource[WidgetSpec, WidgetStatus], group="example.com", version="v1"):
    """A widget."""


class WidgetReconciler(ResourceReconciler[Widget]):
    """A reconciler that records each reconcile and calls the function of a test as its body."""

    def __init__(self, body: Callable[..., Awaitable[Outcome]] | None = None) -> None:
        self.body = body
        self.runs: list[tuple[float, frozenset[str]]] = []
        self.sizes: list[int] = []
        self.active: set[Request] = set()

    async def reconcile_object(self, obj: Widget, status: StatusBatcher[WidgetStatus], /) -> Outcome:
        assert obj.key not in self.active, "one key is reconciled twice at a time"
        self.active.add(obj.key)
        try:
            self.runs.append((current_clock().monotonic(), self.run.reasons))
            self.sizes.append(obj.spec.size)
            status.set(phase="Ready", seen_size=obj.spec.size)
            return await self.body(self, obj, status) if self.body is not None else None
        finally:
            self.active.discard(obj.key)

    @property
    def times(self) -> list[float]:
        return [round(time, 3) for time, _ in self.runs]


class KeyReconciler(Reconciler):
    """A reconciler by key that calls the function of a test."""

    def __init__(self, body: Callable[..., Awaitable[Outcome]] | None = None) -> None:
        self.body = body
        self.runs: list[tuple[float, Request, frozenset[str]]] = []

    async def reconcile(self, request: Request, /) -> Outcome:
        self.runs.append((current_clock().monotonic(), request, self.run.reasons))
        return await self.body(self, request) if self.body is not None else None

    @property
    def times(self) -> list[float]:
        return [round(time, 3) for time, *_ in self.runs]

    @property
    def keys(self) -> list[str]:
        return [str(request) for _, request, _ in self.runs]


class World:
    """A server, a cache and clients for it, and the controllers that use them."""

    def __init__(self, server: APIServer, *, resync: float | None = None) -> None:
        self.server = server
        self.client = Client(server, rng=random.Random(1), user_agent="controller")
        self.foreign = Client(server, rng=random.Random(2), user_agent="foreign", field_manager="foreign")
        self.cache = Cache(self.client, rng=random.Random(3), resync=resync)
        self.cached = CachedClient(self.client, self.cache)
        self.controllers: list[Controller] = []

    def controller(self, reconciler: Reconciler, **options: Any) -> Controller:
        made = Controller(reconciler, cache=self.cache, client=self.cached, **options)
        self.controllers.append(made)
        return made

    async def start(self, reconciler: Reconciler, **options: Any) -> Controller:
        made = self.controller(reconciler, **options)
        await self.cache.start()
        await made.start()
        return made

    async def stop(self) -> None:
        for controller in self.controllers:
            await controller.stop(grace=1.0)
        await self.cache.stop()

    async def widget(self, name: str = "w", size: int = 1, **metadata: Any) -> Widget:
        return await self.foreign.create(
            Widget(metadata=ObjectMeta(name=name, namespace="ns", **metadata), spec=WidgetSpec(size=size))
        )

    async def resize(self, size: int, name: str = "w") -> None:
        await self.foreign.patch(Widget, name, "ns", patch={"spec": {"size": size}})

    async def read(self, name: str = "w") -> Widget:
        return await self.foreign.get(Widget, name, "ns")

    def status_writes(self, name: str = "w", user_agent: str = "controller") -> int:
        requests = self.server.requests(subresource="status", name=name, user_agent=user_agent)
        return len([request for request in requests if request.effective])

    def writes(self, name: str = "w", user_agent: str = "controller") -> int:
        return len(self.server.requests(verb={"patch", "update"}, name=name, user_agent=user_agent))


@pytest.fixture(params=["after"])
def event_order(request) -> str:
    return request.param


@pytest.fixture
async def world(event_order) -> AsyncIterator[World]:
    async with APIServer(event_order=event_order, seed=7) as server:
        await server.apply(Widget)
        await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
        made = World(server)
        try:
            yield made
        finally:
            await made.stop()


async def quiet(seconds: float = 1.0) -> None:
    """Let virtual time pass, until everything that was started has happened."""
    await asyncio.sleep(seconds)
