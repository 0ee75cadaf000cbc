"""Endpoints of kinds, presumed without a server and compared with a real one."""

from __future__ import annotations

import json

import pytest

from reconciler.http import HTTPRequest
from reconciler.meta import GroupVersionKind
from reconciler.meta.metadata import ResourceType
from reconciler.objects import Resource
from reconciler.objects.kinds import is_built_in, presumed_resource_type
from reconciler.testing.control_plane import ControlPlane


class Mouse(Resource, group="example.com", version="v1", plural="mice", scope="Cluster"):
    """A kind with an irregular plural."""


def test_a_class_defines_how_it_is_served() -> None:
    assert presumed_resource_type(Mouse) == Mouse.resource_type


def test_a_foreign_kind_is_presumed_to_be_regular() -> None:
    gvk = GroupVersionKind("example.com", "v1", "Policy")
    assert presumed_resource_type("example.com/v1/Policy") == ResourceType(gvk, "policies", namespaced=True)
    assert not is_built_in("example.com")
    assert not is_built_in("gateway.networking.k8s.io")


@pytest.mark.control_plane
async def test_every_built_in_kind_is_known_as_the_server_serves_it(control_plane: ControlPlane) -> None:
    wrong = []
    async with control_plane.client() as client:

        async def ask(path: str) -> dict:
            return json.loads((await client.send(HTTPRequest("GET", path))).body)

        listed = (await ask("/apis"))["groups"]
        groups = [(group["name"], version["version"]) for group in listed for version in group["versions"]]
        for group, version in [("", "v1"), *groups]:
            if not is_built_in(group):
                continue
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            for served in (await ask(path))["resources"]:
                if "/" in served["name"]:
                    continue
                presumed = presumed_resource_type(GroupVersionKind(group, version, served["kind"]))
                if (presumed.plural, presumed.namespaced) != (served["name"], served["namespaced"]):
                    wrong.append((group, served["kind"], served["name"], served["namespaced"]))
    assert wrong == []
    assert {"apps", "batch", "networking.k8s.io", "coordination.k8s.io"} <= {group for group, _ in groups}
