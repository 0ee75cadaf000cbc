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
