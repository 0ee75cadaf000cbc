"""The table of rules of built-in kinds: reading it, generating it, and what it does to a test that fakes readiness."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.apiserver.builtin.rule_table import section_names, violations
from reconciler.client import Client
from reconciler.errors import Invalid
from tests.apiserver.generate_rules import rules_of

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


def test_a_match_condition_that_is_stored_already_is_not_compiled_again() -> None:
    def configuration(name: str) -> dict[str, Any]:
        return {"webhooks": [{"name": name, "matchConditions": [{"name": "c", "expression": "object.spec ="}]}]}

    kind, path = "admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks[0].matchConditions[0].expression"
    assert path in [error.field for error in violations(kind, configuration("a.b.c"), None)]
    assert path not in [error.field for error in violations(kind, configuration("a.b.d"), configuration("a.b.c"))]


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


_CREDENTIALS = {"monitors": ["m"], "secretRef": {"name": "s"}}


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("Secret", {"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
        ("PersistentVolume", {"spec": {"cephfs": _CREDENTIALS}}),
        ("PersistentVolume", {"spec": {"rbd": {**_CREDENTIALS, "image": "i"}}}),
    ],
)
@pytest.mark.virtual_time
async def test_objects_that_the_real_server_accepts_with_a_warning_are_accepted(
    kind: str, members: dict[str, Any]
) -> None:
    if kind == "PersistentVolume":
        members["spec"] |= {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"]}
    async with APIServer() as server, Client(server) as client:
        await client.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "ns"}, **members})


GO_TYPES = """
// +enum
type Mode string

const (
\tFast Mode = "Fast"
\tSafe Mode = "Safe"
)

type WidgetSpec struct {
\t// +k8s:required
\t// +k8s:immutable
\tOwner string `json:"owner"`
\t// +k8s:alpha(since: "1.36")=+k8s:ifDisabled(Scale)=+k8s:minimum=1
\t// +k8s:alpha(since: "1.36")=+k8s:ifEnabled(Scale)=+k8s:minimum=0
\tReplicas *int32 `json:"replicas,omitempty"`
\t// +k8s:optional
\t// +k8s:maxItems=3
\tModes []Mode `json:"modes,omitempty"`
}
"""


def test_rules_are_generated_from_the_tags_of_go_types() -> None:
    assert list(rules_of(GO_TYPES, "example.v1", with_enums=True)) == [
        ("example.v1.WidgetSpec", "owner required"),
        ("example.v1.WidgetSpec", "owner immutable"),
        ("example.v1.WidgetSpec", "replicas min 1"),
        ("example.v1.WidgetSpec", "modes at-most-items 3"),
        ("example.v1.WidgetSpec", "modes[] in Fast Safe"),
    ]
