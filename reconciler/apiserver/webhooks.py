"""The webhooks of a cluster: which writes they match, and their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.checks import selects
from reconciler.apiserver.cel.rules import conditions_met
from reconciler.apiserver.cluster import Endpoint, Registry
from reconciler.apiserver.conversion import WebhookAddress, post_to_webhook, review_version, webhook_address
from reconciler.apiserver.encoding.refusals import Refusal, aggregate
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.store import encode
from reconciler.apiserver.verbs.write_rules import Admitted
from reconciler.clock import Clock
from reconciler.errors import ReconcilerError
from reconciler.http import HTTPRequest, HTTPResponse, Transport

GROUP = "admissionregistration.k8s.io"


def configured(registry: Registry, plural: str) -> Iterator[tuple[str, JSONObject]]:
    """Yield the names and documents of a kind of configuration, in the order of the names."""
    for name, stored in sorted(registry.built_in(plural, GROUP).store.objects.items()):
        yield name, stored.doc


def endpoint_for(rules: Sequence[JSONObject] | None, policy: str | None, write: Admitted) -> Endpoint | None:
    """Return the kind in the version that a rule names, or None if no rule matches the write.

    With the match policy ``Equivalent``, a rule for another version of the kind matches as well.
    """
    asked = write.call.endpoint
    if asked.info.group == GROUP:
        return None  # a broken webhook or policy must not keep its own configuration from being repaired
    if any(_matches(rule, asked, write) for rule in rules or ()):
        return asked
    if policy != "Exact":
        for rule in rules or ():
            for endpoint in asked.resource.endpoints.values():
                if endpoint is not asked and _matches(rule, endpoint, write):
                    return endpoint
    return None


def _matches(rule: JSONObject, endpoint: Endpoint, write: Admitted) -> bool:
    info, scope = endpoint.info, rule.get("scope", "*")
    return (
        scope in ("*", "Namespaced" if info.namespaced else "Cluster")
        and _includes(rule.get("operations"), write.operation)
        and _includes(rule.get("apiGroups"), info.group)
        and _includes(rule.get("apiVersions"), endpoint.version)
        and any(_names(each, info.plural, write.call.subresource) for each in rule.get("resources") or ())
        and (not rule.get("resourceNames") or write.name in rule["resourceNames"])
    )


def _includes(values: Sequence[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _names(pattern: str, plural: str, subresource: str) -> bool:
    """Return whether ``pods``, ``pods/status``, ``pods/*``, ``*/scale``, ``*`` or ``*/*`` names a resource."""
    resource, _, below = pattern.partition("/")
    return resource in ("*", plural) and below in ("*", subresource)


def selected(match: JSONObject, write: Admitted, registry: Registry) -> bool:
    """Return whether the selectors match the namespace (or raise its 404) and the object of a write."""
    wanted, info = match.get("namespaceSelector") or {}, write.call.endpoint.info
    if wanted and (write.call.namespace or (info.plural == "namespaces" and not info.group)):
        # A Namespace is selected by its own labels.
        namespace, document = write.call.namespace, write.doc or write.before
        if namespace:
            found = registry.built_in("namespaces").store.objects.get(namespace)
            if found is None:
                raise Refusal.not_found("namespaces", "", namespace)
            document = found.doc
        if not selects(wanted, _labels_of(document)):
            return False
    wanted = match.get("objectSelector") or {}
    return not wanted or any(selects(wanted, _labels_of(each)) for each in (write.doc, write.before) if each)


def _labels_of(document: JSONObject | None) -> dict[str, Any]:
    return ((document or {}).get("metadata") or {}).get("labels") or {}


_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


def review_request(write: Admitted, endpoint: Endpoint, uid: str) -> JSONObject:
    """Return the ``request`` of an AdmissionReview, with objects in the version that the webhook's rule names."""
    call, asked = write.call, write.call.endpoint
    request: JSONObject = {
        "uid": uid,
        "kind": _kind(endpoint, call.subresource),
        "resource": _resource(endpoint),
        "requestKind": _kind(asked, call.subresource),
        "requestResource": _resource(asked),
        "operation": write.operation,
        "userInfo": call.user.info(),
        "object": _in_version(write.doc, asked, endpoint),
        "oldObject": _in_version(write.before, asked, endpoint),
        "dryRun": write.dry_run,
        "options": _options(write),
    }
    if write.name:
        request["name"] = write.name
    namespace = write.name if asked.info.plural == "namespaces" and not asked.info.group else call.namespace
    if namespace:
        request["namespace"] = namespace
    if call.subresource:
        request["subResource"] = request["requestSubResource"] = call.subresource
    return request


def _kind(endpoint: Endpoint, subresource: str) -> JSONObject:
    if subresource == "scale":
        return {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    return {"group": endpoint.info.group, "version": endpoint.version, "kind": endpoint.info.kind}


def _resource(endpoint: Endpoint) -> JSONObject:
    return {"group": endpoint.info.group, "version": endpoint.version, "resource": endpoint.info.plural}


def _in_version(document: JSONObject | None, asked: Endpoint, wanted: Endpoint) -> JSONObject | None:
    if document is None or asked is wanted or document["kind"] == "Scale":
        return document
    return wanted.to_served(asked.to_storage(document))


def _options(write: Admitted) -> JSONObject:
    options: JSONObject = {"kind": _OPTIONS[write.operation], "apiVersion": "meta.k8s.io/v1"}
    if write.operation == "DELETE":
        return {**options, **{key: value for key, value in write.options.items() if key not in ("kind", "apiVersion")}}
    query = write.call.query
    options |= {key: query[key] for key in ("fieldManager", "fieldValidation") if query.get(key)}
    if write.dry_run:
        options["dryRun"] = ["All"]
    return options


class ReviewResponse(msgspec.Struct, rename="camel"):
    """The response of a webhook, as an AdmissionReview has it."""

    uid: str = ""
    allowed: bool = False
    status: JSONObject | None = None
    patch: bytes | None = None
    patch_type: str | None = None
    warnings: list[str] | None = None


class _AdmissionReview(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    response: ReviewResponse | None = None


def _read_response(body: bytes, version: str, uid: str, *, mutating: bool) -> tuple[ReviewResponse, list[Any]]:
    try:
        review = msgspec.json.decode(body, type=_AdmissionReview | None) or _AdmissionReview()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallFailed(f"failed to call webhook: the body is not an AdmissionReview: {error}") from None
    response = review.response
    if response is None:
        raise CallFailed("received invalid webhook response: webhook response was absent")
    problem = _problem(review, response, uid, mutating=mutating) if version == "v1" else ""
    if problem:
        raise CallFailed(f"received invalid webhook response: {problem}")
    operations = _operations(response.patch) if mutating and response.patch else []
    if operations and version == "v1" and response.patch_type != "JSONPatch":
        raise CallFailed(f"unsupported patch type {quoted(response.patch_type)}")
    return response, operations


def _problem(review: _AdmissionReview, response: ReviewResponse, uid: str, *, mutating: bool) -> str:
    """Return what the real server finds wrong in a response of version v1, or an empty string."""
    if response.uid != uid:
        return f"expected response.uid={quoted(uid)}, got {quoted(response.uid)}"
    if (review.api_version, review.kind) != ("admission.k8s.io/v1", "AdmissionReview"):
        got = f"{review.api_version}, Kind={review.kind}"
        return f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {got}"
    if not mutating:
        sent = "patch" if response.patch else "patchType" if response.patch_type else ""
        return f"validating webhook may not return response.{sent}" if sent else ""
    if response.patch and response.patch_type is None:
        return "webhook returned response.patch but not response.patchType"
    if response.patch_type is not None and not response.patch:
        return "webhook returned response.patchType but not response.patch"
    return ""


def _operations(patch: bytes) -> list[Any]:
    try:
        return msgspec.json.decode(patch, type=list[Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallFailed(f"received undecodable patch in webhook response: {error}") from None


def denial(name: str, response: ReviewResponse) -> Refusal:
    """Return the error response for a write that a webhook denies."""
    status = response.status or {}
    code, reason, why = status.get("code"), str(status.get("reason") or ""), str(status.get("message") or "")
    denied = f"admission webhook {quoted(name)} denied the request"
    message = f"{denied}: {why or reason}" if why or reason else f"{denied} without explanation"
    details = status.get("details")
    return Refusal(
        code if isinstance(code, int) and code >= 400 else 400,
        reason,
        message,
        details=details if isinstance(details, dict) else None,
    )


@dataclass(frozen=True)
class Webhook:
    """One webhook of a configuration.

    Attributes:
        document: its entry in the configuration, with defaults.
        mutating: whether it may change objects.
    """

    document: JSONObject
    mutating: bool

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.document["name"])

    @property
    def ignores_failures(self) -> bool:
        """Return whether a write goes on if the webhook cannot be called."""
        return bool(self.document.get("failurePolicy") == "Ignore")

    def endpoint_for(self, write: Admitted) -> Endpoint | None:
        """Return the kind in the version that a rule names, or None if no rule matches the write."""
        return endpoint_for(self.document.get("rules"), self.document.get("matchPolicy"), write)

    def meets_conditions(self, write: Admitted, request: JSONObject) -> bool:
        """Return whether all match conditions are true; the request has the object in the version of the rule.

        Raises:
            Refusal: 403, a condition cannot be evaluated, and the failure policy is ``Fail``.
        """
        documents = {"request": request, "object": request.get("object"), "oldObject": request.get("oldObject")}
        met, problems = conditions_met(self.document, documents)
        if problems and not self.ignores_failures:
            info = write.call.endpoint.info
            raise Refusal.forbidden(info.plural, info.group, write.name, aggregate(problems))
        return met and not problems


def read_webhooks(registry: Registry, *, mutating: bool) -> Iterator[Webhook]:
    """Yield the mutating or the validating webhooks: by the name of their configuration, then as listed."""
    plural = "mutatingwebhookconfigurations" if mutating else "validatingwebhookconfigurations"
    for _, configuration in configured(registry, plural):
        for document in configuration.get("webhooks") or ():
            yield Webhook(document, mutating)


class CallFailed(Exception):
    """A webhook could not be called, or its response is not valid; the message has the words of the real server."""


@dataclass(frozen=True, slots=True)
class WebhookCaller:
    """A caller of webhooks.

    Attributes:
        clock: under virtual time, only webhooks in the same process can be called.
        in_process: the webhook servers in the same process, by the origin of their URL (``https://host:port``) or by
            ``namespace/name`` of their Service.
        unasked: None, or of a fork the names of all other webhooks that would be called. They are not, and count as
            webhooks that allow everything: a cluster's webhooks belong to the cluster.
    """

    clock: Clock
    in_process: Mapping[str, Transport]
    unasked: dict[str, None] | None = None

    async def call(self, webhook: Webhook, request: JSONObject) -> tuple[ReviewResponse, list[Any]]:
        """Return the response of a webhook to the request of a review, and the operations of its patch.

        Raises:
            CallFailed: there is no response, its status is not 200, or it is not valid.
        """
        version = review_version(webhook.document.get("admissionReviewVersions") or ())
        if self.unasked is not None and webhook_address(webhook.document["clientConfig"]).origin not in self.in_process:
            self.unasked[webhook.name] = None
            return ReviewResponse(uid=request["uid"], allowed=True), []
        review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}
        try:
            body = await self._response(webhook, encode(review))
        except OSError as error:
            raise CallFailed(f"failed to call webhook: {error}") from None
        return _read_response(body, version, request["uid"], mutating=webhook.mutating)

    async def _response(self, webhook: Webhook, body: bytes) -> bytes:
        client = webhook.document["clientConfig"]
        timeout = webhook.document.get("timeoutSeconds") or 10
        address = webhook_address(client)
        try:
            async with asyncio.timeout(timeout):
                response = await self._post(client, address, address.request(body, timeout))
        except TimeoutError:
            raise OSError(address.failure(timeout, "context deadline exceeded")) from None
        except (OSError, ReconcilerError) as error:
            raise OSError(address.failure(timeout, str(error))) from None
        if response.status == 200:
            return response.body
        text = response.body[:1024].decode(errors="replace").strip()
        raise OSError(f"the server responded with status {response.status}: {quoted(text)}")

    async def _post(self, client: JSONObject, address: WebhookAddress, request: HTTPRequest) -> HTTPResponse:
        transport = self.in_process.get(address.origin)
        if transport is not None:
            return await transport.send(request)
        if address.service:
            raise OSError(f'service "{address.service}" not found')
        if getattr(self.clock, "virtual", False):
            why = "cannot be called under virtual time: use connect_webhooks()"
            raise CallFailed(f"failed to call webhook: {address.origin} {why}")
        return await post_to_webhook(address.url, request, client)
