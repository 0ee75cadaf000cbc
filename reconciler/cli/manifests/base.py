"""The kustomize base of an operator: its definitions, roles, Deployment, Service and webhook configurations."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.cli.manifests.definitions import definitions_of
from reconciler.manager import Manager
from reconciler.objects import AnyResource, Resource
from reconciler.webhook import Converter, ServiceReference, conversion_configuration, webhook_configurations
from reconciler.wire import JSONObject

__all__ = ["BaseOptions", "base_files", "own_definitions"]

_METRICS, _HEALTH, _WEBHOOKS = 8080, 8081, 9443
_CERTIFICATES = "/etc/webhook/certs"
_GRACE = 45
"""Seconds until a pod is killed: 30 s to drain, and the rest to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOptions:
    """The options of a base.

    Attributes:
        target: the target of ``reconciler run``.
        name: the name of all objects.
        namespace: where the operator runs.
        namespaces: the namespaces that it watches; empty for all.
        leader_election: the name of the Lease; None without one.
        leader_election_namespace: the Lease's namespace.
        authentication: how clients of the metrics are authenticated; None for not at all.
        image: the image of the Deployment, which the overlay usually replaces.
        ca_bundle: PEM of the CAs of the webhooks' certificate; None if cert-manager adds it.
    """

    target: str
    name: str
    namespace: str
    namespaces: Sequence[str]
    leader_election: str | None
    leader_election_namespace: str
    authentication: str | None
    image: str
    ca_bundle: bytes | None


def base_files(manager: Manager, options: BaseOptions) -> dict[str, list[JSONObject]]:
    """Return the documents of each file of the base.

    Raises:
        ConfigurationError: a name is invalid.
        SchemaError: a kind cannot be expressed as a definition.
    """
    files = {
        "crd.yaml": _definitions(manager, options),
        "rbac.yaml": manager.rbac(options.name, namespace=options.namespace),
        "deployment.yaml": [_deployment(options, webhooks=bool(manager.webhooks))],
        "service.yaml": [_service(options)],
        "webhooks.yaml": list(_webhooks(manager, options)) if manager.webhooks else [],
    }
    files = {name: documents for name, documents in files.items() if documents}
    overview = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(files)}
    return {"kustomization.yaml": [overview], **files}


def own_definitions(
    manager: Manager, target: str, conversions: Mapping[tuple[str, str], JSONObject] | None = None
) -> list[JSONObject]:
    """Return the definitions of an operator's own kinds, each with all its versions.

    These are the Resource classes of the target's package, or of its module if it is in none, whose API group is that
    of a controller's kind.

    Args:
        manager: the manager with the controllers.
        target: the target of ``reconciler run``.
        conversions: ``spec.conversion`` by group and kind. Default: none.
    """
    package = target.partition(":")[0].partition(".")[0]
    groups = {controller.kind.group for controller in manager.controllers}
    classes = {cls for cls in _subclasses(Resource) if cls.__module__.partition(".")[0] == package}
    own = [cls for cls in classes if cls.gvk.group in groups and _is_current(cls)]
    own.sort(key=lambda cls: (cls.gvk.kind, not cls.definition.storage, cls.gvk.version))
    return definitions_of(own, conversions)


def _subclasses(cls: type[Any]) -> Iterator[type[AnyResource]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def _is_current(cls: type[AnyResource]) -> bool:
    """Return whether a class is still what its module contains, which may have been imported again."""
    return getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls


def _definitions(manager: Manager, options: BaseOptions) -> list[JSONObject]:
    service = _service_reference(options)
    conversions = {
        (each.group, each.kind): conversion_configuration(each, service=service, ca_bundle=options.ca_bundle)
        for each in manager.webhooks
        if isinstance(each, Converter)
    }
    documents = own_definitions(manager, options.target, conversions)
    for document in documents:
        if "conversion" in document["spec"] and options.ca_bundle is None:
            document["metadata"]["annotations"] = _injected(options)
    return documents


def _service_reference(options: BaseOptions) -> ServiceReference:
    return ServiceReference(options.namespace, f"{options.name}-webhook")


def _injected(options: BaseOptions) -> dict[str, str]:
    """Return the annotation by which cert-manager adds the CA of its Certificate."""
    return {"cert-manager.io/inject-ca-from": f"{options.namespace}/{options.name}-webhook"}


def _webhooks(manager: Manager, options: BaseOptions) -> Iterator[JSONObject]:
    ports = [{"name": "webhooks", "port": 443, "targetPort": "webhooks"}]
    yield _object(options, "v1", "Service", "-webhook", spec={"selector": _labels(options), "ports": ports})
    service = _service_reference(options)
    for each in webhook_configurations(
        manager.webhooks, name=options.name, service=service, ca_bundle=options.ca_bundle
    ):
        if options.ca_bundle is None:
            each["metadata"]["annotations"] = _injected(options)
        yield each


def _labels(options: BaseOptions) -> dict[str, str]:
    return {"app.kubernetes.io/name": options.name}


def _object(options: BaseOptions, api_version: str, kind: str, suffix: str = "", **members: Any) -> JSONObject:
    metadata = {"name": options.name + suffix, "namespace": options.namespace, "labels": _labels(options)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **members}


def _service(options: BaseOptions) -> JSONObject:
    ports = [{"name": "metrics", "port": _METRICS, "targetPort": "metrics"}]
    return _object(options, "v1", "Service", spec={"selector": _labels(options), "ports": ports})


def _arguments(options: BaseOptions, *, webhooks: bool) -> list[str]:
    optional: Mapping[str, Iterable[str]] = {
        "namespace": options.namespaces,
        "leader-election": [options.leader_election] if options.leader_election else [],
        "leader-election-namespace": [options.leader_election_namespace]
        if options.leader_election and options.leader_election_namespace != options.namespace
        else [],
        "authentication": [options.authentication] if options.authentication else [],
        "webhook-certificates": [_CERTIFICATES] if webhooks else [],
    }
    return [
        "run",
        options.target,
        *(f"--{name}={value}" for name, values in optional.items() for value in values),
        f"--metrics=0.0.0.0:{_METRICS}",
        f"--health=0.0.0.0:{_HEALTH}",
        "--log-format=json",
    ]


def _deployment(options: BaseOptions, *, webhooks: bool) -> JSONObject:
    ports = {"metrics": _METRICS, "health": _HEALTH} | ({"webhooks": _WEBHOOKS} if webhooks else {})
    container: JSONObject = {
        "name": "operator",
        "image": options.image,
        "args": _arguments(options, webhooks=webhooks),
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "health"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}},
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: JSONObject = {
        "serviceAccountName": options.name,
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if webhooks:
        container["volumeMounts"] = [{"name": "webhook-certificates", "mountPath": _CERTIFICATES, "readOnly": True}]
        pod["volumes"] = [{"name": "webhook-certificates", "secret": {"secretName": f"{options.name}-webhook"}}]
    labels = _labels(options)
    spec = {
        "replicas": 2 if options.leader_election else 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return _object(options, "apps/v1", "Deployment", spec=spec)
