"""Built-in kinds: their defaults, status subresources and scales (19 and 20)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import STRATEGIC, Api
from tests.conformance.cases._case import case, names, table

TEMPLATE = {
    "metadata": {"labels": {"k": "v"}},
    "spec": {"containers": [{"name": "c", "image": "registry.example/app"}]},
}
SELECTOR = {"matchLabels": {"k": "v"}}
_TIME = "2026-01-01T00:00:00Z"

OBJECTS: dict[str, dict[str, Any]] = {
    "configmaps": {"data": {"a": "1"}, "binaryData": {"b": "MQ=="}},
    "secrets": {"stringData": {"a": "1"}},
    "events": {
        "reason": "R",
        "message": "m",
        "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "{ns}"},
        "firstTimestamp": _TIME,
        "count": 1,
    },
    "events.events.k8s.io": {
        "reason": "R",
        "action": "A",
        "type": "Normal",
        "note": "n",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/c",
        "reportingInstance": "i",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "{ns}"},
    },
    "serviceaccounts": {},
    "services": {"spec": {"clusterIP": "None", "selector": {"k": "v"}, "ports": [{"port": 80}]}},
    "pods": {"spec": TEMPLATE["spec"]},
    "podtemplates": {"template": TEMPLATE},
    "replicationcontrollers": {"spec": {"selector": {"k": "v"}, "template": TEMPLATE}},
    "persistentvolumeclaims": {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    },
    "limitranges": {"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}},
    "resourcequotas": {"spec": {"hard": {"pods": "5"}}},
    "endpoints": {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]},
    "deployments": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "replicasets": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "statefulsets": {"spec": {"selector": SELECTOR, "serviceName": "s", "template": TEMPLATE}},
    "daemonsets": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "cronjobs": {
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": {"spec": {"template": {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}},
        }
    },
    "leases": {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 15}},
    "poddisruptionbudgets": {"spec": {"minAvailable": 1, "selector": SELECTOR}},
    "ingresses": {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}},
    "networkpolicies": {"spec": {"podSelector": {}}},
    "endpointslices": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"port": 80}],
    },
    "roles": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "rolebindings": {
        "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "default"}, {"kind": "User", "name": "u"}],
    },
    "horizontalpodautoscalers": {
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}
    },
}


def filled(value: Any, ns: str) -> Any:
    """Return a value with the namespace of a case filled in."""
    if isinstance(value, dict):
        return {key: filled(member, ns) for key, member in value.items()}
    if isinstance(value, list):
        return [filled(item, ns) for item in value]
    return ns if value == "{ns}" else value


async def made(api: Api, plural: str, **options: Any) -> dict[str, Any]:
    """Make the object of a kind."""
    return await api.create(plural, {"metadata": {"name": "a"}, **filled(OBJECTS[plural], api.ns)}, **options)


async def _created(api: Api, plural: str) -> None:
    """Show what the server makes of an object, who owns what, that a PUT of it changes nothing, and how it goes."""
    api.with_owners = True
    found = await made(api, plural, query={"fieldManager": "one"})
    await api.put(plural, "a", found, query={"fieldManager": "two"})
    await api.patch(plural, "a", {"metadata": {"labels": {"x": "y"}}}, keep=["metadata.generation", "metadata.labels"])


table(
    [(f"server-side defaults of {plural}", plural) for plural in OBJECTS if plural != "persistentvolumeclaims"],
)(_created)


async def _applied(api: Api, plural: str) -> None:
    api.with_owners = True
    body = {"metadata": {"name": "a"}, **filled(OBJECTS[plural], api.ns)}
    await api.apply(plural, "a", body, keep=["metadata.managedFields"])
    before = await api.get(plural, "a", quiet=True)
    after = await api.apply(plural, "a", body, quiet=True)
    same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    api.transcript.append({"same version": same})


table(
    [
        (f"field ownership after an apply of {plural}", plural)
        for plural in OBJECTS
        if plural not in ("secrets", "events.events.k8s.io", "persistentvolumeclaims")
    ],
)(_applied)

_CONDITION = {"status": "True", "reason": "R", "message": "m", "lastTransitionTime": _TIME}
_STATUS: dict[str, dict[str, Any]] = {
    "pods": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    "services": {"conditions": [{**_CONDITION, "type": "T"}]},
    "replicationcontrollers": {"replicas": 1},
    "persistentvolumeclaims": {"phase": "Bound"},
    "resourcequotas": {"hard": {"pods": "5"}, "used": {"pods": "1"}},
    "deployments": {"replicas": 1, "readyReplicas": 1, "conditions": [{"type": "Available", "status": "True"}]},
    "replicasets": {"replicas": 1, "readyReplicas": 1},
    "statefulsets": {"replicas": 1, "readyReplicas": 1},
    "daemonsets": {
        "currentNumberScheduled": 1,
        "desiredNumberScheduled": 1,
        "numberMisscheduled": 0,
        "numberReady": 1,
    },
    "cronjobs": {"lastScheduleTime": _TIME},
    "poddisruptionbudgets": {"currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1},
    "ingresses": {"loadBalancer": {"ingress": [{"hostname": "h.example"}]}},
    "horizontalpodautoscalers": {
        "currentReplicas": 1,
        "desiredReplicas": 2,
        "currentMetrics": None,
        "conditions": None,
    },
}


async def _stated(api: Api, plural: str, status: dict[str, Any]) -> None:
    await made(api, plural, quiet=True)
    keep = ["status", "metadata.generation"]
    await api.patch(plural, "a", {"status": status, "spec": {"bogus": 1}}, "status", keep=keep)
    await api.patch(plural, "a", {"status": status}, "status", content=STRATEGIC, keep=keep)
    await api.patch(plural, "a", {"status": {"bogus": 1}}, keep=keep)
    await api.get(plural, "a", "status", keep=keep)


table([(f"the status of {plural}", plural, status) for plural, status in _STATUS.items()])(_stated)


@case("the status of a namespace and a node")
async def _(api: Api) -> None:
    await api.patch("namespaces", api.ns, {"status": {"phase": "Active"}}, "status", keep=["status", "spec"])
    await api.create("nodes", {"metadata": {"name": api.ns}}, keep=["spec", "status"])
    status = {"conditions": [{"type": "Ready", "status": "True"}], "capacity": {"cpu": "1"}}
    await api.patch("nodes", api.ns, {"status": status}, "status", keep=["spec", "status"])
    await api.call("DELETE", api.path("nodes", api.ns), quiet=True)


@case("the behavior of an autoscaler")
async def _(api: Api) -> None:
    body = filled(OBJECTS["horizontalpodautoscalers"], api.ns)
    for behavior in ({}, {"scaleDown": {"stabilizationWindowSeconds": 60}}, {"scaleUp": {"selectPolicy": "Min"}}):
        changed = {"metadata": {"name": "a"}, "spec": {**body["spec"], "behavior": behavior}}
        await api.create("horizontalpodautoscalers", changed, query={"dryRun": "All"}, keep=["spec.behavior"])


@case("a service that changes its type")
async def _(api: Api) -> None:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    await api.create("services", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    shown = ["spec.type", "spec.externalTrafficPolicy", "spec.allocateLoadBalancerNodePorts", "spec.ipFamilies"]
    external, back = {"type": "ExternalName", "externalName": "a.example"}, {"type": "NodePort", "externalName": None}
    for change in ({"type": "ClusterIP"}, external, back):
        await api.patch("services", "a", {"spec": change}, keep=shown)


async def _scaled(api: Api, plural: str) -> None:
    await made(api, plural, quiet=True)
    scale = await api.get(plural, "a", "scale")
    await api.patch(plural, "a", {"spec": {"replicas": 4}}, "scale")
    await api.get(plural, "a", keep=["spec.replicas", "metadata.generation"])
    await api.call("PUT", api.path(plural, "a", "scale"), {**scale, "spec": {"replicas": 5}})
    await api.patch(plural, "a", {"spec": {"replicas": -1}}, "scale")
    await api.patch(plural, "a", {"spec": {"replicas": 0}}, "scale")


table(
    [
        (f"the scale of {plural}", plural)
        for plural in ("deployments", "replicasets", "statefulsets", "replicationcontrollers")
    ],
)(_scaled)


async def _pod(api: Api, spec: dict[str, Any]) -> None:
    """Show the spec that a pod gets."""
    body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1"}], **spec}}
    await api.create("pods", body, keep=["spec", "status"])


def _container(**members: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "a:1", **members}]}


table(
    [
        ("a pod with an image of no tag", _container(image="host:5000/a")),
        ("a pod with an image of the tag latest", _container(image="a:latest")),
        ("a pod with an image by digest", _container(image="a@sha256:" + "0" * 64)),
        ("a pod with limits requests them", _container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})),
        ("a pod with requests alone", _container(resources={"requests": {"cpu": "500m"}})),
        (
            "a pod with probes",
            _container(livenessProbe={"httpGet": {"port": 80}}, readinessProbe={"tcpSocket": {"port": 80}}),
        ),
        (
            "a pod with environment from its fields",
            _container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        ),
        ("a pod with ports", _container(ports=[{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}])),
        (
            "a pod with volumes",
            {
                "volumes": [
                    {"name": "a"},
                    {"name": "b", "secret": {"secretName": "s"}},
                    {"name": "c", "configMap": {"name": "m"}},
                    {"name": "d", "hostPath": {"path": "/x"}},
                    {"name": "e", "projected": {"sources": [{"configMap": {"name": "m"}}]}},
                ]
            },
        ),
        ("a pod on the host's network", {"hostNetwork": True, **_container(ports=[{"containerPort": 80}])}),
        ("a pod of a service account", {"serviceAccountName": "robot"}),
        ("a pod that tolerates", {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}),
        (
            "a pod with other policies",
            {"restartPolicy": "Never", "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}},
        ),
        ("a pod with an init container", {"initContainers": [{"name": "i", "image": "i"}]}),
        ("a pod that runs on a node", {"nodeName": "n"}),
    ],
)(_pod)


@case("services of other types")
async def _(api: Api) -> None:
    for kind, more in (("ExternalName", {"externalName": "a.example"}), ("ClusterIP", {}), ("NodePort", {})):
        spec = {"type": kind, **more, **({} if more else {"ports": [{"port": 80, "targetPort": "web"}]})}
        made = await api.create("services", {"metadata": {"name": kind.lower()}, "spec": spec}, quiet=True)
        for key in ("clusterIP", "clusterIPs"):
            if made["spec"].get(key):
                made["spec"][key] = "<address>"
        for port in made["spec"].get("ports", ()):
            if "nodePort" in port:
                port["nodePort"] = "<port>"
        api.transcript.append({"spec": made["spec"]})


@case("a secret of a type, whose type is fixed")
async def _(api: Api) -> None:
    data = {"username": "dQ==", "password": "cA=="}
    body = {"metadata": {"name": "a"}, "type": "kubernetes.io/basic-auth", "data": data}
    await api.create("secrets", body)
    await api.patch("secrets", "a", {"type": "Opaque"})
    await api.patch("secrets", "a", {"stringData": {"username": "x"}})


@case("immutable config maps and secrets")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"x": "1"}, "immutable": True}, quiet=True)
    await api.patch("configmaps", "a", {"data": {"x": "2"}})
    await api.patch("configmaps", "a", {"immutable": False})
    await api.patch("configmaps", "a", {"metadata": {"labels": {"x": "y"}}}, keep=["metadata.labels"])
    await api.create("secrets", {"metadata": {"name": "a"}, "data": {"x": "MQ=="}, "immutable": True}, quiet=True)
    await api.patch("secrets", "a", {"data": {"x": "Mg=="}})


@case("leases: leadership fields")
async def _(api: Api) -> None:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "acquireTime": "2026-01-01T00:00:00.000000Z"}
    made = await api.create("leases", {"metadata": {"name": "l"}, "spec": spec})
    made["spec"] |= {"holderIdentity": "b", "leaseTransitions": 1}
    first = await api.put("leases", "l", made)
    await api.put("leases", "l", made)
    first["spec"]["holderIdentity"] = ""
    await api.put("leases", "l", first)


@case("one event in its two forms")
async def _(api: Api) -> None:
    await made(api, "events", quiet=True)
    await api.get("events.events.k8s.io", "a")
    await api.patch("events", "a", {"count": 2, "lastTimestamp": _TIME})
    await api.get("events.events.k8s.io", "a")


@case("the field selectors of events, in their two forms")
async def _(api: Api) -> None:
    await made(api, "events", quiet=True)
    event = {"metadata": {"name": "b"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": api.ns}}
    await api.create("events", {**event, "reportingComponent": "reporter", "reason": "Seen"}, quiet=True)
    for plural, selectors in (
        ("events", ("source=kubelet", "source=reporter", "reportingComponent=reporter", "regarding.name=p")),
        ("events.events.k8s.io", ("regarding.name=p", "reportingController=reporter,reason=Seen", "source=reporter")),
    ):
        for selector in selectors:
            found = await api.list(plural, {"fieldSelector": selector}, keep=["kind"])
            if "items" in found:
                api.transcript.append({"found": names(found)})


@case("the Service of the API server itself")
async def _(api: Api) -> None:
    keep = ["metadata.labels", "metadata.name", "spec.type", "spec.sessionAffinity", "status"]
    await api.call("GET", "/api/v1/namespaces/default/services/kubernetes", keep=keep)


@case("an event in another namespace than its object")
async def _(api: Api) -> None:
    body = {"metadata": {"name": "a"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "elsewhere"}}
    await api.create("events", body)


@case("a job labels its pods")
async def _(api: Api) -> None:
    template = {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
    await api.create("jobs", {"metadata": {"name": "j"}, "spec": {"template": template}}, keep=["spec", "status"])
    await api.patch("jobs", "j", {"status": {"active": 1, "startTime": _TIME}}, "status", keep=["status"])


@case("a pod on a node keeps its grace period, one without goes")
async def _(api: Api) -> None:
    spec = TEMPLATE["spec"]
    await api.create("pods", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.delete("pods", "a", keep=["metadata.deletionGracePeriodSeconds"])
    await api.get("pods", "a", keep=["kind"])
    await api.create("pods", {"metadata": {"name": "b"}, "spec": {**spec, "nodeName": "n"}}, quiet=True)
    keep = ["metadata.deletionGracePeriodSeconds"]
    await api.delete("pods", "b", keep=keep)
    await api.delete("pods", "b", {"gracePeriodSeconds": 5}, keep=keep)
    await api.delete("pods", "b", {"gracePeriodSeconds": 10}, keep=keep)
    await api.delete("pods", "b", {"gracePeriodSeconds": 0}, keep=keep)
    await api.get("pods", "b", keep=["kind"])


@case("a claim gets a volume mode and waits")
async def _(api: Api) -> None:
    found = await made(api, "persistentvolumeclaims", keep=["spec", "status"])
    assert found["status"]["phase"] == "Pending"
