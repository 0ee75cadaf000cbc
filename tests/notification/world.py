"""Helpers of the operator tests: a server with the CRD, an operator, and scripted channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient
from reconciler.controller import Controller
from reconciler.meta.documents import parse_time
from reconciler.notification import Message, NotificationReconciler, NotificationRequest
from reconciler.notification.channel import ChannelRegistry

TIMELINE = [0.0, 30.0, 90.0, 210.0, 450.0]
DOWN = ConnectionError("no route to host")

virtual = pytest.mark.virtual_time


@dataclass
class Recorder:
    """A channel that records its calls and raises the given errors in order, then the last one."""

    name: str
    errors: list[BaseException | None] = field(default_factory=list)
    action: Callable[[], Awaitable[None]] | None = None
    calls: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    async def deliver(self, message: Message) -> None:
        self.calls.append(round(asyncio.get_running_loop().time(), 6))
        self.messages.append(message)
        if self.action is not None:
            await self.action()
        error = self.errors[min(len(self.calls), len(self.errors)) - 1] if self.errors else None
        if error is not None:
            raise error


def document(
    channels: Sequence[str], *, name: str = "disk-full", spec: dict[str, Any] | None = None, **policy: Any
) -> dict[str, Any]:
    """Return a request with exact backoffs; without channels it is routed."""
    return {
        "apiVersion": "notify.reconciler.dev/v1alpha1",
        "kind": "NotificationRequest",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "Escalation",
            "priority": "High",
            "subject": "Disk almost full",
            "body": "93 %",
            **({"channels": list(channels)} if channels else {}),
            "retryPolicy": {"jitter": 0, **policy},
            **(spec or {}),
        },
    }


@dataclass
class World:
    """A server with the CRD, a client, and what the tests inspect."""

    server: APIServer
    client: Client
    cache: Cache = field(init=False)

    async def create(
        self, *channels: str, name: str = "disk-full", spec: dict[str, Any] | None = None, **policy: Any
    ) -> NotificationRequest:
        request = NotificationRequest.from_dict(document(channels, name=name, spec=spec, **policy))
        return await self.client.create(request)

    async def status(self, name: str = "disk-full") -> dict[str, Any]:
        found = await self.client.get(NotificationRequest, name, "default")
        return found.to_dict().get("status") or {}

    async def condition(self, type: str, name: str = "disk-full") -> dict[str, Any]:
        (found,) = (each for each in (await self.status(name))["conditions"] if each["type"] == type)
        return found

    async def annotate(self, value: str) -> None:
        patch = {"metadata": {"annotations": {"seen-by": value}}}
        await self.client.patch(NotificationRequest, "disk-full", "default", patch=patch)

    @property
    def writes(self) -> int:
        """Return the status writes that took effect."""
        found = self.server.requests(subresource="status", resource="notificationrequests")
        return sum(1 for request in found if request.effective)

    @asynccontextmanager
    async def operator(
        self,
        *channels: Any,
        registry: ChannelRegistry | None = None,
        workers: int = 1,
        grace: float = 30.0,
        **options: Any,
    ) -> AsyncIterator[tuple[Controller, NotificationReconciler]]:
        """Run the operator; `options` go to the reconciler."""
        reconciler = NotificationReconciler(channels=registry or channels, **options)
        async with Cache(self.client) as cache:
            self.cache = cache
            client = CachedClient(self.client, cache)
            controller = Controller(reconciler, cache=cache, client=client, workers=workers)
            await controller.start()
            try:
                yield controller, reconciler
            finally:
                await controller.stop(grace=grace)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        yield World(server, client)


def offsets(status: dict[str, Any], channel: str) -> list[float]:
    """Return when the attempts on a channel started, in seconds since the first reconcile."""
    start = parse_time(status["queuedAt"])
    return [
        (parse_time(entry["timestamp"]) - start).total_seconds()
        for entry in status["deliveryAttempts"]
        if entry["channel"] == channel
    ]
