"""Invalid objects: one waits for a change, one that is being deleted is finalized all the same."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field, model_validator

from reconciler.controller import Reconciler, ResourceReconciler, Result, Watch, ensure_finalizer, release_finalizer
from reconciler.errors import NotFound
from reconciler.objects import ConditionedStatus, InvalidObject, Model, Resource
from reconciler.status import StatusBatcher
from tests.controller.conftest import KeyReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

GADGET = "example.com/v1/Gadget"
FINALIZER = "example.com/gadget"


class Port(Model):
    number: int


class GadgetSpec(Model):
    size: int = Field(ge=1, le=100)
    owner: str
    ports: list[Port] = Field(default_factory=list)
    until: datetime | None = None


class GadgetStatus(ConditionedStatus):
    phase: str | None = None
    count: int = 0


class Gadget(Resource[GadgetSpec, GadgetStatus], group="example.com", version="v1"):
    """A gadget, whose CRD in the cluster is less strict than its model."""


class PlainSpec(BaseModel):
    size: int

    @model_validator(mode="after")
    def _check(self) -> PlainSpec:
        if self.size > 5:
            raise KeyError("a validator that is not ready for this")
        return self


class Plain(Resource[PlainSpec], group="example.com", version="v1"):
    """A kind with plain pydantic models."""


class GadgetReconciler(ResourceReconciler[Gadget]):
    def __init__(self) -> None:
        self.names: list[str] = []

    async def reconcile_object(self, obj, status, /):
        self.names.append(obj.name)
        status.set(phase="Ready")


class Finalizing(GadgetReconciler):
    def __init__(self, *outcomes: Any) -> None:
        super().__init__()
        self.outcomes = list(outcomes)
        self.finalized: list[Any] = []

    async def finalize(self, obj, status, /):
        self.finalized.append(obj)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def lax(kind: type[Resource[Any, Any]]) -> dict[str, Any]:
    crd = kind.crd()
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for version in crd["spec"]["versions"]:
        version["schema"] = {"openAPIV3Schema": anything | {"properties": {"spec": anything, "status": anything}}}
    return crd


def gadget(name: str = "g", *, finalizers: tuple[str, ...] = (), status: Any = None, **spec: Any) -> dict[str, Any]:
    document = {
        "apiVersion": "example.com/v1",
        "kind": "Gadget",
        "metadata": {"name": name, "namespace": "ns", "finalizers": list(finalizers)},
        "spec": {"size": 1, "owner": "me"} | spec,
    }
    return document if status is None else document | {"status": status}


INVALID = {"size": 1000, "ports": [{"number": "http"}, {"number": 80}], "until": "2030-01-01T00:00:00Z"}


@pytest.fixture
async def world(world: World) -> World:
    await world.server.apply(lax(Gadget))
    await world.server.apply(lax(Plain))
    return world


async def gone(world: World, name: str = "g", kind: str = GADGET) -> bool:
    try:
        await world.foreign.get(kind, name, "ns")
    except NotFound:
        return True
    return False


async def set_status(world: World, status: dict[str, Any], name: str = "g") -> None:
    await world.foreign.patch(GADGET, name, "ns", patch={"status": status}, subresource="status")


async def test_finalize_runs_for_an_invalid_deleted_object(world: World) -> None:
    reconciler = Finalizing()
    await world.start(reconciler)
    await world.foreign.create(gadget())
    await quiet()
    stored = await world.foreign.patch(GADGET, "g", "ns", patch={"spec": INVALID | {"owner": None}})
    await world.foreign.delete(GADGET, "g", "ns")
    await quiet(60)
    assert await gone(world)
    [obj] = reconciler.finalized
    assert isinstance(obj, Gadget)
    assert isinstance(obj.spec, GadgetSpec)
    assert (obj.spec.size, obj.spec.owner, obj.spec.until) == (1000, None, datetime.fromisoformat("2030-01-01T00:00Z"))
    assert [port.number for port in obj.spec.ports] == ["http", 80]
    assert (obj.key, obj.uid, obj.metadata.finalizers) == (stored.key, stored.uid, [FINALIZER])
    assert obj.metadata.deletion_timestamp is not None
    assert {path for path, _ in obj.problems} == {"spec.size", "spec.owner", "spec.ports[0].number"}
    assert obj.to_dict()["spec"] == stored.to_dict()["spec"]


async def test_status_of_finalize_is_written_before_the_object_is_released(world: World) -> None:
    class Telling(Finalizing):
        async def finalize(self, obj, status, /):
            status.set(phase="Terminating")
            status.set_condition("Ready", False, reason="Deleted")
            status.increment("count")
            return await super().finalize(obj, status)

    reconciler = Telling(Result(requeue_after=10))
    await world.foreign.create(gadget(finalizers=(FINALIZER,), **INVALID))
    await set_status(world, {"conditions": [{"type": "Odd", "status": "Maybe"}], "observedGeneration": "x", "count": 1})
    await world.start(reconciler)
    await world.foreign.delete(GADGET, "g", "ns")
    await quiet(5)
    status = (await world.foreign.get(GADGET, "g", "ns"))["status"]
    assert (status["phase"], status["count"], status["observedGeneration"]) == ("Terminating", 2, "x")
    assert [condition["type"] for condition in status["conditions"]] == ["Odd", "Ready"]
    await quiet(60)
    assert await gone(world)
    assert len(reconciler.finalized) == 2


@pytest.mark.parametrize(
    "status", [{"count": "many"}, {"conditions": "none"}, {"conditions": [{"type": 5}]}, {"phase": ["a"]}]
)
async def test_invalid_status_does_not_keep_a_deleted_object(world: World, status: dict[str, Any]) -> None:
    reconciler = Finalizing()
    await world.foreign.create(gadget(finalizers=(FINALIZER,)))
    await set_status(world, status)
    await world.foreign.delete(GADGET, "g", "ns")
    await world.start(reconciler)
    await quiet(60)
    assert await gone(world)
    assert reconciler.finalized[0].spec.size == 1


@pytest.mark.parametrize("spec", [None, {"size": None}, {"size": [1]}])
async def test_deleted_object_without_a_spec_is_released(world: World, spec: Any) -> None:
    await world.foreign.create(gadget(finalizers=(FINALIZER,)) | {"spec": spec})
    await world.foreign.delete(GADGET, "g", "ns")
    reconciler = Finalizing()
    await world.start(reconciler)
    await quiet(60)
    assert (len(reconciler.finalized), await gone(world)) == (1, True)


async def test_error_of_finalize_keeps_an_invalid_object_and_backs_off(world: World) -> None:
    reconciler = Finalizing(RuntimeError("no"), RuntimeError("no"))
    await world.foreign.create(gadget(finalizers=(FINALIZER,), **INVALID))
    await world.foreign.delete(GADGET, "g", "ns")
    await world.start(reconciler)
    await quiet(60)
    assert (len(reconciler.finalized), await gone(world)) == (3, True)


async def test_own_finalizer_is_removed_from_an_invalid_deleted_object_without_finalize(world: World) -> None:
    reconciler = GadgetReconciler()
    await world.foreign.create(gadget(finalizers=(FINALIZER, "other.io/theirs"), **INVALID))
    await world.foreign.delete(GADGET, "g", "ns")
    controller = await world.start(reconciler)
    await quiet(60)
    assert (await world.foreign.get(GADGET, "g", "ns"))["metadata"]["finalizers"] == ["other.io/theirs"]
    assert controller.statistics().results["error"] == 0


async def test_conflict_while_an_invalid_object_is_released_is_retried(world: World) -> None:
    world.server.faults.add(verb="patch", subresource="", name="g", status=409, times=2)
    await world.foreign.create(gadget(finalizers=(FINALIZER,), **INVALID))
    await world.foreign.delete(GADGET, "g", "ns")
    controller = await world.start(Finalizing())
    await quiet(60)
    assert await gone(world)
    assert controller.statistics().results["error"] == 0


async def test_plain_model_whose_validator_raises_anything_can_be_finalized(world: World) -> None:
    finalized = []

    class Cleaning(ResourceReconciler[Plain]):
        async def reconcile_object(self, obj, status, /):
            raise AssertionError("it does not fit")

        async def finalize(self, obj, status, /):
            finalized.append(obj.spec.size)

    await world.foreign.create(gadget(size=7, finalizers=("example.com/plain",)) | {"kind": "Plain"})
    controller = await world.start(Cleaning())
    await quiet()
    assert controller.statistics().terminal_errors == 1
    await world.foreign.delete("example.com/v1/Plain", "g", "ns")
    await quiet(60)
    assert (finalized, await gone(world, kind="example.com/v1/Plain")) == ([7], True)


async def test_invalid_object_waits_for_a_change_and_others_are_reconciled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    reconciler = Finalizing()
    await world.foreign.create(gadget("bad", **INVALID))
    controller = await world.start(reconciler)
    await world.foreign.create(gadget("good"))
    await quiet(3600)
    assert reconciler.names == ["good"]
    statistics = controller.statistics()
    assert (statistics.terminal_errors, statistics.results["error"], statistics.queue.waiting) == (1, 1, 0)
    assert world.writes("bad") == 0
    [line] = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert "ns/bad" in line
    assert "spec.ports[0].number: Input should be a valid integer" in line
    assert "is not retried" in line
    await world.foreign.patch(GADGET, "bad", "ns", patch={"spec": {"size": 2, "ports": None}})
    await quiet()
    assert reconciler.names == ["good", "bad"]


async def test_event_names_the_invalid_fields(world: World) -> None:
    await world.start(GadgetReconciler())
    await world.foreign.create(gadget(**INVALID))
    await quiet(60)
    [event] = await world.foreign.list("v1/Event", "ns")
    assert (event["type"], event["reason"]) == ("Warning", "InvalidObject")
    assert event["involvedObject"]["name"] == "g"
    assert "spec.size, spec.ports[0].number" in event["message"]
    assert "1000" not in event["message"]


async def test_invalid_object_is_terminal_whatever_ran_before(world: World) -> None:
    """A timer of an earlier outcome does not enqueue it either."""

    class Periodic(GadgetReconciler):
        async def reconcile_object(self, obj, status, /):
            await super().reconcile_object(obj, status)
            return Result(requeue_after=60)

    controller = await world.start(Periodic())
    await world.foreign.create(gadget())
    await quiet(10)
    await world.foreign.patch(GADGET, "g", "ns", patch={"spec": INVALID})
    await quiet(3600)
    assert controller.statistics().terminal_errors == 1


async def test_reconcile_raises_invalid_object_to_an_override(world: World) -> None:
    caught = []

    class Overriding(GadgetReconciler):
        async def reconcile(self, request, /):
            try:
                return await super().reconcile(request)
            except InvalidObject as error:
                caught.append([path for path, _ in error.problems])

    controller = await world.start(Overriding())
    await world.foreign.create(gadget(**INVALID))
    await quiet(60)
    assert caught == [["spec.size", "spec.ports[0].number"]]
    assert controller.statistics().results == {"success": 1}


async def test_by_key_reconciler_can_release_what_it_reads_leniently(world: World) -> None:
    sizes = []

    class ByKey(Reconciler):
        async def reconcile(self, request, /):
            try:
                document = (await self.client.get(GADGET, *request)).to_dict()
            except NotFound:
                return
            obj = Gadget.from_dict(document, lenient=True)
            if obj.metadata.deletion_timestamp is None:
                await ensure_finalizer(self.client, Gadget, obj, FINALIZER)
                return
            sizes.append(obj.spec.size)
            async with StatusBatcher(self.client, obj) as status:
                status.set(phase="Terminating")
            await release_finalizer(self.client, Gadget, status.object, FINALIZER)

    controller = await world.start(ByKey(), resource=Gadget)
    await world.foreign.create(gadget(**INVALID))
    await quiet()
    await world.foreign.delete(GADGET, "g", "ns")
    await quiet(60)
    assert (sizes, await gone(world)) == ([1000], True)
    assert controller.statistics().results["error"] == 0


async def test_write_of_an_object_that_does_not_match_is_accepted(world: World) -> None:
    await world.foreign.create(gadget(finalizers=("other.io/theirs",), **INVALID))
    patched = await world.foreign.patch(Gadget, "g", "ns", patch={"metadata": {"labels": {"a": "b"}}})
    assert (patched.labels, patched.spec.size, len(patched.problems)) == ({"a": "b"}, 1000, 2)
    dying = await world.foreign.delete(Gadget, "g", "ns")
    assert dying is not None
    assert dying.metadata.deletion_timestamp is not None


async def test_mappers_and_predicates_get_what_can_be_read(world: World) -> None:
    seen: list[Any] = []

    def of_mapper(obj: Gadget):
        seen.append(obj.spec.size)
        return [obj.key]

    async def of_async_mapper(obj: Gadget):
        seen.append(obj.spec.ports[0].number)
        return [obj.key]

    reconciler = KeyReconciler()
    watches = [Watch(Gadget, mapper=of_mapper), Watch(Gadget, mapper=of_async_mapper, predicates=[lambda event: True])]
    await world.start(reconciler, resource="v1/ConfigMap", watches=watches)
    await world.foreign.create(gadget(**INVALID))
    await quiet()
    assert sorted(seen, key=str) == [1000, "http"]
    assert set(reconciler.keys) == {"ns/g"}


async def test_invalid_object_enqueues_its_owner(world: World) -> None:
    reconciler = KeyReconciler()
    await world.start(reconciler, resource="v1/ConfigMap", owns=[Gadget])
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "uid": "u", "controller": True}
    document = gadget(**INVALID)
    document["metadata"]["ownerReferences"] = [owner]
    await world.foreign.create(document)
    await quiet()
    assert set(reconciler.keys) == {"ns/m"}


async def test_unsaved_mutations_of_an_object_that_became_invalid_are_finalized(world: World) -> None:
    """Mutations that an earlier reconcile could not save do not block the finalizer of the deleted object."""
    fault = world.server.faults.add(subresource="status", status=403, times=None)
    reconciler = Finalizing()
    controller = await world.start(reconciler)
    await world.foreign.create(gadget())
    await quiet(10)
    assert controller.statistics().unsaved.kept == 1
    await world.foreign.patch(GADGET, "g", "ns", patch={"spec": INVALID})
    await quiet(10)
    await world.foreign.delete(GADGET, "g", "ns")
    await quiet(60)
    assert fault.hits
    assert (len(reconciler.finalized), await gone(world)) == (1, True)
    assert controller.statistics().unsaved.kept == 0
