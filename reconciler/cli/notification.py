"""The commands of the notification operator: its manifests, and the test of its routing rules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from reconciler.client import Client
from reconciler.errors import ConfigurationError
from reconciler.http import Transport
from reconciler.manager import EndpointSecurity, Manager
from reconciler.notification import (
    ChannelPolicy,
    NotificationOperator,
    NotificationOptions,
    NotificationRequest,
    RoutingConfigObject,
    attributes_of,
)
from reconciler.notification.channels import RECEIVER_KINDS
from reconciler.notification.routing import RoutingConfig, read_routing
from reconciler.wire import JSONObject

__all__ = ["Installation", "notification_manifests", "print_routes"]

METRICS_PORT = 8080
HEALTH_PORT = 8081
GRACE = 30
"""Grace period in seconds. The pod gets 15 s more, in which cancelled work writes its status and ends."""

_ROUTING = """\
route:
  receiver: default
receivers:
  - name: default
    channels: [log]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Options of the operator's installation.

    Attributes:
        name: the name of all its objects.
        namespace: the namespace in which it runs.
        namespaces: the namespaces that it watches; empty for all.
        image: the container image.
        leader_election: the name of the Lease.
        leader_election_namespace: the namespace of the Lease.
        authentication: how clients of the metrics authenticate; None for not at all.
    """

    name: str
    namespace: str
    namespaces: Sequence[str]
    image: str
    leader_election: str
    leader_election_namespace: str
    authentication: Literal["kubernetes"] | None = None


def notification_manifests(installation: Installation, transport: Transport) -> list[JSONObject]:
    """Return the CRDs, the RBAC objects, the configuration, the workload and its monitoring.

    Args:
        installation: the options.
        transport: a transport for the manager's client; no request is sent.
    """
    manager = Manager(
        Client(transport),
        namespaces=list(installation.namespaces) or None,
        leader_election=installation.leader_election,
        leader_election_namespace=installation.leader_election_namespace,
        security=EndpointSecurity(authentication=installation.authentication) if installation.authentication else None,
    )
    NotificationOperator(NotificationOptions(policies=_has_policies(installation))).add_to(manager)
    return [
        NotificationRequest.crd(),
        ChannelPolicy.crd(),
        RoutingConfigObject.crd(),
        *manager.rbac(installation.name, namespace=installation.namespace),
        _configuration(installation),
        _routing(installation),
        _deployment(installation),
        _disruption_budget(installation),
        _service(installation),
        _network_policy(installation),
        _service_monitor(installation),
    ]


def _has_policies(installation: Installation) -> bool:
    """Return whether the operator reads ChannelPolicies. In single namespaces it has no access to cluster kinds."""
    return not installation.namespaces


def _labels(installation: Installation) -> dict[str, str]:
    return {"app.kubernetes.io/name": installation.name, "app.kubernetes.io/component": "controller"}


def _object(installation: Installation, api_version: str, kind: str, suffix: str = "", **members: Any) -> JSONObject:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": installation.name + suffix,
            "namespace": installation.namespace,
            "labels": _labels(installation),
        },
        **members,
    }


def _configuration(installation: Installation) -> JSONObject:
    options = {
        "workers": 10,
        "leader-election": installation.leader_election,
        "leader-election-namespace": installation.leader_election_namespace,
        **({"namespace": list(installation.namespaces)} if installation.namespaces else {}),
        "metrics": f"0.0.0.0:{METRICS_PORT}",
        "health": f"0.0.0.0:{HEALTH_PORT}",
        **({"authentication": installation.authentication} if installation.authentication else {}),
        "grace-period": GRACE,
        "routing-file": "/etc/notification/routing/routing.yaml",
        "credentials": "/etc/notification/credentials",
        **({"channel-policies": True} if _has_policies(installation) else {}),
        "log-format": "json",
    }
    text = yaml.safe_dump(options, sort_keys=False)
    return _object(installation, "v1", "ConfigMap", data={"config.yaml": text})


def _routing(installation: Installation) -> JSONObject:
    return _object(installation, "v1", "ConfigMap", "-routing", data={"routing.yaml": _ROUTING})


def _deployment(installation: Installation) -> JSONObject:
    labels = _labels(installation)
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    pod = {
        "serviceAccountName": installation.name,
        "terminationGracePeriodSeconds": GRACE + 15,
        "topologySpreadConstraints": [spread],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(installation)],
        "volumes": [
            {"name": "config", "configMap": {"name": installation.name}},
            {"name": "routing", "configMap": {"name": f"{installation.name}-routing"}},
            {"name": "credentials", "secret": {"secretName": f"{installation.name}-credentials", "optional": True}},
        ],
    }
    return _object(
        installation,
        "apps/v1",
        "Deployment",
        spec={
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    )


def _container(installation: Installation) -> JSONObject:
    def probe(path: str, **members: int) -> JSONObject:
        return {"httpGet": {"path": path, "port": "health"}, **members}

    return {
        "name": "operator",
        "image": installation.image,
        "args": ["run", "notification", "--config", "/etc/notification/config.yaml"],
        "ports": [
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ],
        "livenessProbe": probe("/healthz", periodSeconds=10, failureThreshold=3),
        "readinessProbe": probe("/readyz", periodSeconds=5),
        "startupProbe": probe("/healthz", periodSeconds=2, failureThreshold=30),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            # A single file, so that the other mounts can be in the same directory.
            {"name": "config", "mountPath": "/etc/notification/config.yaml", "subPath": "config.yaml"},
            # Whole directories: the kubelet updates only these when their content changes.
            {"name": "routing", "mountPath": "/etc/notification/routing", "readOnly": True},
            {"name": "credentials", "mountPath": "/etc/notification/credentials", "readOnly": True},
        ],
    }


def _disruption_budget(installation: Installation) -> JSONObject:
    selector = {"matchLabels": _labels(installation)}
    return _object(installation, "policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1, "selector": selector})


def _service(installation: Installation) -> JSONObject:
    ports = [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"}]
    return _object(installation, "v1", "Service", spec={"selector": _labels(installation), "ports": ports})


def _network_policy(installation: Installation) -> JSONObject:
    """Return a policy that allows scrapes in, and DNS, the API server, HTTPS and mail out.

    Probes come from the node and need no rule.
    """
    outside = [{"protocol": "TCP", "port": port} for port in (443, 6443, 80, 465, 587)]
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return _object(
        installation,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        spec={
            "podSelector": {"matchLabels": _labels(installation)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": METRICS_PORT}]}],
            "egress": [{"ports": names}, {"ports": outside}],
        },
    )


def _service_monitor(installation: Installation) -> JSONObject:
    endpoint: JSONObject = {"port": "metrics", "interval": "30s"}
    if installation.authentication:
        # The token is that of Prometheus, whose service account needs a binding to the role NAME-metrics-reader.
        token = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
        endpoint |= {"scheme": "https", "bearerTokenFile": token, "tlsConfig": {"insecureSkipVerify": True}}
    selector = {"matchLabels": _labels(installation)}
    return _object(
        installation,
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        spec={"selector": selector, "endpoints": [endpoint]},
    )


def print_routes(file: Path, attributes: Sequence[str], *, request: Path | None, as_json: bool) -> int:
    """Print the receivers and channels that a notification reaches.

    Raises:
        ConfigurationError: a file is invalid; the message lists every mistake.
    """
    config = _read_config(file)
    given = {**(_attributes_of(request) if request is not None else {}), **_parse_attributes(attributes)}
    receivers = config.route.receivers(given)
    channels = tuple(dict.fromkeys(name for each in receivers for name in config.receivers[each].channel_names))
    if as_json:
        answer = {"attributes": given, "receivers": receivers, "channels": channels}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer)).decode() + "\n")
        return 0
    for name in receivers:
        reached = ", ".join(config.receivers[name].channel_names) or "no channels: nobody would be notified"
        sys.stdout.write(f"{name}: {reached}\n")
    return 0


def _read_config(file: Path) -> RoutingConfig:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {file}: {reason}") from error
    return read_routing(text, name=str(file), kinds=RECEIVER_KINDS)


def _parse_attributes(attributes: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in attributes:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigurationError(f"{text!r} is not a valid attribute: write NAME=VALUE, such as priority=Critical")
        pairs[name] = value
    return pairs


def _attributes_of(file: Path) -> dict[str, str]:
    """Return the attributes of a NotificationRequest in a file."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        request = NotificationRequest.from_dict(document)
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--request {file}: not a valid NotificationRequest: {error}") from error
    return attributes_of(request)
