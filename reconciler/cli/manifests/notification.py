"""The installation of the notification operator: its definitions, roles, configuration, workload and monitoring."""

from __future__ import annotations

import yaml

from reconciler._core.wire import JSONObject
from reconciler.cli.manifests.base import (
    GRACE_PERIOD,
    HEALTH_PORT,
    METRICS_PORT,
    Installation,
    deployment,
    disruption_budget,
    labels,
    metrics_service,
    new_object,
)
from reconciler.manager import Manager
from reconciler.notification import ChannelPolicy, NotificationOperator, NotificationOptions, NotificationRequest
from reconciler.notification.api import RoutingConfigObject

_ROUTING = """\
route:
  receiver: default
receivers:
  - name: default
    channels: [log]
"""


def notification_manifests(manager: Manager, installation: Installation) -> list[JSONObject]:
    """Return the CRDs, the RBAC objects, the configuration, the workload and its monitoring.

    Raises:
        ConfigurationError: a name is invalid.
    """
    NotificationOperator(NotificationOptions(policies=_has_policies(installation))).add_to(manager)
    return [
        NotificationRequest.crd(),
        ChannelPolicy.crd(),
        RoutingConfigObject.crd(),
        *manager.rbac(installation.name, namespace=installation.namespace),
        _configuration(installation),
        new_object(installation, "v1", "ConfigMap", "-routing", data={"routing.yaml": _ROUTING}),
        _deployment(installation),
        disruption_budget(installation),
        metrics_service(installation),
        _network_policy(installation),
        _service_monitor(installation),
    ]


def _has_policies(installation: Installation) -> bool:
    """Return whether the operator reads ChannelPolicies. In single namespaces it has no access to cluster kinds."""
    return not installation.namespaces


def _configuration(installation: Installation) -> JSONObject:
    options = {
        "workers": 10,
        "leader-election": installation.leader_election,
        "leader-election-namespace": installation.leader_election_namespace,
        **({"namespace": list(installation.namespaces)} if installation.namespaces else {}),
        "metrics": f"0.0.0.0:{METRICS_PORT}",
        "health": f"0.0.0.0:{HEALTH_PORT}",
        **({"authentication": installation.authentication} if installation.authentication else {}),
        "grace-period": GRACE_PERIOD,
        "routing-file": "/etc/notification/routing/routing.yaml",
        "credentials": "/etc/notification/credentials",
        **({"channel-policies": True} if _has_policies(installation) else {}),
        "log-format": "json",
    }
    text = yaml.safe_dump(options, sort_keys=False)
    return new_object(installation, "v1", "ConfigMap", data={"config.yaml": text})


def _deployment(installation: Installation) -> JSONObject:
    def probe(path: str, **members: int) -> JSONObject:
        return {"httpGet": {"path": path, "port": "health"}, **members}

    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels(installation)},
    }
    return deployment(
        installation,
        ["run", "notification", "--config", "/etc/notification/config.yaml"],
        replicas=2,
        ports={},
        container={
            "livenessProbe": probe("/healthz", periodSeconds=10, failureThreshold=3),
            "readinessProbe": probe("/readyz", periodSeconds=5),
            "startupProbe": probe("/healthz", periodSeconds=2, failureThreshold=30),
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            "volumeMounts": [
                # A single file, so that the other mounts can be in the same directory.
                {"name": "config", "mountPath": "/etc/notification/config.yaml", "subPath": "config.yaml"},
                # Whole directories: the kubelet updates only these when their content changes.
                {"name": "routing", "mountPath": "/etc/notification/routing", "readOnly": True},
                {"name": "credentials", "mountPath": "/etc/notification/credentials", "readOnly": True},
            ],
        },
        pod={
            "topologySpreadConstraints": [spread],
            "volumes": [
                {"name": "config", "configMap": {"name": installation.name}},
                {"name": "routing", "configMap": {"name": f"{installation.name}-routing"}},
                {"name": "credentials", "secret": {"secretName": f"{installation.name}-credentials", "optional": True}},
            ],
        },
    )


def _network_policy(installation: Installation) -> JSONObject:
    """Return a policy that allows scrapes in, and DNS, the API server, HTTPS and mail out.

    Probes come from the node and need no rule.
    """
    outside = [{"protocol": "TCP", "port": port} for port in (443, 6443, 80, 465, 587)]
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return new_object(
        installation,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        spec={
            "podSelector": {"matchLabels": labels(installation)},
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
    selector = {"matchLabels": labels(installation)}
    return new_object(
        installation,
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        spec={"selector": selector, "endpoints": [endpoint]},
    )
