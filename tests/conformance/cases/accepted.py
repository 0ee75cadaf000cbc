"""Valid objects that users have, and that a rule could refuse by mistake (26, continued)."""

from __future__ import annotations

from tests.conformance.api import Api
from tests.conformance.cases._case import case
from tests.conformance.cases._mistakes import GONE, created
from tests.conformance.cases.built_in import OBJECTS

_CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
_CREDENTIALS = {"name": "s"}
_PORTAL = {"targetPortal": "10.0.2.15:3260", "iqn": "iqn.2001-04.com.example:storage", "lun": 0}

created(
    "statefulsets",
    [
        {
            "volumeClaimTemplates": [_CLAIM],
            "template.spec.containers[0].volumeMounts": [{"name": "data", "mountPath": "/data"}],
        },
        {
            "volumeClaimTemplates": [{**_CLAIM, "spec": {**_CLAIM["spec"], "volumeMode": "Block"}}],
            "template.spec.containers[0].volumeDevices": [{"name": "data", "devicePath": "/dev/xvda"}],
        },
        {
            "volumeClaimTemplates": [_CLAIM],
            "template.spec.initContainers": [
                {"name": "i", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
            ],
        },
        {
            "volumeClaimTemplates": [_CLAIM],
            "template.spec.containers[0].volumeMounts": [{"name": "other", "mountPath": "/data"}],
        },
    ],
    "spec.",
)
created("deployments", [{"dnsConfig.searches": ["."]}, {"dnsConfig.searches": ["a.b."]}], "spec.template.spec.")
created("services", [{"type": "ExternalName", "externalName": "db.example.com.", "selector": GONE}], "spec.")
created(
    "secrets",
    [
        {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}},
        {"type": "kubernetes.io/basic-auth", "data": {"password": ""}},
        {"type": "kubernetes.io/basic-auth", "data": {"other": ""}, "stringData": GONE},
    ],
)
created(
    "persistentvolumes",
    [
        {"hostPath": GONE, "iscsi": {**_PORTAL, "chapAuthSession": True, "secretRef": _CREDENTIALS}},
        {"hostPath": GONE, "iscsi": {**_PORTAL, "chapAuthSession": True, "secretRef": {"namespace": "n"}}},
        {"hostPath": GONE, "flexVolume": {"driver": "example.com/d", "secretRef": _CREDENTIALS}},
    ],
    "spec.",
)


@case("the defaults of the claims of a stateful set")
async def _(api: Api) -> None:
    spec = {**OBJECTS["statefulsets"]["spec"], "volumeClaimTemplates": [_CLAIM]}
    shown = ["spec.volumeClaimTemplates", "metadata.generation"]
    found = await api.create("statefulsets", {"metadata": {"name": "a"}, "spec": spec}, keep=shown)
    await api.put("statefulsets", "a", {**found, "spec": {**spec, "replicas": 3}}, keep=shown)


@case("a load balancer without node ports, that becomes a cluster IP when it has an address")
async def _(api: Api) -> None:
    spec = {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{"port": 80}]}
    await api.create("services", {"metadata": {"name": "a"}, "spec": spec}, keep=["spec.ports"])
    address = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    await api.patch("services", "a", address, sub="status", keep=["status"])
    await api.patch("services", "a", {"spec": {"type": "ClusterIP"}}, keep=["spec.type", "spec.ports", "status"])
