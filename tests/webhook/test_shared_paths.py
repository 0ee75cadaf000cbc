"""Several webhooks of a kind share a path: each one is called for its own operations and subresources."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import Client, ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.apiserver import APIServer
from reconciler.errors import Forbidden
from reconciler.webhook import (
    AdmissionRequest,
    Denied,
    ServiceReference,
    Validator,
    Warnings,
    WebhookServer,
    webhook_configurations,
)

pytestmark = pytest.mark.virtual_time

READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Up",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


class Spec(Model):
    size: int = 1


class Disk(Resource[Spec, ConditionedStatus], group="example.com", version="v1"):
    """A disk."""


class Kept(Validator[Disk]):
    operations = ("DELETE",)

    def validate_delete(self, obj: Disk, request: AdmissionRequest, /) -> Warnings:
        raise Denied("it is kept")


class Small(Validator[Disk]):
    def validate_create(self, obj: Disk, request: AdmissionRequest, /) -> Warnings:
        if obj.spec.size > 5:
            raise Denied("it is large")
        return None


class Readiness(Validator[Disk]):
    operations = ("UPDATE",)
    subresources = ("status",)

    def validate_update(self, old: Disk, new: Disk, request: AdmissionRequest, /) -> Warnings:
        if request.subresource == "status" and new.status.condition_is_true("Ready"):
            raise Denied("it is not ready")
        return None


class Recorder(Validator[Disk]):
    """A validator that records its calls; not of the status."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def review(self, request: AdmissionRequest) -> Any:
        self.calls.append(f"{request.operation} {request.subresource}".strip())
        return await super().review(request)


async def test_each_of_several_validators_is_called_for_its_own_operations_and_subresources(
    apiserver: APIServer, client: Client
) -> None:
    recorder, webhooks = Recorder(), WebhookServer()
    for each in (Kept(), Small(), Readiness(), recorder):
        webhooks.add(each)
    service = ServiceReference("ops", "disks")
    await apiserver.apply(Disk, *webhook_configurations(webhooks, name="disks", service=service))
    apiserver.connect_webhooks("ops/disks", webhooks)
    with pytest.raises(Forbidden, match="it is large"):
        await client.create(Disk(metadata=ObjectMeta(name="a", namespace="default"), spec=Spec(size=9)))
    disk = await client.create(Disk(metadata=ObjectMeta(name="a", namespace="default"), spec=Spec(size=2)))
    await client.patch(Disk, "a", "default", patch={"spec": {"size": 3}})
    with pytest.raises(Forbidden, match="it is not ready"):
        await client.patch(Disk, "a", "default", patch={"status": {"conditions": [READY]}}, subresource="status")
    with pytest.raises(Forbidden, match="it is kept"):
        await client.delete(disk)
    assert recorder.calls == ["CREATE", "UPDATE"]


async def test_what_only_a_configuration_of_your_own_asks_for_is_reviewed(apiserver: APIServer, client: Client) -> None:
    class NeverReady(Validator[Disk]):
        def validate_update(self, old: Disk, new: Disk, request: AdmissionRequest, /) -> Warnings:
            if new.status.condition_is_true("Ready"):
                raise Denied("it is not ready")
            return None

    webhooks = WebhookServer()
    webhooks.add(NeverReady())
    (configuration,) = webhook_configurations(webhooks, name="disks", service=ServiceReference("ops", "disks"))
    configuration["webhooks"][0]["rules"][0]["resources"].append("disks/status")
    await apiserver.apply(Disk, configuration)
    apiserver.connect_webhooks("ops/disks", webhooks)
    await client.create(Disk(metadata=ObjectMeta(name="a", namespace="default"), spec=Spec()))
    with pytest.raises(Forbidden, match="it is not ready"):
        await client.patch(Disk, "a", "default", patch={"status": {"conditions": [READY]}}, subresource="status")


async def test_webhooks_are_connected_without_a_server_of_their_own(apiserver: APIServer, client: Client) -> None:
    webhooks = (Small(), Readiness())
    await apiserver.apply(
        Disk, *webhook_configurations(webhooks, name="disks", service=ServiceReference("ops", "disks"))
    )
    apiserver.connect_webhooks("ops/disks", webhooks)
    with pytest.raises(Forbidden, match="it is large"):
        await client.create(Disk(metadata=ObjectMeta(name="a", namespace="default"), spec=Spec(size=9)))
