"""The metrics of status writes at ``/metrics``, with the names in the documentation."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import Reconciler, ResourceReconciler, Result
from reconciler.meta import Request
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.status import StatusBatcher

PAGE = Path(__file__).parents[2] / "docs" / "running-in-production.md"


class Spec(Model):
    size: int = 1


class Status(ConditionedStatus):
    size: int | None = None


class Database(Resource[Spec, Status], group="example.com", version="v1"):
    """A database."""


class Sizes(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[Status]) -> Result | None:
        if db.status.size is None:  # another writer changes the object during the reconcile
            body = {"status": {"conditions": []}, "metadata": {"annotations": {"a": "b"}}}
            await self.client.patch(Database, db.name, db.namespace, patch=body)
        status.set(size=db.spec.size)
        return None


class ByKey(Reconciler):
    """A reconciler that opens its own batcher."""

    async def reconcile(self, request: Request) -> None:
        async with StatusBatcher(self.client, Database, name=request.name, namespace=request.namespace) as status:
            status.set(size=7)


async def test_batchers_opened_by_a_reconciler_count_for_its_controller() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database)
        manager = Manager(client)
        manager.add_controller(ByKey(), resource=Database, name="by-key")
        async with manager.running():
            await client.create(Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=Spec(size=3)))
            await client.wait_for(Database, "db1", "default", until=lambda db: db.status.size == 7, timeout=10)
    assert manager.metrics.registry.get_sample_value(
        "reconciler_status_flushes_total", {"controller": "by-key", "result": "written"}
    )


async def test_documented_metrics_of_status_writes_are_exported_and_counted() -> None:
    async with APIServer() as server, Client(server) as client, aiohttp.ClientSession() as http:
        await server.apply(Database)
        manager = Manager(client, metrics="127.0.0.1:0")
        manager.add_controller(Sizes())
        async with manager.running():
            await client.create(Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=Spec(size=3)))
            await client.wait_for(Database, "db1", "default", until=lambda db: db.status.size == 3, timeout=10)
            await client.patch(Database, "db1", "default", patch={"metadata": {"labels": {"a": "b"}}})
            controller = manager.controllers[0]
            while controller.statistics().reconciles < 2:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0)
            async with http.get(f"{manager.metrics_url}/metrics") as answer:
                text = await answer.text()
    found = {
        (sample.name, sample.labels.get("result")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("reconciler_status_") and "le" not in sample.labels
    }
    documented = set(re.findall(r"`(reconciler_status_\w+)", PAGE.read_text())) | {"reconciler_status_replays_total"}
    names = {name.removesuffix("_count").removesuffix("_sum") for name, _ in found}
    assert {name.removesuffix("_created") for name in names} >= documented
    assert found["reconciler_status_flushes_total", "written"] == 1
    assert found["reconciler_status_flushes_total", "not_written"] == 0
    assert found["reconciler_status_conflicts_total", None] == 1
    assert found["reconciler_status_replays_total", None] == 1
    assert found["reconciler_status_fields_total", None] == 2, "size and observedGeneration"
    assert found["reconciler_status_flush_seconds_count", None] == sum(
        found["reconciler_status_flushes_total", result] for result in ("written", "suppressed", "not_written")
    )
