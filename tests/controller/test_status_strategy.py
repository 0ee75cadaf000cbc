"""The default strategy of a reconcile's status: an update where the whole object is known, else a patch."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.controller import Outcome, ResourceReconciler
from reconciler.objects import Unstructured
from tests.controller.conftest import Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "w", "namespace": "ns"},
    "spec": {
        "selector": {"matchLabels": {"app": "w"}},
        "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    },
}


async def body(reconciler, obj, status):
    status.set(phase="Ready")


def verbs(world: World, kind: object = Widget) -> list[str]:
    return [write.verb for write in world.server.log.writes(kind, "w", subresource="status")]


async def test_the_status_of_a_custom_kind_is_updated_once_without_an_echo(world: World) -> None:
    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert verbs(world) == ["update"]
    assert len(reconciler.runs) == 1


async def test_the_status_of_a_built_in_kind_is_patched(world: World) -> None:
    class Deployments(ResourceReconciler[Unstructured], resource="apps/v1/Deployment"):
        async def reconcile_object(self, obj, status, /) -> Outcome:
            status.set(replicas=1, readyReplicas=1)
            return None

    await world.foreign.create(DEPLOYMENT)
    await world.start(Deployments())
    await quiet(60)
    assert verbs(world, "Deployment") == ["patch"]


async def test_what_a_transform_hides_from_other_readers_of_the_cache_survives(world: World) -> None:
    def without_log(document):
        document.get("status", {}).pop("foreign", None)
        return document

    await world.cache.informer(Widget, transform=without_log)
    await world.widget()
    stored = {"phase": "Old", "foreign": "of another controller"}
    await world.foreign.patch(Widget, "w", "ns", patch={"status": stored}, subresource="status")
    await world.start(WidgetReconciler(body))
    await quiet(60)
    found = (await world.read()).status
    assert (found.phase, found.foreign) == ("Ready", "of another controller")


async def test_the_status_of_a_kind_without_the_subresource_is_patched(world: World) -> None:
    class Main(WidgetReconciler):
        status_subresource = None

    rules = world.controller(Main(body)).access
    assert {verb for rule in rules if rule.resource == "widgets" for verb in rule.verbs} >= {"patch"}
    assert "update" not in {verb for rule in rules if rule.resource.startswith("widgets") for verb in rule.verbs}


async def test_another_writers_fields_and_spec_survive_a_conflict_and_are_reconciled(world: World) -> None:
    async def disturbed(reconciler, obj, status):
        status.set(phase=f"size {obj.spec.size}")
        if len(reconciler.runs) == 1:
            await world.foreign.patch(Widget, "w", "ns", patch={"status": {"foreign": "kept"}}, subresource="status")
            await world.resize(2)

    reconciler = WidgetReconciler(disturbed)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    status = (await world.read()).to_dict()["status"]
    assert (status["phase"], status["foreign"]) == ("size 2", "kept")
    answers = [(write.verb, write.status) for write in world.server.log.writes(Widget, "w", by="controller")]
    assert answers == [("update", 409), ("update", 200), ("update", 200)]
