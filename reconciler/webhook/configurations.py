"""The webhook configurations that make the API server call a webhook server."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from reconciler._core.wire import JSONObject
from reconciler.objects.kinds import presumed_resource_type
from reconciler.webhook.admission import AdmissionWebhook, Converter
from reconciler.webhook.server import WebhookServer

FailurePolicy = Literal["Fail", "Ignore"]


@dataclass(frozen=True, slots=True)
class ServiceReference:
    """The Service in front of a webhook server.

    Attributes:
        namespace: the Service's namespace.
        name: the Service's name.
        port: the Service's port. Default 443.
    """

    namespace: str
    name: str
    port: int = 443


def webhook_configurations(
    webhooks: WebhookServer | Iterable[AdmissionWebhook | Converter],
    *,
    name: str,
    service: ServiceReference | None = None,
    url: str | None = None,
    ca_bundle: bytes | None = None,
    failure_policy: FailurePolicy = "Fail",
    timeout_seconds: int = 10,
) -> list[JSONObject]:
    """Return the ValidatingWebhookConfiguration and the MutatingWebhookConfiguration of webhooks.

    Without `ca_bundle`, cert-manager's CA injector can add it if you set its annotation.

    Args:
        webhooks: a server with all webhooks added, or the webhooks.
        name: the name of both objects.
        service: the Service through which the API server reaches the webhooks; or
        url: their base URL, ``https://host:port`` without a path.
        ca_bundle: PEM of the CAs that signed the server's certificate. Default: the API server's system roots.
        failure_policy: what happens if the webhook cannot be reached. Default ``"Fail"``: the request is denied.
        timeout_seconds: 1 to 30. Default 10.

    Raises:
        ValueError: neither or both of `service` and `url` are given.
    """
    client = _client_config(service, url, ca_bundle)
    if isinstance(webhooks, WebhookServer):
        webhooks = [each for endpoint in webhooks.admissions.values() for each in endpoint.reviewers]
    reviewers: dict[str, list[AdmissionWebhook]] = {}  # of each path
    for each in webhooks:
        if isinstance(each, AdmissionWebhook):
            reviewers.setdefault(each.served_at, []).append(each)

    def documents() -> Iterator[JSONObject]:
        for verb, kind in (("validate", "Validating"), ("mutate", "Mutating")):
            chosen = [each for each in reviewers.values() if each[0].verb == verb]
            if not chosen:
                continue
            yield {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": f"{kind}WebhookConfiguration",
                "metadata": {"name": name},
                "webhooks": [
                    {
                        "name": _name(first),
                        "admissionReviewVersions": ["v1"],
                        "sideEffects": "None",
                        "failurePolicy": failure_policy,
                        "timeoutSeconds": timeout_seconds,
                        "matchPolicy": "Equivalent",
                        "clientConfig": client(first.served_at),
                        "rules": _rules([first, *others]),
                    }
                    for first, *others in chosen
                ],
            }

    return list(documents())


def conversion_configuration(
    converter: Converter,
    *,
    service: ServiceReference | None = None,
    url: str | None = None,
    ca_bundle: bytes | None = None,
) -> JSONObject:
    """Return ``spec.conversion`` of a CustomResourceDefinition: ``generate_crd(V1, V1Beta1, conversion=…)``.

    Args:
        converter: the converter of the kind; the webhook server serves it.
        service: the Service through which the API server reaches the webhook server; or
        url: its base URL, ``https://host:port`` without a path.
        ca_bundle: PEM of the CAs that signed the server's certificate. Default: the API server's system roots.

    Raises:
        ValueError: neither or both of `service` and `url` are given.
    """
    client = _client_config(service, url, ca_bundle)(converter.served_at)
    return {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}


def _client_config(
    service: ServiceReference | None, url: str | None, ca_bundle: bytes | None
) -> Callable[[str], JSONObject]:
    """Return a function from a path to how the API server reaches it."""
    if (service is None) == (url is None):
        raise ValueError("pass exactly one of service= and url=")
    bundle = {"caBundle": base64.b64encode(ca_bundle).decode()} if ca_bundle is not None else {}

    def client(path: str) -> JSONObject:
        if service is None:
            return {"url": f"{url}{path}", **bundle}
        where = {"namespace": service.namespace, "name": service.name, "port": service.port, "path": path}
        return {"service": where, **bundle}

    return client


def _name(reviewer: AdmissionWebhook) -> str:
    """Return a name with at least three labels, which the API server requires."""
    gvk = reviewer.gvk
    return f"{reviewer.verb}-{gvk.version}-{gvk.kind.lower()}.{gvk.group or 'core.reconciler.dev'}"


def _rules(reviewers: Iterable[AdmissionWebhook]) -> list[JSONObject]:
    """Return the distinct rules of the webhooks that share a path."""
    rules: list[JSONObject] = []
    for rule in map(_rule, reviewers):
        if rule not in rules:
            rules.append(rule)
    return rules


def _rule(reviewer: AdmissionWebhook) -> JSONObject:
    assert reviewer.resource is not None  # noqa: S101 - gvk has checked it
    plural = presumed_resource_type(reviewer.resource).plural
    return {
        "apiGroups": [reviewer.gvk.group],
        "apiVersions": [reviewer.gvk.version],
        "resources": [plural, *(f"{plural}/{each}" for each in reviewer.subresources)],
        "operations": list(reviewer.operations),
        "scope": "*",
    }
