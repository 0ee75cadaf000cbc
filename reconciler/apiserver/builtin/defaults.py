"""The defaults of the built-in types.

They are those of the functions ``SetDefaults_*`` of Kubernetes 1.36, as its responses show them.
"""

from __future__ import annotations

from collections.abc import Callable

from reconciler.wire import JSONObject

__all__ = ["completion_of"]

_CONTAINER = {"resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
_FILES = {"defaultMode": 420}
_CHANGED: JSONObject = {"lastTransitionTime": None}
_CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}

_WEBHOOK: JSONObject = {
    "failurePolicy": "Fail",
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "timeoutSeconds": 10,
}

_FIXED: dict[str, JSONObject] = {
    "admissionregistration.v1.MutatingWebhook": {**_WEBHOOK, "reinvocationPolicy": "Never"},
    "admissionregistration.v1.MatchResources": {
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
    },
    "admissionregistration.v1.NamedRuleWithOperations": {"scope": "*"},
    "admissionregistration.v1.RuleWithOperations": {"scope": "*"},
    "admissionregistration.v1.ServiceReference": {"port": 443},
    "admissionregistration.v1.ValidatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "admissionregistration.v1.ValidatingWebhook": _WEBHOOK,
    "apps.v1.DaemonSetCondition": _CHANGED,
    "apps.v1.DaemonSetSpec": {
        "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    },
    "apps.v1.DeploymentCondition": {"lastTransitionTime": None, "lastUpdateTime": None},
    "apps.v1.DeploymentSpec": {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    },
    "apps.v1.ReplicaSetCondition": _CHANGED,
    "apps.v1.ReplicaSetSpec": {"replicas": 1},
    "apps.v1.StatefulSetCondition": _CHANGED,
    "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    "apps.v1.StatefulSetSpec": {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    },
    "autoscaling.v2.HorizontalPodAutoscalerCondition": _CHANGED,
    "autoscaling.v2.HorizontalPodAutoscalerSpec": {"minReplicas": 1, "metrics": [_CPU]},
    "batch.v1.CronJobSpec": {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    },
    "batch.v1.JobCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "core.v1.ConfigMapVolumeSource": _FILES,
    "core.v1.ContainerPort": {"protocol": "TCP"},
    "core.v1.DownwardAPIVolumeSource": _FILES,
    "core.v1.EndpointPort": {"protocol": "TCP"},
    "core.v1.GRPCAction": {"service": ""},
    "core.v1.HTTPGetAction": {"path": "/", "scheme": "HTTP"},
    "core.v1.HostPathVolumeSource": {"type": ""},
    "core.v1.NodeCondition": {"lastHeartbeatTime": None, "lastTransitionTime": None},
    "core.v1.ObjectFieldSelector": {"apiVersion": "v1"},
    "core.v1.PersistentVolumeClaimCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "core.v1.PersistentVolumeClaimSpec": {"volumeMode": "Filesystem"},
    "core.v1.PersistentVolumeSpec": {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"},
    "core.v1.PodCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "core.v1.Probe": {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
    "core.v1.ProjectedVolumeSource": _FILES,
    "core.v1.ReplicationControllerCondition": _CHANGED,
    "core.v1.ReplicationControllerSpec": {"replicas": 1},
    "core.v1.SecretVolumeSource": _FILES,
    "core.v1.ServiceAccountTokenProjection": {"expirationSeconds": 3600},
    "discovery.v1.Endpoint": {"conditions": {}},
    "discovery.v1.EndpointPort": {"name": "", "protocol": "TCP"},
    "meta.v1.Condition": _CHANGED,
    "networking.v1.NetworkPolicyPort": {"protocol": "TCP"},
    "rbac.v1.RoleRef": {"apiGroup": "rbac.authorization.k8s.io"},
    "scheduling.v1.PriorityClass": {"preemptionPolicy": "PreemptLowerPriority"},
    "storage.v1.StorageClass": {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
}
"""The values of missing members, by type. A null stands for a time that Go writes even if it is not set."""


def _with(value: JSONObject, defaults: JSONObject) -> JSONObject:
    missing = {key: default for key, default in defaults.items() if value.get(key, "") == ""}
    return {**value, **missing} if missing else value


def _container(value: JSONObject) -> JSONObject:
    image = str(value.get("image") or "")
    name = image.rpartition("/")[2]
    latest = "@" not in name and name.partition(":")[2] in ("", "latest")
    return _with(value, {**_CONTAINER, "imagePullPolicy": "Always" if latest else "IfNotPresent"})


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


def _rolling(value: JSONObject, parts: JSONObject) -> JSONObject:
    value = _with(value, {"type": "RollingUpdate"})
    if value["type"] != "RollingUpdate":
        return value
    return {**value, "rollingUpdate": _with(value.get("rollingUpdate") or {}, parts)}


def _network_policy(value: JSONObject) -> JSONObject:
    return _with(value, {"policyTypes": ["Ingress", *(["Egress"] if value.get("egress") else [])]})


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
    "apps.v1.StatefulSetUpdateStrategy": _stateful_set_strategy,
    "autoscaling.v2.HorizontalPodAutoscalerBehavior": _behavior,
    "core.v1.Container": _container,
    "core.v1.EphemeralContainer": _container,
    "core.v1.LimitRangeItem": _limits,
    "core.v1.NodeStatus": _node_status,
    "core.v1.PodSpec": _pod_spec,
    "core.v1.ServicePort": _service_port,
    "core.v1.ServiceSpec": _service_spec,
    "core.v1.Volume": _volume,
    "networking.v1.NetworkPolicySpec": _network_policy,
    "rbac.v1.Subject": _subject,
}


def completion_of(name: str) -> Callable[[JSONObject], JSONObject] | None:
    """Return the function that fills in the defaults of a type, or None if it has none.

    The function returns a new value if something was missing, and its argument otherwise.

    Args:
        name: the name of the type in ``types.json``.
    """
    if name in _COMPUTED:
        return _COMPUTED[name]
    fixed = _FIXED.get(name)
    return None if fixed is None else lambda value: _with(value, fixed)
