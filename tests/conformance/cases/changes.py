"""Immutable fields of built-in objects, and items that a list must not contain (27)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import STRATEGIC, Api
from tests.conformance.cases._case import case, table
from tests.conformance.cases.built_in import OBJECTS, SELECTOR, TEMPLATE, filled

_POD: dict[str, Any] = {
    "spec": {
        "activeDeadlineSeconds": 50,
        "containers": [
            {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "1"}}},
            {"name": "d", "image": "j"},
        ],
        "initContainers": [{"name": "e", "image": "k"}],
        "tolerations": [{"key": "x", "operator": "Exists"}],
    }
}
_JOB: dict[str, Any] = {
    "spec": {"template": {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}, "completions": 2}
}


async def _changed(api: Api, plural: str, body: dict[str, Any], change: dict[str, Any], content: str = "") -> None:
    """Make an object, change it, and show what became of its spec."""
    await api.create(plural, {"metadata": {"name": "a"}, **filled(body, api.ns)}, quiet=True)
    options = {"content": content} if content else {}
    await api.patch(plural, "a", change, keep=["kind", "metadata.generation"], **options)


def _pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def _container(**changes: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", **changes}]}}


table(
    [
        ("a pod: the image", "pods", _POD, _container(image="other"), STRATEGIC),
        ("a pod: the image with a blank", "pods", _POD, _container(image="other "), STRATEGIC),
        ("a pod: no image", "pods", _POD, _container(image=""), STRATEGIC),
        ("a pod: a variable", "pods", _POD, _container(env=[{"name": "A", "value": "2"}]), STRATEGIC),
        ("a pod: resources", "pods", _POD, _container(resources={"limits": {"cpu": "2"}}), STRATEGIC),
        ("a pod: a command", "pods", _POD, _container(command=["x"]), STRATEGIC),
        ("a pod: one more container", "pods", _POD, {"spec": {"containers": [{"name": "z", "image": "i"}]}}, STRATEGIC),
        ("a pod: the order of containers", "pods", _POD, _pod(containers=_POD["spec"]["containers"][::-1])),
        ("a pod: a container less", "pods", _POD, _pod(containers=_POD["spec"]["containers"][:1])),
        ("a pod: no init container", "pods", _POD, _pod(initContainers=None)),
        ("a pod: its first image", "pods", _POD, _pod(initContainers=[{"name": "e", "image": "other"}])),
        ("a pod: a shorter deadline", "pods", _POD, _pod(activeDeadlineSeconds=40)),
        ("a pod: a longer deadline", "pods", _POD, _pod(activeDeadlineSeconds=60)),
        ("a pod: a negative deadline", "pods", _POD, _pod(activeDeadlineSeconds=-1)),
        ("a pod: no deadline", "pods", _POD, _pod(activeDeadlineSeconds=None)),
        ("a pod: a first deadline", "pods", OBJECTS["pods"], _pod(activeDeadlineSeconds=60)),
        ("a pod: the grace period", "pods", _POD, _pod(terminationGracePeriodSeconds=1)),
        (
            "a pod: one more toleration",
            "pods",
            OBJECTS["pods"],
            _pod(tolerations=[{"key": "y", "operator": "Exists"}]),
        ),
        ("a pod: another toleration", "pods", _POD, _pod(tolerations=[{"key": "y", "operator": "Exists"}])),
        ("a pod: no tolerations", "pods", OBJECTS["pods"], _pod(tolerations=None)),
        ("a pod: the node", "pods", _POD, _pod(nodeName="n")),
        ("a pod: the selector of nodes", "pods", _POD, _pod(nodeSelector={"a": "b"})),
        ("a pod: the restart policy", "pods", _POD, _pod(restartPolicy="Never")),
        ("a pod: the host's network", "pods", _POD, _pod(hostNetwork=True)),
        ("a pod: a volume", "pods", _POD, _pod(volumes=[{"name": "v", "emptyDir": {}}])),
        ("a pod: the account", "pods", _POD, _pod(serviceAccountName="x")),
        ("a pod: the priority", "pods", _POD, _pod(priority=5)),
        ("a pod: a gate", "pods", _POD, _pod(schedulingGates=[{"name": "example.com/g"}])),
        (
            "a pod: a gate that opens",
            "pods",
            {"spec": {**_POD["spec"], "schedulingGates": [{"name": "example.com/g"}]}},
            _pod(schedulingGates=None),
        ),
        (
            "a pod that waits: the selector of nodes",
            "pods",
            {"spec": {**_POD["spec"], "schedulingGates": [{"name": "example.com/g"}]}},
            _pod(nodeSelector={"a": "b"}),
        ),
        ("a pod: several things", "pods", _POD, _pod(activeDeadlineSeconds=None, nodeName="n", tolerations=None)),
    ],
)(_changed)


@case("a pod is updated with the document that created it")
async def _(api: Api) -> None:
    await api.create("pods", {"metadata": {"name": "a"}, **_POD}, quiet=True)
    await api.put(
        "pods", "a", {"metadata": {"name": "a", "labels": {"x": "y"}}, **_POD}, keep=["metadata.labels", "spec"]
    )
    found = await api.get("pods", "a", keep=["kind"])
    found["spec"]["containers"][0]["image"] = "other"
    await api.put("pods", "a", found, keep=["spec"])
    await api.apply("pods", "a", {"metadata": {"name": "a"}, "spec": {"nodeName": "n"}})
    await api.patch("pods", "a", {"spec": {"nodeName": "n"}, "status": {"phase": "Running"}}, "status", keep=["spec"])


_SELECTOR = {"matchLabels": {"k": "v", "x": "y"}}
_LABELS = {"metadata": {"labels": {"k": "v", "x": "y"}}}
_SERVICE = {"spec": {"selector": {"k": "v"}, "ports": [{"port": 80}]}}
_BOTH = {"spec": {"selector": _SELECTOR, "template": _LABELS}}
_CLAIM: dict[str, Any] = {
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "s",
        "resources": {"requests": {"storage": "1Gi"}},
    }
}
_STATEFUL: dict[str, Any] = {
    "spec": {
        **OBJECTS["statefulsets"]["spec"],
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, **_CLAIM}],
    }
}

table(
    [
        ("a service: another address", "services", _SERVICE, {"spec": {"clusterIP": "10.0.0.77", "clusterIPs": None}}),
        ("a service: another address alone", "services", _SERVICE, {"spec": {"clusterIP": "10.0.0.77"}}),
        (
            "a service: no address any more",
            "services",
            _SERVICE,
            {"spec": {"clusterIP": "None", "clusterIPs": ["None"]}},
        ),
        ("a service: an address after none", "services", OBJECTS["services"], {"spec": {"clusterIP": "10.0.0.78"}}),
        ("a service: its address left out", "services", _SERVICE, {"spec": {"clusterIP": None, "clusterIPs": None}}),
        ("a service: its selector", "services", _SERVICE, {"spec": {"selector": {"x": "y"}}}),
        ("a service: its type", "services", _SERVICE, {"spec": {"type": "NodePort"}}),
        ("a service: a type without addresses", "services", _SERVICE, {"spec": {"type": "ExternalName"}}),
        ("a deployment: its selector", "deployments", OBJECTS["deployments"], _BOTH),
        ("a replica set: its selector", "replicasets", OBJECTS["replicasets"], _BOTH),
        ("a daemon set: its selector", "daemonsets", OBJECTS["daemonsets"], _BOTH),
        ("a stateful set: its selector", "statefulsets", OBJECTS["statefulsets"], _BOTH),
        ("a stateful set: its service", "statefulsets", OBJECTS["statefulsets"], {"spec": {"serviceName": "x"}}),
        (
            "a stateful set: how pods are made",
            "statefulsets",
            OBJECTS["statefulsets"],
            {"spec": {"podManagementPolicy": "Parallel"}},
        ),
        ("a stateful set: its claims", "statefulsets", _STATEFUL, {"spec": {"volumeClaimTemplates": None}}),
        ("a stateful set: its template", "statefulsets", _STATEFUL, {"spec": {"template": _LABELS}}),
        ("a stateful set: its strategy", "statefulsets", _STATEFUL, {"spec": {"updateStrategy": {"type": "OnDelete"}}}),
        ("a deployment: its template", "deployments", OBJECTS["deployments"], {"spec": {"template": _LABELS}}),
        ("a job: its parallelism", "jobs", _JOB, {"spec": {"parallelism": 3}}),
        ("a job: its completions", "jobs", _JOB, {"spec": {"completions": 3}}),
        ("a job: its template's image", "jobs", _JOB, {"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}),
        ("a job: its template's labels", "jobs", _JOB, {"spec": {"template": _LABELS}}),
        ("a job: its selector", "jobs", _JOB, {"spec": {"selector": SELECTOR}}),
        ("a job: how it completes", "jobs", _JOB, {"spec": {"completionMode": "Indexed"}}),
        ("a job: its limit of retries", "jobs", _JOB, {"spec": {"backoffLimit": 1}}),
        ("a job: its deadline", "jobs", _JOB, {"spec": {"activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 6}}),
        ("a job: suspended", "jobs", _JOB, {"spec": {"suspend": True}}),
        ("a job: managedBy", "jobs", _JOB, {"spec": {"managedBy": "example.com/x"}}),
        (
            "a claim: its size",
            "persistentvolumeclaims",
            _CLAIM,
            {"spec": {"resources": {"requests": {"storage": "2Gi"}}}},
        ),
        ("a claim: its class", "persistentvolumeclaims", _CLAIM, {"spec": {"storageClassName": "t"}}),
        ("a claim: its volume", "persistentvolumeclaims", _CLAIM, {"spec": {"volumeName": "v"}}),
        ("a claim: its modes", "persistentvolumeclaims", _CLAIM, {"spec": {"accessModes": ["ReadWriteMany"]}}),
        ("a claim: its labels", "persistentvolumeclaims", _CLAIM, {"metadata": {"labels": {"x": "y"}}}),
        ("a role binding: its role", "rolebindings", OBJECTS["rolebindings"], {"roleRef": {"name": "x"}}),
        ("a role binding: its subjects", "rolebindings", OBJECTS["rolebindings"], {"subjects": None}),
        ("a slice: its type", "endpointslices", OBJECTS["endpointslices"], {"addressType": "FQDN"}),
        (
            "a budget: its selector",
            "poddisruptionbudgets",
            OBJECTS["poddisruptionbudgets"],
            {"spec": {"selector": _SELECTOR}},
        ),
        ("a secret: its type", "secrets", OBJECTS["secrets"], {"type": "example.com/x"}),
        ("an immutable map: its data", "configmaps", {"data": {"a": "1"}, "immutable": True}, {"data": {"a": "2"}}),
        (
            "an immutable map: more data",
            "configmaps",
            {"data": {"a": "1"}, "immutable": True},
            {"binaryData": {"b": "MQ=="}},
        ),
        (
            "an immutable map: immutable is unset",
            "configmaps",
            {"data": {"a": "1"}, "immutable": True},
            {"immutable": False},
        ),
        (
            "an immutable map: its labels",
            "configmaps",
            {"data": {"a": "1"}, "immutable": True},
            {"metadata": {"labels": {"x": "y"}}},
        ),
        ("a map that freezes", "configmaps", {"data": {"a": "1"}}, {"data": {"a": "2"}, "immutable": True}),
        (
            "an immutable secret: its data",
            "secrets",
            {"data": {"a": "MQ=="}, "immutable": True},
            {"stringData": {"a": "2"}},
        ),
        (
            "an immutable secret: immutable is unset",
            "secrets",
            {"data": {"a": "MQ=="}, "immutable": True},
            {"immutable": None},
        ),
        (
            "a controller: its selector",
            "replicationcontrollers",
            OBJECTS["replicationcontrollers"],
            _BOTH | {"spec": {"selector": {"k": "v", "x": "y"}, "template": _LABELS}},
        ),
    ],
)(_changed)


@case("immutable fields of kinds outside namespaces")
async def _(api: Api) -> None:
    name = api.ns
    for plural, body, change in (
        ("storageclasses", {"provisioner": "example.com/p"}, {"provisioner": "example.com/q"}),
        ("storageclasses", {"provisioner": "example.com/p"}, {"reclaimPolicy": "Retain"}),
        ("storageclasses", {"provisioner": "example.com/p"}, {"parameters": {"a": "b"}}),
        ("storageclasses", {"provisioner": "example.com/p"}, {"allowVolumeExpansion": True}),
        ("priorityclasses", {"value": 7}, {"value": 8}),
        ("priorityclasses", {"value": 7}, {"preemptionPolicy": "Never"}),
        ("priorityclasses", {"value": 7}, {"description": "x"}),
        ("ingressclasses", {"spec": {"controller": "example.com/c"}}, {"spec": {"controller": "example.com/d"}}),
        (
            "clusterrolebindings",
            {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}},
            {"roleRef": {"name": "s"}},
        ),
        (
            "persistentvolumes",
            {
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "1Gi"},
                    "hostPath": {"path": "/x"},
                }
            },
            {"spec": {"hostPath": {"path": "/y"}}},
        ),
    ):
        await api.create(plural, {"metadata": {"name": name}, **body}, quiet=True)
        await api.patch(plural, name, change, keep=["kind"])
        await api.delete(plural, name, quiet=True)


@case("an item that occurs three times in a list is refused once")
async def _(api: Api) -> None:
    await api.create("widgets", {"metadata": {"name": "a"}, "spec": {"size": 1, "tags": ["x", "x", "x"]}})
    ports = [{"name": "p"}, {"name": "q"}, {"name": "p"}, {"name": "p"}, {"name": "q"}]
    await api.create("widgets", {"metadata": {"name": "a"}, "spec": {"size": 1, "ports": ports}})
