"""Bodies in protobuf, as Go's typed clients and `kubectl create` send them (22)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api, kind_of
from tests.conformance.cases._case import case, table, widget
from tests.conformance.cases.built_in import OBJECTS, filled
from tests.conformance.protobuf import PROTOBUF, to_protobuf

_LEFT_OUT = ("secrets", "persistentvolumeclaims")
_MORE: dict[str, list[dict[str, Any]]] = {
    "pods": [
        {
            "spec": {
                "containers": [
                    {
                        "name": "c",
                        "image": "i:1",
                        "ports": [{"containerPort": 80, "hostPort": 0}],
                        "resources": {"limits": {"cpu": "500m"}},
                        "livenessProbe": {"httpGet": {"port": "web"}, "initialDelaySeconds": 3},
                        "readinessProbe": {"tcpSocket": {"port": 80}},
                        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    }
                ],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "s"}}],
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsUser": 0, "supplementalGroups": [1, 2]},
            }
        }
    ],
    "deployments": [
        {
            "spec": {
                "replicas": 0,
                "selector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]},
                "strategy": {"rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 0}},
                "template": {
                    "metadata": {"labels": {"k": "v"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                },
            }
        }
    ],
    "leases": [
        {
            "spec": {
                "holderIdentity": "h",
                "leaseDurationSeconds": 15,
                "renewTime": "2026-01-01T00:00:00.123456Z",
                "leaseTransitions": 0,
            }
        }
    ],
    "secrets": [{"data": {"a": "AAEC/w=="}, "type": "Opaque"}],
}


async def _sent(api: Api, plural: str, body: dict[str, Any]) -> None:
    meta = {"name": "a", "labels": {"x": "y"}, "annotations": {"n": ""}}
    document = {**kind_of(plural), "metadata": meta, **filled(body, api.ns)}
    await api.call("POST", api.path(plural), to_protobuf(document), content=PROTOBUF)


table(
    [(f"protobuf of {plural}", plural, body) for plural, body in OBJECTS.items() if plural not in _LEFT_OUT]
    + [(f"protobuf of {plural}, and zeros", plural, body) for plural, bodies in _MORE.items() for body in bodies],
)(_sent)


@case("a PUT and a DELETE in protobuf")
async def _(api: Api) -> None:
    made = await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"x": "1"}}, quiet=True)
    changed = {
        **kind_of("configmaps"),
        "metadata": {"name": "a", "resourceVersion": made["metadata"]["resourceVersion"]},
        "data": {"x": "2"},
    }
    await api.call("PUT", api.path("configmaps", "a"), to_protobuf(changed), content=PROTOBUF)
    await api.call("PUT", api.path("configmaps", "a"), to_protobuf(changed), content=PROTOBUF)
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": made["metadata"]["uid"]}}
    await api.call("DELETE", api.path("configmaps", "a"), to_protobuf(options), content=PROTOBUF)


@case("options of a delete in protobuf, for a custom object")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground", "gracePeriodSeconds": 0}
    await api.call("DELETE", api.path("widgets", "a"), to_protobuf(options), content=PROTOBUF)


@case("an eviction and a binding in protobuf")
async def _(api: Api) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    for name, sub, document in (
        ("a", "eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": {"gracePeriodSeconds": 0}}),
        ("b", "binding", {"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n"}}),
    ):
        await api.create("pods", {"metadata": {"name": name}, "spec": spec}, quiet=True)
        sent = to_protobuf({**document, "metadata": {"name": name}})
        await api.call("POST", api.path("pods", name, sub), sent, content=PROTOBUF)
        await api.get("pods", name, keep=["spec.nodeName"])


@case("webhooks in protobuf")
async def _(api: Api) -> None:
    webhook = {
        "name": "a.example.com",
        "clientConfig": {"url": "https://127.0.0.1/a"},
        "rules": [{"apiGroups": ["none"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nones"]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        path, version = f"/apis/admissionregistration.k8s.io/v1/{kind.lower()}s", "admissionregistration.k8s.io/v1"
        document = {"apiVersion": version, "kind": kind, "metadata": {"name": api.ns}, "webhooks": [webhook]}
        await api.call("POST", path, to_protobuf(document), content=PROTOBUF, keep=["webhooks"])
        await api.call("DELETE", f"{path}/{api.ns}", keep=["status"])


@case("a CustomResourceDefinition in protobuf")
async def _(api: Api) -> None:
    properties = {
        "anything": {"type": "object", "additionalProperties": True},
        "nothing": {"type": "object", "additionalProperties": False},
        "texts": {"type": "object", "additionalProperties": {"type": "string"}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "list": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1.5}},
        "size": {"type": "integer", "default": 3, "enum": [3, 4]},
        "text": {"type": "string", "default": "a", "nullable": True},
        "either": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "ruled": {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''", "message": "empty"}]},
    }
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        "subresources": {"status": {}, "scale": scale},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".size"}],
    }
    plural, group = "protobufs", f"{api.ns}.example.com"
    document = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"plural": plural, "kind": "Protobuf"},
            "scope": "Namespaced",
            "versions": [version, {**version, "name": "v2", "served": False, "storage": False, "subresources": {}}],
        },
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for sent in (document, {**document, "spec": {**document["spec"], "scope": "Everywhere"}}):
        await api.call("POST", path, to_protobuf(sent), content=PROTOBUF, query={"dryRun": "All"}, keep=["spec"])
