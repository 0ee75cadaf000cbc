"""Read and write AdmissionReview and ConversionReview, as the API server speaks them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from reconciler.serving import MAX_LEVELS, exceeds_max_levels

__all__ = ["AdmissionRequest", "BadReview", "Operation", "Verdict", "read_review", "write_admission"]

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
"""What is about to happen to an object."""

ADMISSION_VERSIONS = frozenset({"admission.k8s.io/v1", "admission.k8s.io/v1beta1"})

WARNING_LIMIT = 256
"""Characters of a warning; the API server cuts longer ones, and drops what exceeds 4096 in all."""


_TOO_DEEP = f"the body has more than {MAX_LEVELS} levels of objects and lists"


class BadReview(ValueError):
    """Say that a body is no review."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRequest:
    """Hold what the API server tells of a request that it asks about.

    Attributes:
        uid: of this question.
        operation: what is about to happen.
        name: of the object; ``""`` for a create with generateName.
        namespace: of the object; None for cluster-scoped kinds.
        subresource: ``"status"``, ``"scale"``; ``""`` for the object itself.
        username: who asks for it.
        groups: the groups of that user.
        dry_run: nothing will be stored, so nothing may be done beside the answer.
        options: of the operation, such as a delete's propagation policy.
        document: the request as it was sent.
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
class Verdict:
    """Hold an answer.

    Attributes:
        allowed: whether it may happen.
        code: the HTTP status of a refusal.
        reason: the machine's reason of a refusal, ``"Forbidden"``.
        message: for the person who asked.
        details: of a refusal: causes with fields, as the API server's own.
        warnings: shown to the person, whatever the answer is.
        patch: JSON Patch operations; empty for none.
    """

    allowed: bool
    code: int = 200
    reason: str = ""
    message: str = ""
    details: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    patch: Sequence[Mapping[str, Any]] = ()


def read_review(body: bytes, *, kind: str, versions: frozenset[str]) -> tuple[str, dict[str, Any]]:
    """Return the version of a review and its request.

    Raises:
        BadReview: it is none; the message says why.
    """
    if not body:
        raise BadReview("the body is empty")
    try:
        review = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadReview(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise BadReview(_TOO_DEEP) from None
    if exceeds_max_levels(review):
        raise BadReview(_TOO_DEEP)
    if not isinstance(review, dict) or review.get("kind") != kind or review.get("apiVersion") not in versions:
        raise BadReview(f"the body is no {kind} of {' or '.join(sorted(versions))}")
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
    options: dict[str, Any] | None = None
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None


def request_of(document: dict[str, Any]) -> AdmissionRequest:
    """Return a request of an AdmissionReview.

    Raises:
        BadReview: a member has the wrong type; the message names it.
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


def write_admission(version: str, uid: str, verdict: Verdict) -> bytes:
    """Return an AdmissionReview with an answer."""
    response: dict[str, Any] = {"uid": uid, "allowed": verdict.allowed}
    if not verdict.allowed:
        status = {"code": verdict.code, "reason": verdict.reason, "message": verdict.message, "status": "Failure"}
        if verdict.details:
            status["details"] = verdict.details
        response["status"] = status
    if verdict.warnings:
        response["warnings"] = [warning[:WARNING_LIMIT] for warning in verdict.warnings]
    if verdict.allowed and verdict.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(verdict.patch)).decode()
    return msgspec.json.encode({"apiVersion": version, "kind": "AdmissionReview", "response": response})
