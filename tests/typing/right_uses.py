"""Correct uses of the public API; mypy --strict and pyright accept every line.

Only the type checkers read this file; `test_typing.py` runs them.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any, assert_type

import kubernetes_asyncio.client
import pytest
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector
from lightkube.models.meta_v1 import ObjectMeta as Meta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Secret
from pydantic import BaseModel, ConfigDict, Field

from reconciler import (
    Client,
    Condition,
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
    Unstructured,
    Watch,
)
from reconciler.apiserver import APIServer
from reconciler.cache import CachedClient, CachedObject
from reconciler.client import retry_on_conflict
from reconciler.client.writes import Written
from reconciler.controller import ChannelSource, ControllerOptions, every_owner
from reconciler.events import EventRecorder
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind, request_of
from reconciler.notification import (
    Channel,
    ConsoleChannel,
    DeferredDeliveryError,
    FileChannel,
    Message,
    NotificationReconciler,
    NotificationRequest,
    PermanentDeliveryError,
    RetryableDeliveryError,
)
from reconciler.objects import Duration, PrinterColumn, Quantity, Scale, generate_crd, rule, schema_extra
from reconciler.objects.kinds import KindLike
from reconciler.status import StatusWriter, guard
from reconciler.status.writer import Strategy
from reconciler.testing import Cluster, virtual_time
from reconciler.workqueue import ExponentialBackoff, MaxOf, QueueShutDown, TokenBucket, WorkQueue


class DatabaseSpec(Model):
    size: int = Field(ge=1, le=100, description="Gigabytes")
    storage_class: str | None = None


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1", short_names=("db",)):
    """A database (becomes the description in the CRD)."""


class Range(BaseModel):
    model_config = ConfigDict(json_schema_extra=schema_extra(rules=[rule("self.minimum <= self.maximum")]))

    minimum: int
    maximum: int
    tags: list[str] = Field(default_factory=list, json_schema_extra=schema_extra(list_type="set"))


class RangeStatus(BaseModel):
    phase: str = ""


class OneModel(
    Resource[Range],
    group="example.com",
    version="v1beta1",
    kind="Range",
    plural="ranges",
    singular="range",
    scope="Cluster",
    short_names=["rg"],
    categories=("all",),
    printer_columns=[PrinterColumn("Minimum", ".spec.minimum", priority=1)],
    selectable_fields=(".spec.minimum",),
    rules=[rule("self.metadata.name != 'x'", message="x is taken")],
    storage=False,
    served=True,
):
    pass


class PlainStatus(Resource[Range, RangeStatus], group="example.com", version="v1"):
    pass


class NoModel(Resource, group="example.com", version="v1"):
    pass


def objects() -> None:
    db = Database(metadata=ObjectMeta(name="db1", namespace="prod"), spec=DatabaseSpec(size=3))
    assert_type(db.spec, DatabaseSpec)
    assert_type(db.status, DatabaseStatus)
    assert_type(db.status.phase, str | None)
    assert_type(db.status.conditions, list[Condition])
    assert_type(db.key, Request)
    assert_type(db.namespace, str | None)
    assert_type(Database.from_dict({}), Database)
    assert_type(Database.crd(), dict[str, Any])
    one = OneModel(metadata=ObjectMeta(name="a"), spec=Range(minimum=1, maximum=2))
    assert_type(one.status, ConditionedStatus)
    plain = PlainStatus(metadata=ObjectMeta(name="a"), spec=Range(minimum=1, maximum=2), status=RangeStatus(phase="x"))
    assert_type(plain.status, RangeStatus)
    kinds(Database, OneModel, PlainStatus, NoModel, "apps/v1/Deployment", Database.gvk)
    generate_crd(Database, OneModel, PlainStatus, NoModel)


def kinds(*kinds: KindLike) -> None: ...


def deployment_for(db: Database) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": db.name}}


class DatabaseReconciler(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[DatabaseStatus]) -> Outcome:
        await self.client.apply(deployment_for(db), owner=db)
        await self.client.live.get(Database, db.name, db.namespace)
        status.set(DatabaseStatus(phase="Ready"))
        status.set(phase="Ready")
        status.set_condition("Ready", True, reason="Provisioned", message="1 of 1")
        self.events.normal(db, "Provisioned", "1 of 1")
        return Result(requeue_after=300)

    async def finalize(self, db: Database, status: StatusBatcher[DatabaseStatus]) -> Outcome:
        if db.spec.size > 10:
            raise TerminalError("too big to delete")
        return None


class InAThread(ResourceReconciler[Database]):
    def reconcile_object(self, obj: Database, batcher: StatusBatcher[DatabaseStatus]) -> Outcome:
        found = self.wait(self.client.get("v1/ConfigMap", "a", obj.namespace))
        assert_type(found, Unstructured)
        return Result(again=True)

    def finalize(self, obj: Database, batcher: StatusBatcher[DatabaseStatus]) -> Outcome:
        return None


class Untyped(ResourceReconciler):
    async def reconcile_object(self, obj: Any, status: StatusBatcher) -> None:
        status.set(phase="Ready")


class Nodes(Reconciler):
    async def reconcile(self, request: Request) -> Outcome:
        return Result(requeue_after=1.5, priority=10)


class NodesInAThread(Reconciler):
    def reconcile(self, node: Request) -> Result:
        return Result()


async def main() -> None:
    async with Client.from_config() as client:
        manager = Manager(
            client,
            namespaces=["prod"],
            leader_election="database-operator",
            metrics="0.0.0.0:8080",
            health="0.0.0.0:8081",
        )
        manager.add_controller(
            DatabaseReconciler(),
            owns=["apps/v1/Deployment"],
            workers=4,
            watches=[Watch("v1/ConfigMap", mapper=lambda cm: [Request(cm.name, "prod")])],
        )
        manager.add_controller(Nodes(), resource="v1/Node")
        shared = ControllerOptions(resource="v1/Node", workers=2)
        manager.add_controller(Nodes(), **(shared | ControllerOptions(name="others")))
        await manager.run()


def names_of(databases: Sequence[Database]) -> list[str]:
    return [db.name for db in databases]


async def client_verbs(client: Client) -> None:
    db = await client.get(Database, "db1", "prod")
    assert_type(db, Database)
    assert_type(await client.get("v1/Node", "n1"), Unstructured)
    found = await client.list(Database, "prod", label_selector="a=b")
    assert_type(found[0], Database)
    names_of(found)
    assert_type(found.resource_version, str)
    assert_type(await client.create(db), Database)
    await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, dry_run=True)
    assert_type(await client.update(db, subresource="status"), Database)
    patched = await client.patch(Database, "db1", "prod", patch={"metadata": {"labels": {"a": "b"}}})
    assert_type(patched, Database)
    await client.patch(Database, "db1", "prod", patch=[{"op": "remove", "path": "/spec/a"}], strategy="json")
    await client.apply(db, owner=db, force=True, subresource="status")
    await client.delete(Database, "db1", "prod", propagation="Foreground")
    await client.delete(db)
    await client.delete_all_of(Database, "prod", label_selector={"a": "b"})
    await client.wait_for(Database, "db1", "prod", until=lambda db: db.status.phase == "Ready", timeout=30)
    await client.wait_for("v1/ConfigMap", "a", "prod", until=lambda cm: cm["data"] == {}, timeout=30)
    async for event in client.watch(Database, "prod"):
        assert_type(event.object, Database)
    response = await client.send(HTTPRequest("GET", "/version"))
    assert_type(response, HTTPResponse)
    assert_type(client.in_namespace("prod"), Client)
    assert_type(client.with_options(field_manager="me", field_validation="Strict", dry_run=True), Client)
    assert_type(client.through(lambda transport: transport), Client)
    assert_type(await client.patch_from(db, patched, optimistic_lock=True, subresource="status"), Database)
    assert_type(await client.patch_from({}, {}), Unstructured)
    async for page in client.list_pages(Database, "prod", limit=10):
        assert_type(page[0], Database)
    assert_type(await client.get_metadata(Database, "db1", "prod"), Unstructured)
    assert_type((await client.list_metadata("v1/Node"))[0], Unstructured)
    ensured, done = await client.create_or_patch(db, lambda db: db.spec)
    assert_type(ensured, Database)
    assert_type(done, Written)
    assert_type(await retry_on_conflict(lambda: client.update(db)), Database)
    assert_type(await client.get_subresource("apps/v1/Deployment", "d", "prod", subresource="scale"), Unstructured)
    assert_type(await client.patch("apps/v1/Deployment", "d", patch={"spec": {}}, subresource="scale"), Unstructured)


async def cached_clients(client: CachedClient) -> None:
    assert_type(client.in_namespace("prod").with_options(dry_run=True), CachedClient)
    assert_type(client.live, Client)


async def deliver(channel: str) -> dict[str, Any]:
    return {"channel": channel}


async def batcher_over_anything(
    client: Client, api: kubernetes_asyncio.client.ApiClient, custom: kubernetes_asyncio.client.CustomObjectsApi
) -> None:
    obj: dict[str, Any] = {}
    async with StatusBatcher(api, obj) as status:
        for channel in ["a", "b"]:
            status.append("deliveryAttempts", await deliver(channel), keep_last=50, count_dropped="dropped")
            status.increment("totalAttempts")
        await status.flush()
    assert_type(status.written, bool | None)
    async with StatusBatcher(custom, "example.com/v1/Database", name="db1", namespace="prod") as status:
        status.upsert("channels", {"name": "a"}, key="name")
        status.remove("message")
        status.remove("channels", item={"name": "b"})
        status.set_condition("Ready", True, reason="Done", path=["a.b", "conditions"])
        status.merge(counts={"a": 1})
        status.mutate(lambda current: current.setdefault("seen", 1))
    typed: StatusBatcher[DatabaseStatus] = StatusBatcher(client, Database, name="db1", namespace="prod")
    async with typed as batcher:
        batcher.set(DatabaseStatus(phase="Ready"))


class OwnWriter:
    """A writer over a client that the library does not know."""

    gvk = GroupVersionKind("example.com", "v1", "Database")
    request = Request("db1", "prod")
    identity = "host"

    async def read(self) -> dict[str, Any]:
        return {}

    async def write(
        self, body: dict[str, Any], *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> dict[str, Any]:
        return body


async def batcher_over_a_writer(obj: Any) -> None:
    writer: StatusWriter = OwnWriter()
    async with StatusBatcher(writer, obj, subresource=None) as status:
        status.set(phase="Ready")


async def guarded(obj: Any) -> None:
    with guard(limit=2, window=60, fail=True) as watching, guard.cycle(obj), watching.cycle():
        pass
    for found in watching.found:
        assert_type(found.writes[0].stack, Sequence[str])
    installed = guard.install(burst=3)
    assert_type(installed.statistics().writes, int)
    installed.uninstall()


def batcher_over_a_sync_client(api: Any) -> None:
    with StatusBatcher(api, "example.com/v1/Database", name="db1", namespace="prod") as status:
        status.set(phase="Ready")
        status.mutate(lambda s: None)
    assert_type(status.written, bool | None)


@pytest.mark.virtual_time
async def one_write() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database)
        manager = Manager(client)
        manager.add_controller(DatabaseReconciler())
        async with manager.running():
            await client.create(Database(metadata=ObjectMeta(name="db1", namespace="prod"), spec=DatabaseSpec(size=3)))
        assert len(server.requests(verb="patch", subresource="status", name="db1")) == 1
        await client.wait_for(Database, "db1", "prod", until=lambda db: db.status.phase == "Ready", timeout=30)
        fault = server.faults.add(status=409, times=2, verb="patch", subresource="status")
        assert_type(fault.hits, int)
        server.faults.add(latency=0.5, verb=["get", "list"], times=None, probability=0.1)
        server.faults.add(status=429, retry_after=1, kind="Database", user_agent="kopf/")
        server.faults.add(lost=True, after_commit=True, method="PATCH", path="/apis/example.com/*")
        server.faults.add(cut_watches=True)
        server.faults.add(expired=True, verb="watch")
        server.faults.add(latency=(0.1, 2.0), status=409, times=2, verb="patch", name="db1")
        server.cut_watches("databases")
        (entry,) = server.requests(verb="patch", subresource="status", name="db1")
        assert_type(entry.status, int)
        assert_type(entry.changed, tuple[str, ...])
        assert_type(server.url, str)
        server.write_kubeconfig("kubeconfig")


async def with_fixtures(apiserver: APIServer, cluster: Cluster) -> None:
    await apiserver.apply(Database, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}, "crd.yaml")
    await cluster.install(Database)
    assert_type(cluster.client, Client)
    assert_type(cluster.namespace, str)
    assert_type(cluster.writes(name="db1"), list[int])


def virtual() -> None:
    with virtual_time():
        asyncio.run(main())


async def queue() -> AsyncIterator[str]:
    q: WorkQueue[str] = WorkQueue(
        rate_limiter=MaxOf(ExponentialBackoff(base=0.005, maximum=1000), TokenBucket(rate=10, burst=100))
    )
    q.add("a")
    q.add("b", after=1.5, priority=10, reason="resync")
    q.add_rate_limited("c")
    q.forget("a")
    assert_type(q.retries("c"), int)
    assert_type(q.retract("b", "resync"), bool)
    assert_type(len(q), int)
    try:
        async with q.item() as key:
            assert_type(key, str)
        yield await q.get()
        q.done("a")
    except QueueShutDown:
        await q.shutdown(drain=True)
    keys: WorkQueue[Request] = WorkQueue()
    keys.add(Request("a", "b"))


class Pager:
    name = "pager"

    async def deliver(self, message: Message) -> None:
        if message.attempt > 3:
            raise PermanentDeliveryError("no such number")
        assert_type(message.idempotency_key, str)
        raise RetryableDeliveryError("busy")


def notifications(manager: Manager) -> None:
    channels: list[Channel] = [ConsoleChannel(), FileChannel("/var/log/notifications"), Pager()]
    manager.add_controller(NotificationReconciler(channels=channels), workers=10)
    manager.add_controller(NotificationReconciler(channels=[ConsoleChannel(), Pager()]))
    kinds(NotificationRequest)


def classify(error: DeferredDeliveryError | PermanentDeliveryError | RetryableDeliveryError) -> None: ...


def events(client: Client, db: Database) -> None:
    recorder = EventRecorder(client, source="database-controller")
    recorder.normal(db, "Made", "m")
    recorder.warning({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}, "Failed", "m")


class SizedSpec(Model):
    replicas: int = 1
    memory: Quantity = Quantity("1Gi")
    timeout: Duration = timedelta(seconds=30)


class SizedStatus(ConditionedStatus):
    replicas: int = 0
    selector: str = ""


class Sized(
    Resource[SizedSpec, SizedStatus],
    group="example.com",
    version="v1",
    scale=Scale(selector=".status.selector"),
    deprecated="use Database",
):
    pass


def quantities(spec: SizedSpec) -> None:
    assert_type(spec.memory, Quantity)
    assert_type(spec.timeout, timedelta)
    assert_type(spec.memory + Quantity("1Mi") - 5, Quantity)
    assert_type(spec.memory * 2 > Quantity("2Gi"), bool)
    assert_type(spec.memory.value, Fraction)
    SizedSpec(memory=Quantity(5), timeout=timedelta(hours=1))


async def built_in_kinds(client: Client, cached: CachedClient, manager: Manager) -> None:
    found = await client.get(Deployment, "web", "default")
    assert_type(found, Deployment)
    assert_type(found.spec.replicas, int | None)
    found.spec.replicas = 3
    if found.status is not None:
        assert_type(found.status.readyReplicas, int | None)
    assert_type(await client.update(found), Deployment)
    assert_type(await cached.get(ConfigMap, "a", "default"), ConfigMap)
    for each in await client.list(Deployment):
        assert_type(each, Deployment)
    spec = DeploymentSpec(selector=LabelSelector(), template=PodTemplateSpec())
    made = Deployment(metadata=Meta(name="web", namespace="default"), spec=spec)
    assert_type(await client.apply(made), Deployment)
    assert_type(await client.create(made), Deployment)
    assert_type(await client.patch(Deployment, "web", "default", patch={"spec": {"replicas": 2}}), Deployment)
    kinds(Deployment, ConfigMap)
    manager.add_controller(DatabaseReconciler(), owns=[Deployment, ConfigMap, "v1/Secret"])
    manager.add_controller(SecretReconciler(), watches=[Watch(ConfigMap, mapper=by_name)])


def what_mappers_get(kind: KindLike) -> None:
    Watch(Database, mapper=lambda db: [db.key] if db.spec.size else [])
    Watch(Database, mapper=lambda found: [found.key] if found["metadata"] else [], metadata_only=True)
    Watch(kind, mapper=lambda found: [found.key])
    Watch(kind, mapper=every_owner)
    Watch(Deployment, mapper=lambda found: [request_of(found)])
    ChannelSource(asyncio.Queue[Database](), mapper=lambda db: [db.key])


def ready_replicas(cached: CachedObject) -> int | None:
    assert_type(cached.read_as("apps/v1/Deployment"), Unstructured)
    status = cached.read_as(Deployment).status
    return None if status is None else status.readyReplicas


def by_name(maps: ConfigMap) -> list[Request]:
    return [Request(maps.metadata.name)] if maps.metadata and maps.metadata.name else []


class SecretReconciler(ResourceReconciler[Secret]):
    async def reconcile_object(self, secret: Secret, status: StatusBatcher[Any]) -> Outcome:
        assert_type(secret.immutable, bool | None)
        return None
