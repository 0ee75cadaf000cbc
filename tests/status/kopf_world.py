"""A server over sockets, a client, and a real kopf operator between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import kopf

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.objects import ConditionedStatus, Model, Resource

T = TypeVar("T")

RESOURCE = ("kopf.example.com", "v1", "databases")
KIND = "kopf.example.com/v1/Database"


class Spec(Model):
    size: int = 1


class Status(ConditionedStatus):
    phase: str | None = None
    total: int | None = None
    log: list[str] | None = None
    mark: str | None = None


class Database(Resource[Spec, Status], group="kopf.example.com", version="v1"):
    """A database."""


class Server(APIServer):
    """A hook that runs just before, or just after, kopf's next status patch is executed."""

    before: Callable[[], Awaitable[Any]] | None = None
    after: Callable[[], Awaitable[Any]] | None = None

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if request.method != "PATCH" or not request.path.endswith("/status"):
            return await super().send(request)
        if not request.headers.get("user-agent", "").startswith("kopf/"):
            return await super().send(request)
        before, self.before = self.before, None
        if before is not None:
            await before()
        try:
            return await super().send(request)
        finally:
            after, self.after = self.after, None
            if after is not None:
                await after()


class World:
    """The objects that a test uses."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server, self.client = server, client
        self.loop = asyncio.get_running_loop()
        self.registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self.registry)(self._login)
        kopf.on.startup(registry=self.registry)(self._settings)

    def on(self, what: str, **options: Any) -> Any:
        """Return kopf's decorator for a handler of the kind: ``"create"``, ``"update"``, ``"timer"`` …"""
        where: Any = kopf if what in ("timer", "daemon") else kopf.on
        return getattr(where, what)(*RESOURCE, registry=self.registry, **options)

    def _login(self, **_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=self.server.url, token=self.server.token)

    def _settings(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.networking.error_backoffs = (0.05, 0.05)
        settings.queueing.error_delays = (0.05,)
        settings.queueing.exit_timeout = 0.5

    @asynccontextmanager
    async def operator(self, **options: Any) -> AsyncIterator[None]:
        """Run the operator; at the end it has stopped, and all its requests are in the server's log."""
        ready, stop = threading.Event(), threading.Event()
        operator = kopf.operator(
            registry=self.registry,
            standalone=True,
            namespaces=["default"],
            ready_flag=ready,
            stop_flag=stop,
            **options,
        )
        # In a thread with its own event loop: kopf stops all other tasks of its loop when it ends.
        running = asyncio.create_task(asyncio.to_thread(asyncio.run, operator))
        try:
            await asyncio.to_thread(ready.wait, 30)
            yield
        finally:
            stop.set()
            await asyncio.wait_for(running, 30)

    def here(self, coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Run a coroutine on the test's event loop, from a handler's."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    async def make(self, **spec: Any) -> None:
        document = {
            "apiVersion": "kopf.example.com/v1",
            "kind": "Database",
            "metadata": {"name": "db1", "namespace": "default"},
            "spec": {"size": 1, **spec},
        }
        await self.client.create(document)

    async def resize(self, size: int) -> None:
        await self.client.patch(KIND, "db1", "default", patch={"spec": {"size": size}})

    async def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        def holds(obj: Any) -> bool:
            return bool(condition(obj.to_dict()))

        return (await self.client.wait_for(KIND, "db1", "default", until=holds, timeout=30)).to_dict()

    async def until_handled(self, size: int = 1, **status: Any) -> None:
        """Wait until kopf has run all handlers for a size, and the status has the given values."""

        def holds(document: dict[str, Any]) -> bool:
            last = annotations(document).get(LAST_HANDLED, "")
            found = document.get("status") or {}
            return f'"size":{size}' in last.replace(" ", "") and all(found.get(k) == v for k, v in status.items())

        await self.until(holds)

    async def status(self) -> dict[str, Any]:
        return (await self.client.get(KIND, "db1", "default")).to_dict().get("status") or {}

    async def foreign(self, status: dict[str, Any]) -> None:
        """Write a status as another controller."""
        await self.client.patch(KIND, "db1", "default", patch={"status": status}, subresource="status")

    def status_patches(self) -> list[int]:
        """Return the responses to kopf's patches of the status."""
        found = self.server.requests(verb="patch", name="db1", subresource="status", user_agent="kopf/")
        return [entry.status for entry in found]

    def other_patches(self) -> int:
        """Return how many other patches kopf sent."""
        return len(self.server.requests(verb="patch", name="db1", subresource="", user_agent="kopf/"))


LAST_HANDLED = "kopf.zalando.org/last-handled-configuration"


def annotations(document: dict[str, Any]) -> dict[str, str]:
    return document["metadata"].get("annotations") or {}
