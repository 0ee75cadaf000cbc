"""Write down everything that runs the notification operator in a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from reconciler.client import Client
from reconciler.http import Transport
from reconciler.manager import Manager
from reconciler.notification import NotificationOperator, NotificationOptions, NotificationRequest

Document = dict[str, Any]

__all__ = ["Installation", "notification_manifests"]

METRICS_PORT = 8080
HEALTH_PORT = 8081
GRACE = 30
"""Seconds for work in progress; the pod gets fifteen more, for what was cancelled to be written and to end."""

_ROUTING = """\
route:
  receiver: default
receivers:
  - name: default
    channels: [log]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Say how the operator is installed.

    Attributes:
        name: of everything that belongs to it.
        namespace: where it runs.
        namespaces: where it looks for requests; none for everywhere.
        image: what runs.
        leader_election: name of the Lease.
        leader_election_namespace: where the Lease is.
    """

    name: str
    namespace: str
    namespaces: Sequence[str]
    image: str
    leader_election: str
    leader_election_namespace: str


def notification_manifests(installation: Installation, transport: Transport) -> list[Document]:
    """Return all documents: the kind, what may be done, what is configured, what runs, and what watches it.

    Args:
        installation: how it is installed.
        transport: is never asked; it stands for the cluster.
    """
    manager = Manager(
        Client(transport),
        namespaces=list(installation.namespaces) or None,
        leader_election=installation.leader_election,
        leader_election_namespace=installation.leader_election_namespace,
    )
    NotificationOperator(NotificationOptions()).add_to(manager)
    return [
        NotificationRequest.crd(),
        *manager.rbac(installation.name, namespace=installation.namespace),
        _configuration(installation),
        _routing(installation),
        _deployment(installation),
        _disruption_budget(installation),
        _service(installation),
        _network_policy(installation),
        _service_monitor(installation),
    ]


def _labels(installation: Installation) -> dict[str, str]:
    return {"app.kubernetes.io/name": installation.name, "app.kubernetes.io/component": "controller"}


def _object(installation: Installation, api_version: str, kind: str, suffix: str = "", **members: Any) -> Document:
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


def _configuration(installation: Installation) -> Document:
    options = {
        "workers": 10,
        "leader-election": installation.leader_election,
        "leader-election-namespace": installation.leader_election_namespace,
        **({"namespace": list(installation.namespaces)} if installation.namespaces else {}),
        "metrics": f"0.0.0.0:{METRICS_PORT}",
        "health": f"0.0.0.0:{HEALTH_PORT}",
        "grace-period": GRACE,
        "routing-file": "/etc/notification/routing/routing.yaml",
        "credentials": "/etc/notification/credentials",
        "log-format": "json",
    }
    text = yaml.safe_dump(options, sort_keys=False)
    return _object(installation, "v1", "ConfigMap", data={"config.yaml": text})


def _routing(installation: Installation) -> Document:
    return _object(installation, "v1", "ConfigMap", "-routing", data={"routing.yaml": _ROUTING})


def _deployment(installation: Installation) -> Document:
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


def _container(installation: Installation) -> Document:
    def probe(path: str, **members: int) -> Document:
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
            # A single file, so that its directory can hold the other mounts.
            {"name": "config", "mountPath": "/etc/notification/config.yaml", "subPath": "config.yaml"},
            # Whole directories: only these are exchanged when their content changes.
            {"name": "routing", "mountPath": "/etc/notification/routing", "readOnly": True},
            {"name": "credentials", "mountPath": "/etc/notification/credentials", "readOnly": True},
        ],
    }


def _disruption_budget(installation: Installation) -> Document:
    selector = {"matchLabels": _labels(installation)}
    return _object(installation, "policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1, "selector": selector})


def _service(installation: Installation) -> Document:
    ports = [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"}]
    return _object(installation, "v1", "Service", spec={"selector": _labels(installation), "ports": ports})


def _network_policy(installation: Installation) -> Document:
    """Let metrics in; let names, the API server, HTTPS and mail out. Probes come from the node, which needs no rule."""
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


def _service_monitor(installation: Installation) -> Document:
    return _object(
        installation,
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        spec={
            "selector": {"matchLabels": _labels(installation)},
            "endpoints": [{"port": "metrics", "interval": "30s"}],
        },
    )
