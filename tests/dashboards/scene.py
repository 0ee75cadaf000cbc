"""Two replicas of an operator, and a notification operator, in three eventful minutes.

There are failing, hanging and hot keys, a storm of new objects, conflicts, and a call that blocks the event loop. An
object cannot be decoded, and a mapper fails. The leader changes, writes are refused, a receiver is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from reconciler import (
    Client,
    Manager,
    ObjectMeta,
    Outcome,
    Request,
    ResourceReconciler,
    Result,
    StatusBatcher,
    TerminalError,
    Watch,
)
from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import LeaderElection
from reconciler.notification import NotificationOperator, NotificationOptions, NotificationRequest
from reconciler.workqueue import ExponentialBackoff
from tests.controller.test_unreadable import CRD, Breaking, crate
from tests.manager.console.scene import Backup, BackupReconciler, Database, DatabaseSpec, DatabaseStatus
from tests.notification.receivers import answer, receiver
from tests.notification.world import Recorder, document

SECONDS = 180


class Refusing(Breaking):
    """A transport that can refuse writes."""

    refuses = False

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if self.refuses and request.method in {"PATCH", "PUT"} and "lease" not in request.path:
            return HTTPResponse(429, {"retry-after": "1"}, b'{"kind": "Status", "code": 429}')
        return await super().send(request)


class DatabaseReconciler(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[DatabaseStatus]) -> Outcome:
        match db.name:
            case "orders":
                raise LookupError("no disk of 400 GB in zone eu-1a")
            case "reports":
                raise TerminalError("the size is below the minimum")
            case "hangs":
                await asyncio.sleep(3600)
        await asyncio.sleep(random.uniform(0.01, 0.2))
        status.set(phase=f"Ready with {db.spec.size}")
        return Result(requeue_after=20) if db.namespace == "team-b" else None


def failing(_: object) -> list[Request]:
    raise LookupError("no database of this name")


async def channel_of_varying_speed() -> None:
    await asyncio.sleep(random.uniform(0.02, 0.6))


def metadata(name: str, namespace: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace=namespace)


def replica(client: Client, name: str) -> Manager:
    election = LeaderElection("database-operator", "ops", name, lease_duration=4, renew_deadline=3, retry_period=1)
    manager = Manager(client, metrics="127.0.0.1:0", leader_election=election)
    limiter = ExponentialBackoff(0.5, 20)
    watches = [Watch("v1/ConfigMap", mapper=failing), Watch("unreadable.reconciler.dev/v1/Crate", mapper=lambda _: [])]
    manager.add_controller(DatabaseReconciler(), workers=4, timeout=5, rate_limiter=limiter, watches=watches)
    manager.add_controller(BackupReconciler(), workers=2)
    return manager


@contextlib.asynccontextmanager
async def scene(scratch: Path) -> AsyncIterator[dict[str, dict[str, str]]]:
    """Start it; give for each job the URLs of its pods' metrics, by pod."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(APIServer())
        await server.apply(Database, Backup, NotificationRequest, CRD)
        transport = Refusing(server, b"\xff")
        clients = [await stack.enter_async_context(Client(transport)) for _ in range(3)]
        user = await stack.enter_async_context(Client(server))
        first, second = (replica(client, f"database-operator-{number}") for number, client in enumerate(clients[:2]))
        web = await stack.enter_async_context(receiver(*[answer(200)] * 40, *[answer(503)] * 5, answer(200)))
        notifying = notification_operator(clients[2], web.url, scratch)
        await stack.enter_async_context(notifying.running())
        leads = asyncio.Event()
        stories = await stack.enter_async_context(asyncio.TaskGroup())
        for story in (
            databases(user),
            notifications(user),
            lead(first, leads),
            heat_a_key(user),
            fight_for_the_status(user),
            block_the_event_loop(),
            refuse(transport),
        ):
            task = stories.create_task(story)
            stack.callback(task.cancel)
        await leads.wait()
        await asyncio.sleep(2)  # for its election
        await stack.enter_async_context(second.running())
        yield {
            "databases": {f"database-operator-{n}": str(m.metrics_url) for n, m in enumerate((first, second))},
            "notifications": {"notification-operator-0": str(notifying.metrics_url)},
        }


def notification_operator(client: Client, url: str, scratch: Path) -> Manager:
    manager = Manager(client, metrics="127.0.0.1:0")
    webhook = {"url": url, "allow_local_addresses": True, "breaker_failures": 3, "rate_per_minute": 120}
    routing = {"route": {"receiver": "ops"}, "receivers": [{"name": "ops", "webhook_configs": [webhook]}]}
    file = scratch / "routing.yaml"
    file.write_text(yaml.safe_dump(routing))
    pager = Recorder("pager", action=channel_of_varying_speed)
    options = NotificationOptions(
        console=False, log=False, channels=[pager], routing_file=file, audit_file=scratch / "audit"
    )
    NotificationOperator(options).add_to(manager)
    return manager


async def databases(client: Client) -> None:
    """Create what the operator works on; later an unmappable and an undecodable object, and a storm of new ones."""
    for number in range(20):
        await client.create(Database(metadata=metadata(f"cache-{number}", "team-b"), spec=DatabaseSpec(size=10)))
    for name in ("orders", "customers", "reports", "hangs"):
        await client.create(Database(metadata=metadata(name, "team-a"), spec=DatabaseSpec(size=100)))
    for number in range(6):
        await client.create(Backup(metadata=metadata(f"nightly-{number}", "team-a"), spec=DatabaseSpec()))
    await asyncio.sleep(25)
    await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "ops"}})
    await client.create(crate("strange", spec="MARK"))
    await asyncio.sleep(10)
    for number in range(300):
        await client.create(Database(metadata=metadata(f"new-{number}", "team-c"), spec=DatabaseSpec(size=1)))


async def lead(leader: Manager, leads: asyncio.Event) -> None:
    """Run a replica for a minute."""
    async with leader.running():
        leads.set()
        await asyncio.sleep(65)


async def refuse(transport: Refusing) -> None:
    """Refuse writes for a while, as an API server with too much to do does."""
    await asyncio.sleep(150)
    transport.refuses = True
    await asyncio.sleep(15)
    transport.refuses = False


async def heat_a_key(client: Client) -> None:
    """Change an object three times a second."""
    await asyncio.sleep(85)
    for size in range(100, 200):
        await client.patch(Database, "customers", "team-a", patch={"spec": {"size": size}}, field_manager="another")
        await asyncio.sleep(0.3)


async def fight_for_the_status(client: Client) -> None:
    """Write the same status as the operator."""
    await asyncio.sleep(95)
    for size in range(400):
        name = f"cache-{size % 10}"
        await client.patch(Database, name, "team-b", patch={"spec": {"size": size}})
        await asyncio.sleep(0.03)
        await client.patch(Database, name, "team-b", patch={"status": {"phase": "Mine"}}, subresource="status")
        await asyncio.sleep(0.07)


async def block_the_event_loop() -> None:
    await asyncio.sleep(140)
    time.sleep(1.5)  # noqa: ASYNC251 - so that the panel shows one


async def notifications(client: Client) -> None:
    """Ask for notifications: some for the pager, some routed."""
    for number in range(2 * SECONDS):
        channels = ["pager"] if number % 3 else []
        policy: dict[str, Any] = {"maxAttempts": 4, "initialBackoffSeconds": 5, "maxBackoffSeconds": 20}
        await client.create(document(channels, name=f"n-{number}", **policy))
        await asyncio.sleep(0.5)
