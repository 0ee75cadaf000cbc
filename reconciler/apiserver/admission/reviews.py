"""The wire format of an AdmissionReview: the request that a webhook gets, and what its response must be."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.storage.registry import Endpoint
from reconciler.apiserver.verbs.write import Admitted
from reconciler.wire import JSONObject

__all__ = ["BadResponse", "ReviewResponse", "denial", "read_response", "review_request"]

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class BadResponse(Exception):
    """The response of a webhook is not one that the API server accepts; the message says why."""


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


class _Review(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    response: ReviewResponse | None = None


def read_response(body: bytes, version: str, uid: str, *, mutating: bool) -> tuple[ReviewResponse, list[Any]]:
    """Return the response in an AdmissionReview, and the operations of its patch; raise `BadResponse` if not valid."""
    try:
        review = msgspec.json.decode(body, type=_Review | None) or _Review()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadResponse(f"failed to call webhook: the body is not an AdmissionReview: {error}") from None
    response = review.response
    if response is None:
        raise BadResponse("received invalid webhook response: webhook response was absent")
    problem = _problem(review, response, uid, mutating=mutating) if version == "v1" else ""
    if problem:
        raise BadResponse(f"received invalid webhook response: {problem}")
    operations = _operations(response.patch) if mutating and response.patch else []
    if operations and version == "v1" and response.patch_type != "JSONPatch":
        raise BadResponse(f"unsupported patch type {quoted(response.patch_type)}")
    return response, operations


def _problem(review: _Review, response: ReviewResponse, uid: str, *, mutating: bool) -> str:
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
        raise BadResponse(f"received undecodable patch in webhook response: {error}") from None


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
