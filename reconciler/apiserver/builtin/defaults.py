"""The defaults of the built-in types.

They are those of the functions ``SetDefaults_*`` of Kubernetes 1.36, as its responses show them. ``defaults.json`` has
those that depend on nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import resources

import msgspec

from reconciler.wire import JSONObject

__all__ = ["completion_of"]


@functools.cache
def _fixed() -> dict[str, JSONObject]:
    """Return the values of missing members, by type; a null stands for a time that Go writes even if it is not set."""
    text = resources.files("reconciler.apiserver.builtin").joinpath("defaults.json").read_bytes()
    found: dict[str, JSONObject] = msgspec.json.decode(text)
    return found


def _with(value: JSONObject, defaults: JSONObject) -> JSONObject:
    missing = {key: default for key, default in defaults.items() if value.get(key, "") == ""}
    return {**value, **missing} if missing else value


def _container(value: JSONObject) -> JSONObject:
    image = str(value.get("image") or "")
    name = image.rpartition("/")[2]
    latest = "@" not in name and name.partition(":")[2] in ("", "latest")
    return _with(value, {**_CONTAINER, "imagePullPolicy": "Always" if latest else "IfNotPresent"})


_CONTAINER = {"resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}


def _volume(value: JSONObject) -> JSONObject:
    return _with(value, {"emptyDir": {}}) if value.keys() <= {"name"} else value


def _pod_spec(value: JSONObject) -> JSONObject:
    value = _with(value, _POD_SPEC)
    account = value.get("serviceAccountName") or value.get("serviceAccount")
    if account:
        value = {**value, "serviceAccountName": account, "serviceAccount": account}
    if value.get("hostNetwork"):
        for key in ("containers", "initContainers"):
            if isinstance(value.get(key), list):
                value = {**value, key: [_on_host(container) for container in value[key]]}
    return value


_POD_SPEC = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}


def _on_host(container: JSONObject) -> JSONObject:
    ports = [_with(port, {"hostPort": port.get("containerPort", 0)}) for port in container.get("ports") or ()]
    return {**container, "ports": ports} if ports else container


def _service_port(value: JSONObject) -> JSONObject:
    return _with(value, {"protocol": "TCP"}) | {"targetPort": value.get("targetPort") or value.get("port", 0)}


def _service_spec(value: JSONObject) -> JSONObject:
    value = _with(value, {"sessionAffinity": "None", "type": "ClusterIP"})
    if value["sessionAffinity"] == "ClientIP":
        value = _with(value, {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}})
    if value["type"] == "ExternalName":
        return value
    value = _with(value, {"internalTrafficPolicy": "Cluster"})
    if value["type"] in ("NodePort", "LoadBalancer"):
        value = _with(value, {"externalTrafficPolicy": "Cluster"})
    return _with(value, {"allocateLoadBalancerNodePorts": True}) if value["type"] == "LoadBalancer" else value


def _deployment_strategy(value: JSONObject) -> JSONObject:
    return _rolling(value, {"maxSurge": "25%", "maxUnavailable": "25%"})


def _daemon_set_strategy(value: JSONObject) -> JSONObject:
    return _rolling(value, {"maxSurge": 0, "maxUnavailable": 1})


def _stateful_set_strategy(value: JSONObject) -> JSONObject:
    return _rolling(value, {"partition": 0})


def _stateful_set_spec(value: JSONObject) -> JSONObject:
    value = _with(value, _fixed()["apps.v1.StatefulSetSpec"])
    known = value.get("volumeClaimTemplates") or []
    claims = [
        {**_with(claim, _CLAIM), "status": _with(claim.get("status") or {}, {"phase": "Pending"})} for claim in known
    ]
    return value if claims == known else {**value, "volumeClaimTemplates": claims}


_CLAIM = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}


def _rolling(value: JSONObject, parts: JSONObject) -> JSONObject:
    value = _with(value, {"type": "RollingUpdate"})
    if value["type"] != "RollingUpdate":
        return value
    return {**value, "rollingUpdate": _with(value.get("rollingUpdate") or {}, parts)}


def _network_policy(value: JSONObject) -> JSONObject:
    return _with(value, {"policyTypes": ["Ingress", *(["Egress"] if value.get("egress") else [])]})


def _device_request(value: JSONObject) -> JSONObject:
    value = _with(value, {"allocationMode": "ExactCount"})
    return _with(value, {"count": 1}) if value["allocationMode"] == "ExactCount" else value


def _load_balancer_ingress(value: JSONObject) -> JSONObject:
    return _with(value, {"ipMode": "VIP"}) if value.get("ip") else value


def _node_spec(value: JSONObject) -> JSONObject:
    return _with(value, {"podCIDRs": [value["podCIDR"]]}) if value.get("podCIDR") else value


def _node_status(value: JSONObject) -> JSONObject:
    return _with(value, {"allocatable": value["capacity"]}) if value.get("capacity") else value


def _limits(value: JSONObject) -> JSONObject:
    """Return a container limit with defaults derived from its maximum and minimum."""
    if value.get("type") != "Container":
        return value
    limits = {**(value.get("max") or {}), **(value.get("default") or {})}
    requests = {**(value.get("min") or {}), **limits, **(value.get("defaultRequest") or {})}
    found = {"default": limits, "defaultRequest": requests}
    return {**value, **{key: amounts for key, amounts in found.items() if amounts}}


def _probe(value: JSONObject) -> JSONObject:
    """Return a probe with its defaults; a number that is zero counts as missing."""
    defaults = _fixed()["core.v1.Probe"]
    return _with({key: member for key, member in value.items() if member != 0 or key not in defaults}, defaults)


def _behavior(value: JSONObject) -> JSONObject:
    up, down = _with(value.get("scaleUp") or {}, _SCALE_UP), _with(value.get("scaleDown") or {}, _SCALE_DOWN)
    return {**value, "scaleUp": up, "scaleDown": down}


_PERCENT = {"type": "Percent", "value": 100, "periodSeconds": 15}
_SCALE_DOWN = {"selectPolicy": "Max", "policies": [_PERCENT]}
_SCALE_UP = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, _PERCENT],
}


def _subject(value: JSONObject) -> JSONObject:
    named = value.get("kind") in ("User", "Group")
    return _with(value, {"apiGroup": "rbac.authorization.k8s.io"}) if named else value


_COMPUTED: dict[str, Callable[[JSONObject], JSONObject]] = {
    "apps.v1.DaemonSetUpdateStrategy": _daemon_set_strategy,
    "apps.v1.DeploymentStrategy": _deployment_strategy,
    "apps.v1.StatefulSetSpec": _stateful_set_spec,
    "apps.v1.StatefulSetUpdateStrategy": _stateful_set_strategy,
    "autoscaling.v2.HorizontalPodAutoscalerBehavior": _behavior,
    "core.v1.Container": _container,
    "core.v1.EphemeralContainer": _container,
    "core.v1.LimitRangeItem": _limits,
    "core.v1.LoadBalancerIngress": _load_balancer_ingress,
    "core.v1.NodeSpec": _node_spec,
    "core.v1.NodeStatus": _node_status,
    "core.v1.PodSpec": _pod_spec,
    "core.v1.Probe": _probe,
    "core.v1.ServicePort": _service_port,
    "core.v1.ServiceSpec": _service_spec,
    "core.v1.Volume": _volume,
    "networking.v1.NetworkPolicySpec": _network_policy,
    "rbac.v1.Subject": _subject,
    "resource.v1.DeviceSubRequest": _device_request,
    "resource.v1.ExactDeviceRequest": _device_request,
}


def completion_of(name: str) -> Callable[[JSONObject], JSONObject] | None:
    """Return the function that fills in the defaults of a type, or None if it has none.

    The function returns a new value if something was missing, and its argument otherwise.

    Args:
        name: the name of the type in ``types.json``.
    """
    if name in _COMPUTED:
        return _COMPUTED[name]
    fixed = _fixed().get(name)
    return None if fixed is None else lambda value: _with(value, fixed)
