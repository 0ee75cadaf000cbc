"""The wire format of AdmissionReview and ConversionReview, and JSON Patch (RFC 6902), in which changes are returned."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from reconciler._core.wire import MAX_LEVELS, JSONObject, exceeds_max_levels
from reconciler.meta.documents import identical

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
"""The operation that the API server is about to perform."""

ADMISSION_VERSIONS = frozenset({"admission.k8s.io/v1", "admission.k8s.io/v1beta1"})

WARNING_LIMIT = 256
"""Characters of a warning. The API server truncates longer ones, and drops warnings beyond 4096 characters in total."""


_TOO_DEEP = f"the body has more than {MAX_LEVELS} levels of nesting"


class BadReview(ValueError):
    """The request body is not a valid review."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRequest:
    """A request that the API server asks a webhook to review.

    Attributes:
        uid: the id of this review.
        operation: the operation.
        name: the object's name; ``""`` for a create with generateName.
        namespace: the object's namespace; None for cluster-scoped kinds.
        subresource: the subresource, such as ``"status"``; ``""`` for the object itself.
        username: the user who sent the request.
        groups: the user's groups.
        dry_run: whether nothing will be stored. The webhook must then have no side effects.
        options: options of the operation, such as the propagation policy of a delete.
        document: the request as sent.
    """

    uid: str
    operation: Operation
    name: str = ""
    namespace: str | None = None
    subresource: str = ""
    username: str = ""
    groups: Sequence[str] = ()
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewVerdict:
    """The result of a review.

    Attributes:
        allowed: whether the request is allowed.
        code: the HTTP status of a denial.
        reason: the machine-readable reason of a denial, such as ``"Forbidden"``.
        message: the message for the user.
        details: details of a denial, with causes by field, as in the API server's own errors.
        warnings: shown to the user whether the request is allowed or not.
        changed: the object with the changes that the webhook makes; None for none.
    """

    allowed: bool
    code: int = 200
    reason: str = ""
    message: str = ""
    details: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    changed: JSONObject | None = None


def read_review(body: bytes, *, kind: str, versions: frozenset[str]) -> tuple[str, JSONObject]:
    """Parse a review into its version and its request.

    Raises:
        BadReview: the body is not a valid review; the message says why.
    """
    if not body:
        raise BadReview("the body is empty")
    try:
        review = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadReview(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise BadReview(_TOO_DEEP) from None
    if exceeds_max_levels(review):
        raise BadReview(_TOO_DEEP)
    if not isinstance(review, dict) or review.get("kind") != kind or str(review.get("apiVersion")) not in versions:
        raise BadReview(f"the body is not of kind {kind} ({' or '.join(sorted(versions))})")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise BadReview(f"the {kind} has no request with a uid")
    return review["apiVersion"], request


class _User(msgspec.Struct):
    username: str | None = None
    groups: list[str] | None = None


class _Sent(msgspec.Struct, rename="camel"):
    uid: str
    operation: Operation = "CREATE"
    name: str | None = None
    namespace: str | None = None
    sub_resource: str | None = None
    user_info: _User | None = None
    dry_run: bool | None = None
    options: JSONObject | None = None
    object: JSONObject | None = None
    old_object: JSONObject | None = None


def request_of(document: JSONObject) -> AdmissionRequest:
    """Parse the request of an AdmissionReview.

    Raises:
        BadReview: a field has the wrong type; the message names it.
    """
    try:
        sent = msgspec.convert(document, _Sent)
    except msgspec.ValidationError as error:
        raise BadReview(f"the request of the AdmissionReview is not valid: {error}") from None
    user = sent.user_info or _User()
    return AdmissionRequest(
        uid=sent.uid,
        operation=sent.operation,
        name=sent.name or "",
        namespace=sent.namespace or None,
        subresource=sent.sub_resource or "",
        username=user.username or "",
        groups=tuple(user.groups or ()),
        dry_run=bool(sent.dry_run),
        options=sent.options or {},
        document=document,
    )


def write_admission(version: str, request: AdmissionRequest, verdict: ReviewVerdict) -> bytes:
    """Encode an AdmissionReview with its response."""
    response: JSONObject = {"uid": request.uid, "allowed": verdict.allowed}
    if not verdict.allowed:
        status = {"code": verdict.code, "reason": verdict.reason, "message": verdict.message, "status": "Failure"}
        if verdict.details:
            status["details"] = verdict.details
        response["status"] = status
    if verdict.warnings:
        response["warnings"] = [warning[:WARNING_LIMIT] for warning in verdict.warnings]
    if verdict.allowed and verdict.changed is not None:
        patch = json_patch(request.document["object"], verdict.changed)
        if patch:
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(msgspec.json.encode(patch)).decode()
    return msgspec.json.encode({"apiVersion": version, "kind": "AdmissionReview", "response": response})


def json_patch(before: Any, after: Any) -> list[JSONObject]:
    """Compute the operations that turn `before` into `after`; lists that differ are replaced as a whole."""
    return list(_operations(before, after, ""))


def _operations(before: Any, after: Any, path: str) -> Iterator[JSONObject]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key not in after:
                yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
        for key, value in after.items():
            if key not in before:
                yield {"op": "add", "path": f"{path}/{_escaped(key)}", "value": value}
            else:
                yield from _operations(before[key], value, f"{path}/{_escaped(key)}")
    elif not identical(before, after):
        yield {"op": "replace", "path": path, "value": after}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
