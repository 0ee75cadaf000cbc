"""Parts of built-in kinds as fields: described in the CRD, validated, and preserved."""

from __future__ import annotations

from typing import Any

import pytest
from lightkube.models.batch_v1 import JobTemplateSpec
from lightkube.models.core_v1 import Container, PodTemplateSpec

from reconciler import Client, ConditionedStatus, Model, Resource
from reconciler.apiserver import APIServer
from reconciler.controller import ResourceReconciler
from reconciler.errors import Invalid
from reconciler.manager import Manager
from reconciler.objects import InvalidObject, generate_crd

pytestmark = pytest.mark.virtual_time


class CronSpec(Model):
    schedule: str
    job_template: JobTemplateSpec
    sidecars: list[Container] = []
    override: PodTemplateSpec | None = None


class Cron(Resource[CronSpec, ConditionedStatus], group="batch.example.com", version="v1"):
    """A job on a schedule."""


TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {
        "backoffLimit": 2,
        "template": {
            "metadata": {"annotations": {"c": "d"}},
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "busybox",
                        "resources": {"limits": {"cpu": "100m", "memory": 64}},
                        "livenessProbe": {"httpGet": {"port": "http", "path": "/"}},
                    }
                ],
                "restartPolicy": "Never",
            },
        },
    },
}


def document(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "nightly", "namespace": "default"}
    spec = {"schedule": "@daily", "jobTemplate": TEMPLATE} | spec
    return {"apiVersion": "batch.example.com/v1", "kind": "Cron", "metadata": metadata, "spec": spec}


async def test_it_is_stored_as_it_is_and_read_as_the_class() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Cron)
        await client.create(document(sidecars=[{"name": "log"}]))
        found = await client.get(Cron, "nightly", "default")
        assert (await client.get("batch.example.com/v1/Cron", "nightly", "default")).to_dict()["spec"] == document(
            sidecars=[{"name": "log"}]
        )["spec"]
        assert isinstance(found.spec.job_template, JobTemplateSpec)
        assert found.spec.job_template.spec.template.spec.containers[0].resources.limits == {
            "cpu": "100m",
            "memory": 64,
        }
        assert found.spec.sidecars[0].name == "log"
        found.spec.job_template.spec.backoffLimit = 5
        await client.update(found)
        stored = (await client.get("batch.example.com/v1/Cron", "nightly", "default")).to_dict()
        expected = document(sidecars=[{"name": "log"}])["spec"]
        expected["jobTemplate"] = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "backoffLimit": 5}}
        assert stored["spec"] == expected


async def test_the_server_refuses_what_does_not_fit() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Cron)
        for template in ({"spec": {"backoffLimit": "two"}}, {"spec": {}}):
            with pytest.raises(Invalid, match=r"spec\.jobTemplate\.spec"):
                await client.create(document(jobTemplate=template))


def test_the_model_refuses_what_does_not_fit() -> None:
    with pytest.raises(InvalidObject, match=r"Expected `int \| null`, got `str`.*backoffLimit"):
        Cron.from_dict(document(jobTemplate={"spec": {**TEMPLATE["spec"], "backoffLimit": "two"}}))


def test_the_schema_describes_its_fields() -> None:
    schema = generate_crd(Cron)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    template = schema["properties"]["spec"]["properties"]["jobTemplate"]
    job = template["properties"]["spec"]
    assert job["properties"]["backoffLimit"]["type"] == "integer"
    assert job["required"] == ["template"]
    container = job["properties"]["template"]["properties"]["spec"]["properties"]["containers"]["items"]
    assert container["required"] == ["name"]
    assert (
        container["properties"]["livenessProbe"]["properties"]["httpGet"]["properties"]["port"]
        == {"x-kubernetes-int-or-string": True}
        or "anyOf" in container["properties"]["livenessProbe"]["properties"]["httpGet"]["properties"]["port"]
    )


class OldStatus(ConditionedStatus):
    phase: str | None = None


class Old(Resource[Model, OldStatus], group="example.com", version="v1", status_subresource=False):
    """A kind of another project, whose CRD has no status subresource."""


class Olds(ResourceReconciler[Old]):
    async def reconcile_object(self, obj: Old, status: Any) -> None:
        status.set(phase="Ready")


async def test_a_kind_without_the_status_subresource() -> None:
    assert generate_crd(Old)["spec"]["versions"][0]["subresources"] == {}
    async with APIServer() as server, Client(server) as client:
        await server.apply(Old)
        metadata = {"name": "a", "namespace": "default"}
        await client.create({"apiVersion": "example.com/v1", "kind": "Old", "metadata": metadata, "spec": {}})
        manager = Manager(client)
        controller = manager.add_controller(Olds())
        assert ("patch", "olds") in {
            (verb, rule.resource) for rule in controller.access for verb in rule.verbs
        } or controller.access
        async with manager.running():
            assert await client.wait_for(Old, "a", "default", until=lambda old: old.status.phase == "Ready", timeout=5)
            assert controller.statistics().reconciles < 3
