"""Reviews: who a client is, and what it may do. Every client with the server's token may do everything.

A review is answered and never stored. ``kubectl auth can-i`` and programs that check their permissions send them.
"""

from __future__ import annotations

import hmac

from reconciler.apiserver.encoding.refusals import (
    FieldError,
    bad_request,
    cannot_be_handled,
    invalid,
    method_not_allowed,
    no_such_resource,
)
from reconciler.apiserver.requests.bodies import check_size
from reconciler.apiserver.requests.unstored_kinds import read_unstored_object
from reconciler.http import HTTPRequest
from reconciler.wire import JSONObject

__all__ = ["answer_review", "is_review"]

_AUTHENTICATION, _AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"
_KINDS = {
    (_AUTHENTICATION, "selfsubjectreviews"): "SelfSubjectReview",
    (_AUTHENTICATION, "tokenreviews"): "TokenReview",
    (_AUTHORIZATION, "localsubjectaccessreviews"): "LocalSubjectAccessReview",
    (_AUTHORIZATION, "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    (_AUTHORIZATION, "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
    (_AUTHORIZATION, "subjectaccessreviews"): "SubjectAccessReview",
}
_WITHOUT_ATTRIBUTES = ("SelfSubjectReview", "SelfSubjectRulesReview", "TokenReview")
_REASON = "the embedded API server allows everything"
_EVERYTHING = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}
_SELF = {"userInfo": {"username": "system:admin", "groups": ["system:masters", "system:authenticated"]}}


def is_review(path: str) -> bool:
    """Return whether a path belongs to the review groups, even if no such review exists."""
    return path.startswith((f"/apis/{_AUTHENTICATION}/v1/", f"/apis/{_AUTHORIZATION}/v1/"))


def answer_review(request: HTTPRequest, token: str) -> JSONObject:
    """Return the response to a review.

    Args:
        request: the review.
        token: the server's own token, the only one that a TokenReview finds valid.

    Raises:
        Refusal: there is no such review, or its spec is invalid.
    """
    group, _, *rest = request.path.strip("/").split("/")[1:]
    namespace = rest[1] if len(rest) == 3 and rest[0] == "namespaces" else None
    kind = _KINDS.get((group, rest[-1] if rest else ""))
    if kind is None or len(rest) != (3 if kind.startswith("Local") else 1):
        raise no_such_resource()
    if request.method != "POST":
        raise method_not_allowed()
    check_size(request)
    document = read_unstored_object(request, kind)
    _check_kind(document, group, kind)
    spec = document.get("spec") or {}
    if kind == "TokenReview" and not spec.get("token"):
        raise bad_request("token is required for TokenReview in authentication")
    found = [] if kind in _WITHOUT_ATTRIBUTES else _problems(spec, kind)
    if found:
        raise invalid("", group, "", found)
    metadata = {"creationTimestamp": None, **({"namespace": namespace} if namespace else {})}
    answer: JSONObject = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": metadata, "spec": spec}
    if kind == "SelfSubjectReview":
        del answer["spec"]
        return {**answer, "status": _SELF}
    if kind == "SelfSubjectRulesReview":
        if not spec.get("namespace"):
            raise bad_request("no namespace on request")
        return {**answer, "spec": {}, "status": _EVERYTHING}
    if kind == "TokenReview":
        valid = hmac.compare_digest(str(spec["token"]).encode(errors="replace"), token.encode())
        user = {"authenticated": True, "user": _SELF["userInfo"]}
        return {**answer, "status": user if valid else {"user": {}, "error": "invalid bearer token"}}
    return {**answer, "status": {"allowed": True, "reason": _REASON}}


def _check_kind(document: JSONObject, group: str, kind: str) -> None:
    given = str(document.get("kind") or kind)
    version = str(document.get("apiVersion") or f"{group}/v1").rpartition("/")[2]
    if given != kind:
        converting = f"converting ({version}.{given}) to ({group.partition('.')[0]}.{kind}): unknown conversion"
        raise cannot_be_handled(given, version, kind, converting)


def _problems(spec: JSONObject, kind: str) -> list[FieldError]:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    found = []
    if resource and other:
        shown = {key.capitalize(): value for key, value in other.items()}
        words = "cannot be specified in combination with resourceAttributes"
        found.append(FieldError.invalid("spec.nonResourceAttributes", shown, words))
    if not resource and not other:
        words = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        found.append(FieldError.invalid("spec.resourceAttributes", None, words))
    if not kind.startswith("Self") and not spec.get("user") and not spec.get("groups"):
        found.append(FieldError.invalid("spec.user", "", "at least one of user or group must be specified"))
    return found
