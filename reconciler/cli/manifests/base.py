"""The kustomize base of an operator: its definitions, roles, Deployment, Service and webhook configurations."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reconciler._core.wire import JSONObject
from reconciler.cli.manifests.definitions import definitions_of
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager
from reconciler.objects import AnyResource, Resource
from reconciler.webhook import Converter, ServiceReference, conversion_configuration, webhook_configurations

_WEBHOOK_PORT = 9443
_CERTIFICATES = "/etc/webhook/certs"


def base_files(manager: Manager, installation: Installation) -> dict[str, list[JSONObject]]:
    """Return the documents of each file of the base.

    Raises:
        ConfigurationError: a name is invalid.
        SchemaError: a kind cannot be expressed as a definition.
    """
    files = {
        "crd.yaml": _definitions(manager, installation),
        "rbac.yaml": manager.rbac(installation.name, namespace=installation.namespace),
        "deployment.yaml": [
            _deployment(installation, webhooks=bool(manager.webhooks)),
            disruption_budget(installation),
        ],
        "service.yaml": [metrics_service(installation)],
        "webhooks.yaml": list(_webhooks(manager, installation)) if manager.webhooks else [],
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

    Raises:
        ConfigurationError: a converter of one of these kinds has other versions than its classes.
    """
    package = target.partition(":")[0].partition(".")[0]
    groups = {controller.kind.group for controller in manager.controllers}
    classes = {cls for cls in _subclasses(Resource) if cls.__module__.partition(".")[0] == package}
    own = [cls for cls in classes if cls.gvk.group in groups and _is_current(cls)]
    for webhook in manager.webhooks:
        if isinstance(webhook, Converter):
            _check_versions(
                webhook, [cls for cls in own if (cls.gvk.group, cls.gvk.kind) == (webhook.group, webhook.kind)]
            )
    own.sort(key=lambda cls: (cls.gvk.kind, not cls.definition.storage, cls.gvk.version))
    return definitions_of(own, conversions)


def _check_versions(converter: Converter, classes: Sequence[type[AnyResource]]) -> None:
    """Refuse a definition without a version whose class was not imported: its objects could not be read anymore."""
    by_version = {cls.gvk.version: cls for cls in classes}
    for version in converter.versions if classes else ():
        if version not in by_version:
            raise ConfigurationError(
                f"the converter of {converter.kind} converts {version}, but no class has this version: import its "
                "module where the operator is defined, or remove the conversion"
            )
    for version in by_version.keys() - set(converter.versions):
        raise ConfigurationError(
            f"the converter of {converter.kind} does not convert {version}, the version of the class "
            f"{by_version[version].__name__}: add it with Converter.add"
        )


def _subclasses(cls: type[Any]) -> Iterator[type[AnyResource]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def _is_current(cls: type[AnyResource]) -> bool:
    """Return whether a class is still what its module contains, which may have been imported again."""
    return getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls


def _definitions(manager: Manager, installation: Installation) -> list[JSONObject]:
    service = _service_reference(installation)
    conversions = {
        (each.group, each.kind): conversion_configuration(each, service=service, ca_bundle=installation.ca_bundle)
        for each in manager.webhooks
        if isinstance(each, Converter)
    }
    documents = own_definitions(manager, installation.target, conversions)
    for document in documents:
        if "conversion" in document["spec"] and installation.ca_bundle is None:
            document["metadata"]["annotations"] = _injected(installation)
    return documents


def _service_reference(installation: Installation) -> ServiceReference:
    return ServiceReference(installation.namespace, f"{installation.name}-webhook")


def _injected(installation: Installation) -> dict[str, str]:
    """Return the annotation by which cert-manager adds the CA of its Certificate."""
    return {"cert-manager.io/inject-ca-from": f"{installation.namespace}/{installation.name}-webhook"}


def _webhooks(manager: Manager, installation: Installation) -> Iterator[JSONObject]:
    ports = [{"name": "webhooks", "port": 443, "targetPort": "webhooks"}]
    yield new_object(installation, "v1", "Service", "-webhook", spec={"selector": labels(installation), "ports": ports})
    service = _service_reference(installation)
    for each in webhook_configurations(
        manager.webhooks, name=installation.name, service=service, ca_bundle=installation.ca_bundle
    ):
        if installation.ca_bundle is None:
            each["metadata"]["annotations"] = _injected(installation)
        yield each


def _arguments(installation: Installation, *, webhooks: bool) -> list[str]:
    optional: Mapping[str, Iterable[str]] = {
        "namespace": installation.namespaces,
        "leader-election": [installation.leader_election] if installation.leader_election else [],
        "leader-election-namespace": [installation.leader_election_namespace]
        if installation.leader_election and installation.leader_election_namespace != installation.namespace
        else [],
        "authentication": [installation.authentication] if installation.authentication else [],
        "webhook-certificates": [_CERTIFICATES] if webhooks else [],
    }
    return [
        "run",
        installation.target,
        *(f"--{name}={value}" for name, values in optional.items() for value in values),
        f"--metrics=0.0.0.0:{METRICS_PORT}",
        f"--health=0.0.0.0:{HEALTH_PORT}",
        "--log-format=json",
    ]


def _deployment(installation: Installation, *, webhooks: bool) -> JSONObject:
    mount = {"name": "webhook-certificates", "mountPath": _CERTIFICATES, "readOnly": True}
    volume = {"name": "webhook-certificates", "secret": {"secretName": f"{installation.name}-webhook"}}
    return deployment(
        installation,
        _arguments(installation, webhooks=webhooks),
        replicas=2 if installation.leader_election else 1,
        ports={"webhooks": _WEBHOOK_PORT} if webhooks else {},
        container={"volumeMounts": [mount]} if webhooks else {},
        pod={"volumes": [volume]} if webhooks else {},
    )


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
