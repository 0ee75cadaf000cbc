"""Mistakes that a type checker must find: one on each line that ends with an ignore comment.

Only the type checkers read this file; `test_typing.py` runs them. An unnecessary ignore comment is an error for both,
so the file passes exactly if every line is reported.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
from typing import Any

from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.resources.apps_v1 import Deployment

import reconciler
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
    Watch,
)
from reconciler.apiserver import APIServer
from reconciler.controller import ChannelSource
from reconciler.events import EventRecorder
from reconciler.notification import Message, NotificationReconciler
from reconciler.objects import PrinterColumn, Quantity, rule, schema_extra
from reconciler.workqueue import ExponentialBackoff, WorkQueue


class Spec(Model):
    size: int


class Status(ConditionedStatus):
    phase: str | None = None


class Database(Resource[Spec, Status], group="example.com", version="v1"):
    pass


class Other(Resource[Spec], group="example.com", version="v1"):
    pass


# The class line of a Resource.


class UnknownKeyword(Resource[Spec], group="example.com", version="v1", shortnames=("db",)):  # type: ignore[arg-type]
    pass


class NoVersion(Resource[Spec], group="example.com"):  # type: ignore[call-arg]
    pass


class NoGroup(Resource[Spec], version="v1"):  # type: ignore[call-arg]
    pass


class WrongScope(Resource[Spec], group="example.com", version="v1", scope="namespaced"):  # type: ignore[arg-type]
    pass


class WrongColumns(Resource[Spec], group="example.com", version="v1", printer_columns=[{}]):  # type: ignore[list-item]
    pass


class NoModel(Resource[int], group="example.com", version="v1"):  # type: ignore[type-var]
    pass


def schemas() -> None:
    PrinterColumn("Size", ".spec.size", "int")  # type: ignore[arg-type]
    rule("true", reason="Invalid")  # type: ignore[arg-type]
    schema_extra(list_type="maps")  # type: ignore[arg-type]
    schema_extra(rules=["true"])  # type: ignore[list-item]


# Objects.


def take_other(other: Other) -> None: ...


def objects() -> None:
    Spec(size="big")  # type: ignore[arg-type]
    Spec(sise=1)  # type: ignore[call-arg]
    ObjectMeta(name=3)  # type: ignore[arg-type]
    ObjectMeta(labels={"a": 1})  # type: ignore[dict-item]
    Database(metadata=ObjectMeta(name="a"))  # type: ignore[call-arg]
    Database(spec=Spec(size=1))  # type: ignore[call-arg]
    Database(ObjectMeta(name="a"), Spec(size=1))  # type: ignore[call-arg]
    Database(metadata=ObjectMeta(name="a"), spec={"size": 1})  # type: ignore[arg-type]
    Database(metadata=ObjectMeta(name="a"), spec=Spec(size=1), status=ConditionedStatus())  # type: ignore[arg-type]
    db = Database.from_dict({})
    Spec(size=db.spec.sise)  # type: ignore[attr-defined]
    db.status.phase = 3  # type: ignore[assignment]
    db.name = "b"  # type: ignore[misc]
    take_other(Database.from_dict({}))  # type: ignore[arg-type]
    Request()  # type: ignore[call-arg]
    Request("a", 3)  # type: ignore[arg-type]


# Reconcilers.


class WrongOutcome(Reconciler):
    async def reconcile(self, request: Request) -> bool:  # type: ignore[override]
        return True


class WrongParameter(Reconciler):
    async def reconcile(self, request: str) -> Outcome:  # type: ignore[override]
        return None


class TooFewParameters(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database) -> Outcome:  # type: ignore[override]
        return None


class OtherObject(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Other, status: StatusBatcher[Status]) -> Outcome:  # type: ignore[override]
        return None


class WrongFinalize(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[Status]) -> Outcome:
        status.set_condition("Ready", True)  # type: ignore[call-arg]
        status.set_condition("Ready", 1.5, reason="Up")  # type: ignore[arg-type]
        status.set(Other.from_dict({}))  # type: ignore[call-overload]
        status.increment("attempts", by="1")  # type: ignore[arg-type]
        self.events.normal(db, "Ready")  # type: ignore[call-arg]
        self.wait(3)  # type: ignore[arg-type]
        return Result(requeue_after=[5])  # type: ignore[arg-type]

    async def finalize(self, db: Database) -> Outcome:  # type: ignore[override]
        return None


def of_text(text: str) -> list[Request]:
    return [Request(text)]


def outcomes(client: Client, reconciler: WrongFinalize) -> None:
    Reconciler()  # type: ignore[abstract]
    Result(requeue=True)  # type: ignore[call-arg]
    Watch("v1/ConfigMap", mapper=lambda cm: [3])  # type: ignore[list-item]
    Watch("v1/ConfigMap", lambda cm: [])  # type: ignore[call-overload]
    Watch(Database, mapper=lambda db: [db.kye])  # type: ignore[attr-defined]
    Watch(Database, mapper=of_text)  # type: ignore[arg-type]
    ChannelSource(asyncio.Queue[Database](), mapper=of_text)  # type: ignore[arg-type]
    manager = Manager(client, workers=3)  # type: ignore[call-arg]
    manager.add_controller(WrongFinalize)  # type: ignore[arg-type]
    manager.add_controller(reconciler, owns="apps/v1/Deployment", workers="4")  # type: ignore[arg-type]
    manager.add_controller(reconciler, worker=4)  # type: ignore[call-arg]


# The client.


async def client_verbs(client: Client) -> None:
    await client.get(Database)  # type: ignore[call-arg]
    await client.get(3, "a")  # type: ignore[arg-type]
    await client.patch(Database, "a", "b", patch={}, strategy="merges")  # type: ignore[call-overload]
    await client.patch(Database, "a", "b", {})  # type: ignore[call-overload]
    await client.delete(Database, "a", "b", propagation="foreground")  # type: ignore[arg-type]
    await client.wait_for(Database, "a", "b", until=lambda db: db.status.phse == "x", timeout=3)  # type: ignore[attr-defined]
    take_other(await client.get(Database, "a", "b"))  # type: ignore[arg-type]
    async with StatusBatcher(client, Database, name="a", strategy="patch") as status:  # type: ignore[arg-type]
        status.set(phase="x")


# Queue, events, notifications.


class NotAChannel:
    name = "none"

    async def deliver(self, message: str) -> None: ...


class Silent:
    async def deliver(self, message: Message) -> None: ...


def the_rest(client: Client, obj: dict[str, Any]) -> None:
    q: WorkQueue[str] = WorkQueue(rate_limiter=ExponentialBackoff(0.005, 1000))
    q.add(1)  # type: ignore[arg-type]
    q.add("a", 1.5)  # type: ignore[call-arg]
    WorkQueue(rate_limiter=3)  # type: ignore[arg-type]
    EventRecorder(client)  # type: ignore[call-arg]
    EventRecorder(client, source="a").normal(obj, "Reason")  # type: ignore[call-arg]
    NotificationReconciler(channels=[NotAChannel()])  # type: ignore[list-item]
    NotificationReconciler(channels=[Silent()])  # type: ignore[list-item]


async def classes_as_kinds(client: Client, deployment: Deployment) -> None:
    await client.get(DeploymentSpec, "web", "default")  # type: ignore[type-var]
    await client.create(deployment.spec)  # type: ignore[arg-type]
    deployment.spec.replicas = "3"  # type: ignore[assignment]
    str(deployment.status.readyReplicas)  # type: ignore[union-attr]
    str((await client.get(Deployment, "web", "default")).name)  # type: ignore[attr-defined]


def quantities(quantity: Quantity) -> None:
    quantity + "1Gi"  # type: ignore[operator]
    quantity * quantity  # type: ignore[operator]
    Quantity([])  # type: ignore[arg-type]


class WrongScale(Resource[Spec], group="example.com", version="v1", scale=".spec.size"):  # type: ignore[arg-type]
    pass


def faults(server: APIServer) -> None:
    faults = server.faults
    faults.add(status="409")  # type: ignore[arg-type]
    faults.add(state=409)  # type: ignore[call-arg]
    faults.add(status=409, verbs="patch")  # type: ignore[call-arg]
    faults.chaos(status=409)  # type: ignore[call-arg]


def names_that_do_not_exist() -> list[Any]:
    return [
        reconciler.NotFound,  # type: ignore[attr-defined]
        reconciler.client.Cleint,  # type: ignore[attr-defined]
        reconciler.objects.Quantiy,  # type: ignore[attr-defined]
        reconciler.status.Batcher,  # type: ignore[attr-defined]
        reconciler.testing.virtualtime,  # type: ignore[attr-defined]
    ]
