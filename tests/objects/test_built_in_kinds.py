"""Built-in kinds as classes of lightkube, on both servers."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector
from lightkube.models.meta_v1 import ObjectMeta as Meta
from lightkube.resources.apps_v1 import Deployment, DeploymentStatus
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret

from reconciler import Client, ConditionedStatus, Manager, Outcome, ResourceReconciler, Result, StatusBatcher
from reconciler.errors import ConfigurationError, NotFound
from reconciler.meta import Request, request_of
from reconciler.meta.documents import merge_diff
from reconciler.objects import InvalidObject, Model, ObjectMeta, Resource, Unstructured
from reconciler.objects.kinds import documents_to_compare, from_document, gvk_from, original_document, to_document
from tests.objects.serving import serve


def deployment(name: str = "web", replicas: int = 1) -> Deployment:
    labels = {"app": name}
    return Deployment(
        metadata=Meta(name=name, namespace="default", labels=labels),
        spec=DeploymentSpec(
            replicas=replicas,
            selector=LabelSelector(matchLabels=labels),
            template=PodTemplateSpec(
                metadata=Meta(labels=labels), spec=PodSpec(containers=[Container(name="c", image="nginx")])
            ),
        ),
    )


def test_the_key_of_an_object() -> None:
    assert request_of(deployment()) == Request("web", "default")
    assert request_of(Namespace(metadata=Meta(name="prod"))) == Request("prod")


async def test_every_verb_takes_and_returns_the_class(admin: Client) -> None:
    made = await admin.create(deployment())
    assert isinstance(made, Deployment)
    assert made.metadata is not None
    assert (made.metadata.name, made.spec.strategy is not None) == ("web", True)
    read = await admin.get(Deployment, "web", "default")
    assert read == made
    read.spec.replicas = 3
    updated = await admin.update(read)
    assert (type(updated), updated.spec.replicas) == (Deployment, 3)
    assert [type(one) for one in await admin.list(Deployment, "default")] == [Deployment]
    patched = await admin.patch(Deployment, "web", "default", patch={"spec": {"paused": True}})
    assert patched.spec.paused is True

    def scale_up(one: Deployment) -> None:
        one.spec.replicas = 5

    changed, written = await admin.create_or_update(deployment(), scale_up)
    assert (type(changed), changed.spec.replicas, written) == (Deployment, 5, "updated")
    assert (await admin.create_or_patch(deployment(), scale_up))[1] == "unchanged"

    applied = await admin.apply(deployment("other"), field_manager="test")
    assert isinstance(applied, Deployment)
    status = await admin.get_subresource(Deployment, "web", "default", subresource="status")
    assert status["kind"] == "Deployment"
    await admin.delete(applied)
    await admin.delete(Deployment, "web", "default")
    with pytest.raises(NotFound):
        await admin.get(Deployment, "other", "default")

    lease = Lease(
        metadata=Meta(name="l", namespace="default"), spec=LeaseSpec(renewTime=datetime(2026, 1, 1, tzinfo=UTC))
    )
    assert (await admin.create(lease)).spec.renewTime == datetime(2026, 1, 1, tzinfo=UTC)  # type: ignore[union-attr]
    assert isinstance(await admin.create(Namespace(metadata=Meta(name="new"))), Namespace)


DOCUMENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "a", "namespace": "default", "newInMetadata": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "data": {"a": "1"},
    "newField": {"x": [1, None]},
}


@pytest.mark.parametrize("through", [lambda obj: obj, copy.deepcopy], ids=["as read", "deep copy"])
def test_fields_unknown_to_the_class_survive_a_change(through: Any) -> None:
    read = through(from_document(ConfigMap, DOCUMENT))
    assert isinstance(read, ConfigMap)
    assert to_document(read) == DOCUMENT
    read.data = {"a": "2"}
    assert to_document(read) == DOCUMENT | {"data": {"a": "2"}}
    assert original_document(read) == DOCUMENT
    assert to_document(copy.deepcopy(read)) == DOCUMENT | {"data": {"a": "2"}}


def test_a_patch_from_a_shallow_copy_removes_no_unknown_field() -> None:
    read = from_document(ConfigMap, DOCUMENT)
    changed = copy.copy(read)
    changed.data = {"b": "2"}
    assert merge_diff(*documents_to_compare(read, changed)) == {"data": {"a": None, "b": "2"}}


def test_a_document_that_does_not_fit_its_class() -> None:
    bad = DOCUMENT | {"data": "x"}
    with pytest.raises(
        InvalidObject, match=r"ConfigMap a does not fit its class: data: Expected `object \| null`, got `str`"
    ):
        from_document(ConfigMap, bad)
    assert isinstance(from_document(ConfigMap, bad, lenient=True), Unstructured)


def test_classes_that_are_not_kinds_are_refused() -> None:
    from lightkube.models.core_v1 import ConfigMap as Part

    assert str(gvk_from(Deployment)) == "apps/v1/Deployment"
    with pytest.raises(TypeError, match=r"lightkube\.resources \(those of lightkube\.models are only parts\)"):
        gvk_from(Part)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="DeploymentStatus is a subresource of Deployment: use Deployment"):
        gvk_from(DeploymentStatus)
    with pytest.raises(ConfigurationError, match=r"a class of lightkube\.resources"):

        class Wrong(ResourceReconciler[PodSpec]):
            pass


class AppSpec(Model):
    replicas: int = 1


class AppStatus(ConditionedStatus):
    ready: int = 0


class App(Resource[AppSpec, AppStatus], group="example.com", version="v1"):
    """An application."""


class Apps(ResourceReconciler[App]):
    async def reconcile_object(self, app: App, status: StatusBatcher[Any]) -> Outcome:
        await self.client.apply(deployment(app.name, app.spec.replicas), owner=app)
        found = await self.client.get(Deployment, app.name, app.namespace)
        assert isinstance(found, Deployment)
        status.set("ready", (found.status and found.status.readyReplicas) or 0)
        return None


class Secrets(ResourceReconciler[Secret]):
    def __init__(self) -> None:
        self.seen: list[str | None] = []
        self.finalized: list[type] = []

    async def reconcile_object(self, secret: Secret, status: StatusBatcher[Any]) -> Outcome:
        assert secret.metadata is not None
        self.seen.append(secret.metadata.name)
        return Result()

    async def finalize(self, secret: Secret, status: StatusBatcher[Any]) -> Outcome:
        self.finalized.append(type(secret))
        return None


async def test_a_controller_owns_and_reconciles_classes(admin: Client) -> None:
    await serve(admin, App)
    secrets = Secrets()
    manager = Manager(admin, grace_period=1)
    manager.add_controller(Apps(), owns=[Deployment])
    manager.add_controller(secrets)
    async with manager.running():
        await admin.create(App(metadata=ObjectMeta(name="app", namespace="default"), spec=AppSpec(replicas=2)))
        made = await admin.wait_for(
            Deployment, "app", "default", until=lambda found: found.spec is not None, timeout=20
        )
        assert (made.spec.replicas, made.metadata.ownerReferences[0].kind) == (2, "App")  # type: ignore[union-attr,index]
        status = {"replicas": 2, "readyReplicas": 2}
        await admin.patch(Deployment, "app", "default", patch={"status": status}, subresource="status")
        await admin.wait_for(App, "app", "default", until=lambda found: found.status.ready == 2, timeout=20)

        await admin.create(Secret(metadata=Meta(name="s", namespace="default")))
        await admin.wait_for(Secret, "s", "default", until=_has_finalizer, timeout=20)
        await admin.delete(Secret, "s", "default")
        await admin.wait_gone(Secret, "s", "default", timeout=20)
    assert (secrets.seen[-1], set(secrets.finalized)) == ("s", {Secret})


def _has_finalizer(secret: Secret) -> bool:
    return secret.metadata is not None and bool(secret.metadata.finalizers)
