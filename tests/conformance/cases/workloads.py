"""Required and immutable fields of workloads, pods and services (20, continued)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import STRATEGIC, Api
from tests.conformance.cases._case import case, table
from tests.conformance.cases.built_in import SELECTOR, TEMPLATE, made


def _deployment(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"selector": SELECTOR, "template": TEMPLATE, **changes}
    return {"spec": {key: value for key, value in spec.items() if value is not None}}


def _with_pod(**spec: Any) -> dict[str, Any]:
    return _deployment(template={**TEMPLATE, "spec": {**TEMPLATE["spec"], **spec}})


async def _refused(api: Api, plural: str, body: dict[str, Any]) -> None:
    await api.create(plural, {"metadata": {"name": "a"}, **body}, query={"dryRun": "All"}, keep=["kind"])


_C = {"name": "c", "image": "i"}

table(
    [
        ("a deployment without a selector", "deployments", _deployment(selector=None)),
        ("a deployment with an empty selector", "deployments", _deployment(selector={})),
        ("a deployment without a template", "deployments", _deployment(template=None)),
        ("a deployment without a spec", "deployments", {}),
        ("a deployment that selects other labels", "deployments", _deployment(selector={"matchLabels": {"x": "y"}})),
        ("a deployment with negative replicas", "deployments", _deployment(replicas=-1)),
        ("a deployment whose pods run once", "deployments", _with_pod(restartPolicy="Never")),
        ("a deployment with an unknown strategy", "deployments", _deployment(strategy={"type": "Big Bang"})),
        ("a deployment without containers", "deployments", _with_pod(containers=[])),
        ("a replica set without a selector", "replicasets", _deployment(selector=None)),
        ("a replica set that selects other labels", "replicasets", _deployment(selector={"matchLabels": {"x": "y"}})),
        ("a stateful set that selects other labels", "statefulsets", _deployment(selector={"matchLabels": {"x": "y"}})),
        ("a daemon set that selects other labels", "daemonsets", _deployment(selector={"matchLabels": {"x": "y"}})),
        ("a pod without containers", "pods", {"spec": {}}),
        ("a pod without a spec", "pods", {}),
        ("a container without a name", "pods", {"spec": {"containers": [{"image": "i"}]}}),
        ("a container without an image", "pods", {"spec": {"containers": [{"name": "c"}]}}),
        ("a container's name", "pods", {"spec": {"containers": [{**_C, "name": "Bad_Name"}]}}),
        ("two containers of one name", "pods", {"spec": {"containers": [_C, _C]}}),
        ("an unknown pull policy", "pods", {"spec": {"containers": [{**_C, "imagePullPolicy": "Later"}]}}),
        ("a port out of range", "pods", {"spec": {"containers": [{**_C, "ports": [{"containerPort": 70000}]}]}}),
        (
            "an unknown protocol",
            "pods",
            {"spec": {"containers": [{**_C, "ports": [{"containerPort": 1, "protocol": "X"}]}]}},
        ),
        ("a variable without a name", "pods", {"spec": {"containers": [{**_C, "env": [{"value": "x"}]}]}}),
        (
            "a mount of no volume",
            "pods",
            {"spec": {"containers": [{**_C, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}},
        ),
        (
            "a mount without a path",
            "pods",
            {"spec": {"containers": [{**_C, "volumeMounts": [{"name": "v"}]}], "volumes": [{"name": "v"}]}},
        ),
        ("two volumes of one name", "pods", {"spec": {"containers": [_C], "volumes": [{"name": "v"}, {"name": "v"}]}}),
        ("a volume without a name", "pods", {"spec": {"containers": [_C], "volumes": [{"emptyDir": {}}]}}),
        ("an unknown restart policy", "pods", {"spec": {"containers": [_C], "restartPolicy": "Perhaps"}}),
        ("an unknown DNS policy", "pods", {"spec": {"containers": [_C], "dnsPolicy": "Perhaps"}}),
        ("a service without ports", "services", {"spec": {}}),
        ("a service's port out of range", "services", {"spec": {"ports": [{"port": 0}]}}),
        ("two ports of a service without names", "services", {"spec": {"ports": [{"port": 1}, {"port": 2}]}}),
        ("a service of an unknown type", "services", {"spec": {"type": "Magic", "ports": [{"port": 1}]}}),
        ("a job without a restart policy", "jobs", {"spec": {"template": {"spec": {"containers": [_C]}}}}),
        ("a job without containers", "jobs", {"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
        (
            "a cron job with a broken schedule",
            "cronjobs",
            {
                "spec": {
                    "schedule": "soon",
                    "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [_C]}}}},
                }
            },
        ),
        (
            "a disruption budget with both bounds",
            "poddisruptionbudgets",
            {"spec": {"minAvailable": 1, "maxUnavailable": 1}},
        ),
        ("a role without verbs", "roles", {"rules": [{"apiGroups": [""], "resources": ["pods"]}]}),
        ("a binding without a role", "rolebindings", {"subjects": []}),
    ],
)(_refused)


@case("immutable fields of workloads and pods")
async def _(api: Api) -> None:
    for plural in ("deployments", "replicasets", "statefulsets", "daemonsets", "pods"):
        await made(api, plural, quiet=True)
    other = {"matchLabels": {"k": "v", "x": "y"}}
    more = {"spec": {"selector": other, "template": {"metadata": {"labels": {"k": "v", "x": "y"}}}}}
    for plural in ("deployments", "replicasets", "daemonsets"):
        await api.patch(plural, "a", more, keep=["kind"])
    await api.patch("statefulsets", "a", {"spec": {"serviceName": "other"}}, keep=["kind"])
    await api.patch("statefulsets", "a", {"spec": {"replicas": 3}}, keep=["kind"])
    await api.patch("pods", "a", {"metadata": {"labels": {"x": "y"}}}, keep=["metadata.labels"])
    await api.patch(
        "pods", "a", {"spec": {"containers": [{"name": "c", "image": "other"}]}}, content=STRATEGIC, keep=["kind"]
    )
