"""Admission of writes: the permissions that some fields need, then the webhooks that are configured in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.apiserver.access import Roles, check_permissions, includes, needs_permissions
from reconciler.apiserver.builtin.checks import selects
from reconciler.apiserver.cel.rules import conditions_met
from reconciler.apiserver.cluster import APIResource, ClusterStorage, Endpoint, Registry
from reconciler.apiserver.conversion import WebhookAddress, post_to_webhook, review_version, webhook_address
from reconciler.apiserver.encoding.refusals import Refusal, aggregate
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.store import Stored, encode
from reconciler.apiserver.verbs.decoding import decode_patched
from reconciler.apiserver.verbs.patches import PatchFailed, json_patch
from reconciler.apiserver.verbs.write_rules import Admitted, same_json
from reconciler.errors import ReconcilerError
from reconciler.http import HTTPRequest, HTTPResponse, Transport

GROUP = "admissionregistration.k8s.io"


def _matches(rule: JSONObject, endpoint: Endpoint, write: Admitted) -> bool:
    info, scope = endpoint.info, rule.get("scope", "*")
    return (
        scope in ("*", "Namespaced" if info.namespaced else "Cluster")
        and includes(rule, "operations", write.operation)
        and includes(rule, "apiGroups", info.group)
        and includes(rule, "apiVersions", endpoint.version)
        and any(_names(each, info.plural, write.call.subresource) for each in rule.get("resources") or ())
        and (not rule.get("resourceNames") or write.name in rule["resourceNames"])
    )


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
        "dryRun": write.call.dry_run,
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
    if write.call.dry_run:
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
    problem = "failed to call webhook: the body is not an AdmissionReview"
    review = _decoded(body, _AdmissionReview | None, problem) or _AdmissionReview()
    response = review.response
    if response is None:
        raise CallFailed("received invalid webhook response: webhook response was absent")
    problem = _problem(review, response, uid, mutating=mutating) if version == "v1" else ""
    if problem:
        raise CallFailed(f"received invalid webhook response: {problem}")
    undecodable = "received undecodable patch in webhook response"
    operations = _decoded(response.patch, list[Any], undecodable) if mutating and response.patch else []
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


def _decoded(body: bytes, form: Any, problem: str) -> Any:
    try:
        return msgspec.json.decode(body, type=form)
    except UNDECODABLE as error:
        raise CallFailed(f"{problem}: {error}") from None


def denial(name: str, response: ReviewResponse) -> Refusal:
    """Return the error response for a write that a webhook denies."""
    status = response.status or {}
    code, reason, why = status.get("code"), str(status.get("reason") or ""), str(status.get("message") or "")
    denied = f"admission webhook {quoted(name)} denied the request"
    message = f"{denied}: {why or reason}" if why or reason else f"{denied} without explanation"
    code = code if isinstance(code, int) and code >= 400 else 400
    details = status.get("details") if isinstance(status.get("details"), dict) else None
    return Refusal(code, reason, message, details=details)


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
        """Return the kind in the version that a rule names, or None if no rule matches the write.

        With the match policy ``Equivalent``, a rule for another version of the kind matches as well.
        """
        asked, rules = write.call.endpoint, self.document.get("rules") or ()
        if asked.info.group == GROUP:
            return None  # a broken webhook must not keep its own configuration from being repaired
        others = () if self.document.get("matchPolicy") == "Exact" else asked.resource.endpoints.values()
        choices = [*((rule, asked) for rule in rules), *((rule, each) for rule in rules for each in others)]
        return next((endpoint for rule, endpoint in choices if _matches(rule, endpoint, write)), None)

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


def read_webhooks(registry: Registry, plural: str) -> Iterator[Webhook]:
    """Yield the webhooks of a kind of configuration: by the name of their configuration, then as listed."""
    for _, stored in sorted(registry.built_in(plural, GROUP).store.objects.items()):
        for document in stored.doc.get("webhooks") or ():
            yield Webhook(document, mutating=plural.startswith("mutating"))


class CallFailed(Exception):
    """A webhook could not be called, or its response is not valid; the message has the words of the real server."""


@dataclass(eq=False)
class ConfiguredAdmission:
    """Admission by the webhooks that are configured in a cluster.

    Attributes:
        cluster: the stored objects; under virtual time, only webhooks in the same process can be called.
        in_process: the webhook servers in the same process, by the origin of their URL (``https://host:port``) or by
            ``namespace/name`` of their Service.
        unasked: None, or of a fork the names of all other webhooks that would be called. They are not, and count as
            webhooks that allow everything: a cluster's webhooks belong to the cluster.
        roles: what users may do; None: everything.
        active: whether anything was ever configured, or roles limit what users may do.
    """

    cluster: ClusterStorage
    in_process: Mapping[str, Transport]
    unasked: dict[str, None] | None = None
    roles: Roles | None = None

    def __post_init__(self) -> None:
        self._mutating: list[Webhook] = []
        self._validating: list[Webhook] = []
        self.active = self.roles is not None
        self.cluster.commit_hooks.append(self.committed)

    def committed(self, resource: APIResource, _old: Stored | None, _new: Stored | None) -> None:
        """Read the configurations again if one has changed; a commit hook."""
        if resource.info.group == GROUP:
            self.active, registry = True, self.cluster.registry
            self._mutating = list(read_webhooks(registry, "mutatingwebhookconfigurations"))
            self._validating = list(read_webhooks(registry, "validatingwebhookconfigurations"))

    def applies(self, write: Admitted) -> bool:
        """Return whether rules of any webhook match a write, or it may need permissions of its own."""
        if not self.active or write.call.by_server:
            return False
        if self.roles is not None and needs_permissions(write):
            return True
        return any(each.endpoint_for(write) is not None for each in (*self._mutating, *self._validating))

    async def mutate(self, write: Admitted) -> JSONObject | None:
        """Return the object of a write as the mutating webhooks leave it; they are called one after the other.

        A webhook with the reinvocation policy ``IfNeeded`` is called once more if one after it changed the object.

        Raises:
            Refusal: a webhook denies the write, or cannot be called.
        """
        called: list[Webhook] = []
        again: list[Webhook] = []
        for webhook in self._mutating:
            changed = await self._mutate(write, webhook)
            if changed is not None:
                write, again = replace(write, doc=changed), [*called]
            if webhook.document.get("reinvocationPolicy") == "IfNeeded":
                called.append(webhook)
        for webhook in again:
            changed = await self._mutate(write, webhook)
            if changed is not None:
                write = replace(write, doc=changed)
        return write.doc

    async def _mutate(self, write: Admitted, webhook: Webhook) -> JSONObject | None:
        """Return the changed object, or None if the webhook was not called or changed nothing."""
        found = self._request(write, webhook)
        if found is None:
            return None
        endpoint, request = found
        patch = await self._review(write, webhook, request)
        if not patch:
            return None
        if write.doc is None:
            why = "attempted to modify the object, which is not supported for this operation"
            raise Refusal.failed(f"admission webhook {quoted(webhook.name)} {why}")
        return self._patched(write, endpoint, request["object"], patch)

    @staticmethod
    def _patched(write: Admitted, endpoint: Endpoint, shown: JSONObject, patch: list[Any]) -> JSONObject | None:
        """Return the object of a write with the patch of a webhook; None if it is the same."""
        asked = write.call.endpoint
        try:
            patched = json_patch(shown, patch)
        except PatchFailed as error:
            raise Refusal.failed(str(error)) from None
        if not isinstance(patched, dict):
            raise Refusal.failed("the patch leaves no object")
        if write.call.subresource == "scale":
            if (patched.get("apiVersion"), patched.get("kind")) != ("autoscaling/v1", "Scale"):
                raise Refusal.failed("the patch leaves no Scale")
            return None if same_json(patched, shown) else patched
        if endpoint is not asked:
            patched = asked.to_served(endpoint.to_storage(patched))
        # Values that a webhook adds are checked and completed like those of a client; unknown fields are dropped.
        call = replace(write.call, query={**write.call.query, "fieldValidation": "Ignore"}, warnings=[], duplicates=[])
        try:
            doc = decode_patched(call, patched, write.before)
        except Refusal as refusal:
            raise Refusal.failed(refusal.message) from None
        return None if write.doc is not None and same_json(doc, write.doc) else doc

    async def validate(self, write: Admitted) -> None:
        """Ask the validating webhooks, all at the same time.

        Raises:
            Refusal: a webhook denies the write, or cannot be called. Of several denials the first counts, in the order
                of the configurations.
        """
        if self.roles is not None and needs_permissions(write):
            check_permissions(write, self.roles)
        found = [(each, self._request(write, each)) for each in self._validating]
        reviews = [self._review(write, each, request[1]) for each, request in found if request is not None]
        outcomes = await asyncio.gather(*reviews, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _request(self, write: Admitted, webhook: Webhook) -> tuple[Endpoint, JSONObject] | None:
        """Return the version and the request of a review; None if the webhook is not to be called."""
        endpoint = webhook.endpoint_for(write)
        if endpoint is None or not selected(webhook.document, write, self.cluster.registry):
            return None
        request = review_request(write, endpoint, self.cluster.random_uid())
        return (endpoint, request) if webhook.meets_conditions(write, request) else None

    async def _review(self, write: Admitted, webhook: Webhook, request: JSONObject) -> list[Any]:
        """Return the patch of a webhook; an empty one if it could not be called and failures are ignored."""
        if write.call.dry_run and webhook.document.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise Refusal.bad_request(f"admission webhook {quoted(webhook.name)} does not support dry run")
        try:
            response, patch = await self._call(webhook, request)
        except CallFailed as error:
            if webhook.ignores_failures:
                return []
            raise Refusal.failed(f"failed calling webhook {quoted(webhook.name)}: {error}") from None
        write.call.warnings += response.warnings or ()
        if not response.allowed:
            raise denial(webhook.name, response)
        return patch

    async def _call(self, webhook: Webhook, request: JSONObject) -> tuple[ReviewResponse, list[Any]]:
        """Return the response of a webhook to the request of a review, and the operations of its patch.

        Raises:
            CallFailed: there is no response, its status is not 200, or it is not valid.
        """
        version = review_version(webhook.document.get("admissionReviewVersions") or ())
        client, timeout = webhook.document["clientConfig"], webhook.document.get("timeoutSeconds") or 10
        address = webhook_address(client)
        if self.unasked is not None and address.origin not in self.in_process:
            self.unasked[webhook.name] = None
            return ReviewResponse(uid=request["uid"], allowed=True), []
        review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}
        try:
            async with asyncio.timeout(timeout):
                response = await self._post(client, address, address.request(encode(review), timeout))
        except (OSError, ReconcilerError) as error:
            problem = "context deadline exceeded" if isinstance(error, TimeoutError) else str(error)
            raise CallFailed(f"failed to call webhook: {address.failure(timeout, problem)}") from None
        if response.status != 200:
            text = quoted(response.body[:1024].decode(errors="replace").strip())
            raise CallFailed(f"failed to call webhook: the server responded with status {response.status}: {text}")
        return _read_response(response.body, version, request["uid"], mutating=webhook.mutating)

    async def _post(self, client: JSONObject, address: WebhookAddress, request: HTTPRequest) -> HTTPResponse:
        transport = self.in_process.get(address.origin)
        if transport is not None:
            return await transport.send(request)
        if address.service:
            raise OSError(f'service "{address.service}" not found')
        if getattr(self.cluster.clock, "virtual", False):
            why = "cannot be called under virtual time: use connect_webhooks()"
            raise CallFailed(f"failed to call webhook: {address.origin} {why}")
        return await post_to_webhook(address.url, request, client)
