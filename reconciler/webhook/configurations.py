"""Write down what the cluster must know to ask a webhook server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from reconciler.objects import presumed_resource_type
from reconciler.webhook.admission import Admission
from reconciler.webhook.server import WebhookServer

__all__ = ["ServiceReference", "webhook_configurations"]

FailurePolicy = Literal["Fail", "Ignore"]


@dataclass(frozen=True, slots=True)
class ServiceReference:
    """Name the Service in front of a webhook server.

    Attributes:
        namespace: of the Service.
        name: of the Service.
        port: of the Service. Default 443.
    """

    namespace: str
    name: str
    port: int = 443


def webhook_configurations(
    server: WebhookServer,
    *,
    name: str,
    service: ServiceReference | None = None,
    url: str | None = None,
    ca_bundle: bytes | None = None,
    failure_policy: FailurePolicy = "Fail",
    timeout_seconds: int = 10,
) -> list[dict[str, Any]]:
    """Return a ValidatingWebhookConfiguration and a MutatingWebhookConfiguration for what a server serves.

    Without `ca_bundle` cert-manager's CA injector can fill it in by its annotation.

    Args:
        server: with everything added.
        name: of both.
        service: where it is reached; or
        url: ``https://host:port`` without path.
        ca_bundle: PEM of the authorities of its certificate. Default: the system's of the API server.
        failure_policy: what happens while nobody answers. Default ``"Fail"``: the request is refused.
        timeout_seconds: 1 to 30. Default 10.

    Raises:
        ValueError: neither or both of `service` and `url` are given.
    """
    if (service is None) == (url is None):
        raise ValueError("give service= or url=, one of them")
    reviewers = [each for endpoint in server.admissions.values() for each in endpoint.reviewers[:1]]

    def client(path: str) -> dict[str, Any]:
        bundle = {"caBundle": base64.b64encode(ca_bundle).decode()} if ca_bundle is not None else {}
        if service is None:
            return {"url": f"{url}{path}", **bundle}
        where = {"namespace": service.namespace, "name": service.name, "port": service.port, "path": path}
        return {"service": where, **bundle}

    def documents() -> Iterator[dict[str, Any]]:
        for verb, kind in (("validate", "Validating"), ("mutate", "Mutating")):
            chosen = [each for each in reviewers if each.verb == verb]
            if not chosen:
                continue
            yield {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": f"{kind}WebhookConfiguration",
                "metadata": {"name": name},
                "webhooks": [
                    {
                        "name": _name(reviewer),
                        "admissionReviewVersions": ["v1"],
                        "sideEffects": "None",
                        "failurePolicy": failure_policy,
                        "timeoutSeconds": timeout_seconds,
                        "matchPolicy": "Equivalent",
                        "clientConfig": client(reviewer.served_at),
                        "rules": [_rule(reviewer)],
                    }
                    for reviewer in chosen
                ],
            }

    return list(documents())


def _name(reviewer: Admission) -> str:
    """Return a name with the three labels that the API server asks for."""
    gvk = reviewer.gvk
    return f"{reviewer.verb}-{gvk.version}-{gvk.kind.lower()}.{gvk.group or 'core.reconciler.dev'}"


def _rule(reviewer: Admission) -> dict[str, Any]:
    assert reviewer.resource is not None  # noqa: S101 - gvk was asked for before
    plural = presumed_resource_type(reviewer.resource).plural
    return {
        "apiGroups": [reviewer.gvk.group],
        "apiVersions": [reviewer.gvk.version],
        "resources": [plural, *(f"{plural}/{each}" for each in reviewer.subresources)],
        "operations": list(reviewer.operations),
        "scope": "*",
    }
