"""The parts that the manifests of every operator share: names, labels, Service, and the frame of the Deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reconciler.wire import JSONObject

__all__ = [
    "GRACE_PERIOD",
    "HEALTH_PORT",
    "METRICS_PORT",
    "Installation",
    "deployment",
    "disruption_budget",
    "labels",
    "metrics_service",
    "new_object",
]

METRICS_PORT = 8080
HEALTH_PORT = 8081
GRACE_PERIOD = 30
"""Grace period in seconds. The pod gets 15 s more, in which cancelled work writes its status and ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The options of an operator's installation.

    Attributes:
        target: the target of ``reconciler run``.
        name: the name of all objects.
        namespace: where the operator runs.
        namespaces: the namespaces that it watches; empty for all.
        leader_election: the name of the Lease; None without one.
        leader_election_namespace: the Lease's namespace.
        authentication: how clients of the metrics are authenticated; None for not at all.
        image: the image of the Deployment, which an overlay usually replaces.
        ca_bundle: PEM of the CAs of the webhooks' certificate; None if cert-manager adds it.
    """

    target: str
    name: str
    namespace: str
    namespaces: Sequence[str]
    leader_election: str | None
    leader_election_namespace: str
    authentication: Literal["kubernetes"] | None
    image: str
    ca_bundle: bytes | None


def labels(installation: Installation) -> dict[str, str]:
    """Return the labels of the operator's objects and pods."""
    return {"app.kubernetes.io/name": installation.name, "app.kubernetes.io/component": "controller"}


def new_object(installation: Installation, api_version: str, kind: str, suffix: str = "", **members: Any) -> JSONObject:
    """Return an object with the operator's name, namespace and labels; the suffix is added to the name."""
    metadata = {
        "name": installation.name + suffix,
        "namespace": installation.namespace,
        "labels": labels(installation),
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **members}


def metrics_service(installation: Installation) -> JSONObject:
    """Return the Service of the metrics."""
    ports = [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"}]
    return new_object(installation, "v1", "Service", spec={"selector": labels(installation), "ports": ports})


def disruption_budget(installation: Installation) -> JSONObject:
    """Return a budget of one pod at a time. A minimum of one available pod would block the drain of a single one."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels(installation)}}
    return new_object(installation, "policy/v1", "PodDisruptionBudget", spec=spec)


def deployment(
    installation: Installation,
    arguments: Sequence[str],
    *,
    replicas: int,
    ports: Mapping[str, int],
    container: JSONObject,
    pod: JSONObject,
) -> JSONObject:
    """Return the Deployment of an operator: one container without privileges, with probes.

    Args:
        installation: the options.
        arguments: of the container, after ``reconciler``.
        replicas: the number of pods.
        ports: those of the container besides metrics and health, by name.
        container: further members of the container; they take precedence.
        pod: further members of the pod's spec.
    """
    every = {"metrics": METRICS_PORT, "health": HEALTH_PORT, **ports}
    operator = {
        "name": "operator",
        "image": installation.image,
        "args": list(arguments),
        "ports": [{"name": name, "containerPort": port} for name, port in every.items()],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "health"}, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **container,
    }
    spec = {
        "serviceAccountName": installation.name,
        "terminationGracePeriodSeconds": GRACE_PERIOD + 15,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [operator],
        **pod,
    }
    return new_object(
        installation,
        "apps/v1",
        "Deployment",
        spec={
            "replicas": replicas,
            "selector": {"matchLabels": labels(installation)},
            "template": {"metadata": {"labels": labels(installation)}, "spec": spec},
        },
    )
