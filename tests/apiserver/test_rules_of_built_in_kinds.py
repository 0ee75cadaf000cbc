"""The table of rules of built-in kinds: all of it can be read, and what it does to a test that fakes readiness."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from reconciler.apiserver import APIServer
from reconciler.apiserver.builtin.rules.table import section_names, violations
from reconciler.client import Client
from reconciler.errors import Invalid

TYPES = json.loads(resources.files("reconciler.apiserver.builtin").joinpath("types.json").read_text())["types"]
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "w", "namespace": "ns"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "w"}},
        "template": {
            "metadata": {"labels": {"app": "w"}},
            "spec": {"containers": [{"name": "c", "image": "registry.example/app"}]},
        },
    },
}


@pytest.mark.parametrize("name", sorted(section_names()))
def test_every_rule_can_be_read_and_belongs_to_a_type(name: str) -> None:
    assert name in TYPES
    violations(name, {}, None)


@pytest.mark.virtual_time
async def test_status_that_no_controller_would_write_is_refused() -> None:
    async with APIServer() as server, Client(server) as client:
        await client.create(DEPLOYMENT)
        ready = {"status": {"replicas": 1, "readyReplicas": 3}}
        with pytest.raises(Invalid) as raised:
            await client.patch("apps/v1/Deployment", "w", "ns", patch=ready, subresource="status")
        assert "status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas" in str(raised.value)
        ready["status"]["replicas"] = 3
        await client.patch("apps/v1/Deployment", "w", "ns", patch=ready, subresource="status")


@pytest.mark.virtual_time
async def test_objects_that_are_stored_already_stay_valid_when_something_else_changes() -> None:
    async with APIServer() as server, Client(server) as client:
        await client.create(DEPLOYMENT)
        labels = {"metadata": {"labels": {"x": "y"}}}
        found = await client.patch("apps/v1/Deployment", "w", "ns", patch=labels)
        assert found.to_dict()["metadata"]["labels"] == {"x": "y"}
