"""Guarantees that hold on the embedded server and on a real kube-apiserver, in real time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import Field

from reconciler import (
    ConditionedStatus,
    Manager,
    Model,
    Outcome,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
)
from reconciler.notification import Message, NotificationReconciler, NotificationRequest
from reconciler.status import StatusInvalid, StatusSubresourceMissing, StatusTooLarge
from reconciler.testing import Cluster


class DatabaseSpec(Model):
    size: int = Field(default=1, ge=1, le=100)


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None
    runs: int = 0
    notes: list[str] = Field(default_factory=list)


class Database(Resource[DatabaseSpec, DatabaseStatus], group="e2e.reconciler.dev", version="v1"):
    """A database."""


def database(cluster: Cluster, name: str, **spec: Any) -> Database:
    return Database.from_dict({"metadata": {"name": name, "namespace": cluster.namespace}, "spec": spec})


async def until(condition: Any) -> None:
    """Wait for a condition that must become true; the timeout only ends a hanging test."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


# The retry timeline


@dataclass
class Sink:
    name: str
    fails: bool
    calls: list[float] = field(default_factory=list)

    async def deliver(self, message: Message) -> None:
        self.calls.append(asyncio.get_running_loop().time())
        if self.fails:
            raise ConnectionError("no route to host")


async def test_timeline_keeps_its_delays_with_one_status_write_per_reconcile(cluster: Cluster) -> None:
    await cluster.install(NotificationRequest)
    console, pager = Sink("console", fails=False), Sink("pager", fails=True)
    manager = Manager(cluster.client, namespaces=[cluster.namespace])
    controller = manager.add_controller(NotificationReconciler(channels=[console, pager]))
    async with manager.running():
        await cluster.client.create(
            NotificationRequest.from_dict(
                {
                    "metadata": {"name": "n", "namespace": cluster.namespace},
                    "spec": {
                        "type": "Simple",
                        "subject": "s",
                        "body": "b",
                        "channels": ["console", "pager"],
                        "retryPolicy": {"maxAttempts": 4, "initialBackoffSeconds": 1, "jitter": 0},
                    },
                }
            )
        )
        await cluster.client.wait_for(
            NotificationRequest, "n", cluster.namespace, until=lambda n: n.status.phase == "PartiallySent", timeout=60
        )
        await asyncio.sleep(0.5)  # an echo would arrive now
        cycles = controller.statistics().reconciles
    gaps = [after - before for before, after in zip(pager.calls, pager.calls[1:], strict=False)]
    assert len(console.calls) == 1
    assert len(gaps) == 3
    assert all(gap >= delay for gap, delay in zip(gaps, [1, 2, 4], strict=True)), gaps
    assert cycles == 4
    assert cluster.writes(name="n") == [200] * cycles


# One write per reconcile, none without changes


class Counting(ResourceReconciler[Database]):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    async def reconcile_object(self, obj: Database, status: StatusBatcher[DatabaseStatus], /) -> Outcome:
        self.runs += 1
        status.set(phase="Ready")
        status.set_condition("Ready", True, reason="Done", message="it runs")
        return Result(requeue_after=0.3)


async def test_a_hundred_objects_cost_one_reconcile_and_one_status_write_each(cluster: Cluster) -> None:
    await cluster.install(Database)
    names = [f"db-{number}" for number in range(100)]

    class Once(ResourceReconciler[Database]):
        async def reconcile_object(self, obj: Database, status: StatusBatcher[DatabaseStatus], /) -> Outcome:
            status.set(phase="Ready")
            status.increment("runs")
            return None

    for name in names:
        await cluster.client.create(database(cluster, name))
    manager = Manager(cluster.client, namespaces=[cluster.namespace])
    controller = manager.add_controller(Once(), workers=10)
    async with manager.running():
        await until(lambda: controller.statistics().reconciles >= 100)
        await asyncio.sleep(0.5)  # an echo would arrive now
        assert controller.statistics().reconciles == 100
    found = await cluster.client.list(Database, cluster.namespace)
    assert {item.status.runs for item in found} == {1}
    assert [cluster.writes(name=name) for name in names] == [[200]] * 100


async def test_reconcile_without_changes_sends_nothing(cluster: Cluster) -> None:
    await cluster.install(Database)
    reconciler = Counting()
    manager = Manager(cluster.client, namespaces=[cluster.namespace])
    manager.add_controller(reconciler)
    async with manager.running():
        await cluster.client.create(database(cluster, "a"))
        await until(lambda: reconciler.runs >= 4)
    assert cluster.writes(name="a") == [200]


async def test_status_field_missing_in_the_crd_is_reported_once_and_not_resent(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    narrow = Database.crd()
    schema = narrow["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]["properties"]["phase"]
    names = narrow["spec"]["names"]
    names |= {"plural": "narrows", "singular": "narrow", "kind": "Narrow", "listKind": "NarrowList"}
    names.pop("shortNames", None)
    narrow["metadata"]["name"] = "narrows.e2e.reconciler.dev"

    class Narrow(Resource[DatabaseSpec, DatabaseStatus], group="e2e.reconciler.dev", version="v1"):
        """A kind whose CRD is older than its model."""

    runs = 0

    class Reconciler(ResourceReconciler[Narrow]):
        async def reconcile_object(self, obj: Narrow, status: StatusBatcher[DatabaseStatus], /) -> Outcome:
            nonlocal runs
            runs += 1
            status.set(phase="Ready")
            return Result(requeue_after=0.2)

    await cluster.install(narrow)
    manager = Manager(cluster.client, namespaces=[cluster.namespace])
    manager.add_controller(Reconciler())
    with caplog.at_level(logging.WARNING, "reconciler.status"):
        async with manager.running():
            await cluster.client.create(Narrow.from_dict({"metadata": {"name": "a", "namespace": cluster.namespace}}))
            await until(lambda: runs >= 5)
    assert cluster.writes(name="a") == [200]
    reports = [
        record
        for record in caplog.records
        if record.name == "reconciler.status" and "status.phase" in record.getMessage()
    ]
    assert len(reports) == 1


# The batcher alone


async def test_fields_of_others_and_counters_survive_a_conflict(cluster: Cluster) -> None:
    await cluster.install(Database)
    obj = await cluster.client.create(database(cluster, "a"))
    async with StatusBatcher(cluster.client, obj) as status:
        status.increment("runs")
        await cluster.client.patch(
            Database,
            "a",
            cluster.namespace,
            patch={"status": {"phase": "Foreign", "runs": 5}},
            subresource="status",
        )
    found = await cluster.client.get(Database, "a", cluster.namespace)
    assert (found.status.phase, found.status.runs) == ("Foreign", 6)
    assert cluster.writes(name="a") == [200, 409, 200]


async def test_new_object_with_the_same_name_is_not_written(cluster: Cluster) -> None:
    await cluster.install(Database)
    obj = await cluster.client.create(database(cluster, "a"))
    async with StatusBatcher(cluster.client, obj) as status:
        status.set(phase="Old")
        await cluster.client.delete(obj)
        await cluster.client.create(database(cluster, "a"))
    assert status.written is False
    found = await cluster.client.get(Database, "a", cluster.namespace)
    assert found.status.phase is None


async def test_missing_status_subresource_is_distinguished_from_a_deleted_object(cluster: Cluster) -> None:
    plain = Database.crd()
    del plain["spec"]["versions"][0]["subresources"]
    plain["spec"]["names"] |= {"plural": "plains", "singular": "plain", "kind": "Plain", "listKind": "PlainList"}
    plain["spec"]["names"].pop("shortNames", None)
    plain["metadata"]["name"] = "plains.e2e.reconciler.dev"
    await cluster.install(plain)
    document = {
        "apiVersion": "e2e.reconciler.dev/v1",
        "kind": "Plain",
        "metadata": {"name": "a", "namespace": cluster.namespace},
        "spec": {"size": 1},
    }
    obj = (await cluster.client.create(document)).to_dict()
    with pytest.raises(StatusSubresourceMissing, match="subresources"):
        async with StatusBatcher(cluster.client, obj) as status:
            status.set(phase="Ready")
    async with StatusBatcher(cluster.client, obj, subresource=None) as status:
        status.set(phase="Ready")
    found = await cluster.client.get("e2e.reconciler.dev/v1/Plain", "a", cluster.namespace)
    assert found["status"]["phase"] == "Ready"
    await cluster.client.delete("e2e.reconciler.dev/v1/Plain", "a", cluster.namespace)
    async with StatusBatcher(cluster.client, found.to_dict(), subresource=None) as status:
        status.set(phase="Late")
    assert status.written is False


async def test_oversized_status_is_reported_and_not_retried(cluster: Cluster) -> None:
    await cluster.install(Database)
    obj = await cluster.client.create(database(cluster, "a"))
    with pytest.raises(StatusTooLarge):
        async with StatusBatcher(cluster.client, obj) as status:
            status.set(notes=["x" * 1_000_000, "y" * 700_000])
    assert len(cluster.writes(name="a")) == 1


async def test_invalid_status_names_the_field(cluster: Cluster) -> None:
    await cluster.install(Database)
    obj = await cluster.client.create(database(cluster, "a"))
    with pytest.raises(StatusInvalid, match=r"status\.runs"):
        async with StatusBatcher(cluster.client, obj) as status:
            status.set("runs", "many")
    assert cluster.writes(name="a") == [422]
