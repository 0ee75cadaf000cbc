"""The public API, exactly as users write it: every form runs and works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes.aio
import kubernetes_asyncio
import pytest
from pydantic import Field

from reconciler import (
    Client,
    ConditionedStatus,
    Manager,
    Model,
    ObjectMeta,
    Outcome,
    Reconciler,
    Request,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
    TerminalError,
    Watch,
)
from reconciler.apiserver import APIServer
from reconciler.notification import (
    Channel,
    ConsoleChannel,
    FileChannel,
    Message,
    NotificationReconciler,
    NotificationRequest,
)
from reconciler.workqueue import ExponentialBackoff, MaxOf, QueueShutDown, TokenBucket, WorkQueue


class DatabaseSpec(Model):
    size: int = Field(ge=1, le=100, description="Gigabytes")


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None
    delivery_attempts: list[str] = Field(default_factory=list)
    total_attempts: int = 0


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1", short_names=("db",)):
    """A database (becomes the description in the CRD)."""


def config_for(db: Database) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": db.name, "namespace": db.namespace}}


class DatabaseReconciler(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[DatabaseStatus]) -> Outcome:
        if db.spec.size > 50:
            raise TerminalError("too big")
        await self.client.apply(config_for(db), owner=db)
        await self.client.live.get(Database, db.name, db.namespace)
        status.set(DatabaseStatus(phase="Ready"))
        status.set_condition("Ready", True, reason="Provisioned", message="1 of 1")
        self.events.normal(db, "Provisioned", "1 of 1")
        return Result(requeue_after=300)

    async def finalize(self, db: Database, status: StatusBatcher[DatabaseStatus]) -> Outcome: ...


class Nodes(Reconciler):
    async def reconcile(self, request: Request) -> Outcome: ...


def made(name: str = "db1") -> Database:
    return Database(metadata=ObjectMeta(name=name, namespace="prod"), spec=DatabaseSpec(size=3))


async def test_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with APIServer() as server:
        await server.apply(Database)
        server.write_kubeconfig(tmp_path / "kubeconfig")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        async with Client.from_config() as client:
            manager = Manager(
                client,
                namespaces=["prod"],
                leader_election="database-operator",
                metrics="127.0.0.1:0",
                health="127.0.0.1:0",
            )
            manager.add_controller(
                DatabaseReconciler(),
                owns=["v1/ConfigMap"],
                workers=4,
                watches=[Watch("v1/Secret", mapper=lambda secret: [Request(secret.name, "prod")])],
            )
            manager.add_controller(Nodes(), resource="v1/Node")
            running = asyncio.create_task(manager.run())
            await client.create(made())
            await client.wait_for(Database, "db1", "prod", until=lambda db: db.status.phase == "Ready", timeout=30)
            manager.stop()
            await running


@pytest.mark.parametrize("library", [kubernetes_asyncio, kubernetes.aio], ids=lambda library: library.__name__)
@pytest.mark.parametrize("name", ["ApiClient", "CustomObjectsApi", "CoreV1Api"])
async def test_an_existing_controller_that_awaits(library: Any, name: str, tmp_path: Path) -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database)
        obj = (await client.create(made())).to_dict()
        server.write_kubeconfig(tmp_path / "kubeconfig")
        await library.config.load_kube_config(str(tmp_path / "kubeconfig"))
        async with library.client.ApiClient() as api_client:
            api = api_client if name == "ApiClient" else getattr(library.client, name)(api_client)
            async with StatusBatcher(api, obj) as status:
                for channel in ("console", "file"):
                    status.append("deliveryAttempts", channel, keep_last=50)
                    status.increment("totalAttempts")
        assert status.written is True
        assert status.object["status"] == {"deliveryAttempts": ["console", "file"], "totalAttempts": 2}
        assert len(server.requests(subresource="status", name="db1")) == 1


def updated(api: Any) -> tuple[bool | None, Any]:
    with StatusBatcher(api, "example.com/v1/Database", name="db1", namespace="prod") as status:
        status.set(phase="Ready")
        status.mutate(lambda s: s.update(totalAttempts=s.get("totalAttempts", 0) + 1))
    return status.written, status.object["status"]


@pytest.mark.parametrize("name", ["ApiClient", "CustomObjectsApi"])
async def test_an_existing_controller_that_blocks(name: str, tmp_path: Path) -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database)
        await client.create(made())
        kubernetes.config.load_kube_config(str(server.write_kubeconfig(tmp_path / "kubeconfig")))
        with kubernetes.client.ApiClient() as api_client:
            api = api_client if name == "ApiClient" else getattr(kubernetes.client, name)(api_client)
            assert await asyncio.to_thread(updated, api) == (True, {"phase": "Ready", "totalAttempts": 1})


@pytest.mark.virtual_time
async def test_one_write_and_faults() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database)
        manager = Manager(client)
        manager.add_controller(DatabaseReconciler())
        async with manager.running():
            await client.create(made())
            await client.wait_for(Database, "db1", "prod", until=lambda db: db.status.phase == "Ready", timeout=30)
            db = await client.get(Database, "db1", "prod")
            await client.patch(Database, "db1", "prod", patch={"metadata": {"labels": {"a": "b"}}})
            assert db.status.conditions[0].reason == "Provisioned"
        assert len(server.requests(subresource="status", name="db1")) == 1
        server.faults.add(status=409, times=2, subresource="status")
        async with StatusBatcher(client, db) as status:
            status.set(phase="Busy", overwrite=True)
        assert [entry.status for entry in server.requests(subresource="status")] == [200, 409, 409, 200]
        server.faults.add(latency=60, verb="get")
        server.faults.add(status=429, retry_after=7, verb="get")
        before = asyncio.get_running_loop().time()
        await client.get(Database, "db1", "prod")
        assert asyncio.get_running_loop().time() - before >= 7
        async with manager_of_nodes(client).running():
            server.faults.add(expired=True, verb="watch")
            server.faults.add(cut_watches=True)
            await client.patch(Database, "db1", "prod", patch={"metadata": {"labels": {"a": "c"}}})
            await asyncio.sleep(60)


def manager_of_nodes(client: Client) -> Manager:
    manager = Manager(client)
    manager.add_controller(Nodes(), resource="v1/Node")
    return manager


@pytest.mark.virtual_time
async def test_the_queue() -> None:
    q: WorkQueue[str] = WorkQueue(
        rate_limiter=MaxOf(ExponentialBackoff(base=0.005, maximum=1000), TokenBucket(rate=10, burst=100))
    )
    q.add("a")
    q.add("b", after=1.5, priority=10, reason="resync")
    q.add_rate_limited("c")
    q.forget("a")
    assert (q.retries("c"), q.retract("b", "resync"), len(q)) == (1, True, 1)
    async with q.item() as key:
        assert key == "a"
    key = await q.get()
    q.done(key)
    assert key == "c"
    await q.shutdown(drain=True)
    with pytest.raises(QueueShutDown):
        await q.get()


class Pager:
    name = "pager"

    def __init__(self) -> None:
        self.heard: list[tuple[int, str]] = []

    async def deliver(self, message: Message) -> None:
        self.heard.append((message.attempt, message.idempotency_key))


@pytest.mark.virtual_time
async def test_notifications(tmp_path: Path) -> None:
    pager = Pager()
    channels: list[Channel] = [ConsoleChannel(), FileChannel(str(tmp_path)), pager]
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        manager = Manager(client)
        manager.add_controller(NotificationReconciler(channels=channels), workers=10)
        request = {
            "apiVersion": NotificationRequest.gvk.api_version,
            "kind": "NotificationRequest",
            "metadata": {"name": "n1", "namespace": "prod"},
            "spec": {"type": "Escalation", "subject": "s", "body": "b", "channels": ["console", "file", "pager"]},
        }
        async with manager.running():
            await client.create(request)
            await client.wait_for(
                NotificationRequest, "n1", "prod", until=lambda found: found.status.phase == "Sent", timeout=60
            )
    ((attempt, key),) = pager.heard
    assert (attempt, bool(key)) == (1, True)
