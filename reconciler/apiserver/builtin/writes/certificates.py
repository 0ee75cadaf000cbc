"""CertificateSigningRequests: their users, their validation, and how they are approved and signed."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

from reconciler.apiserver.builtin.rules.kind_checks import APPROVAL, FINAL, content_of_request
from reconciler.apiserver.builtin.rules.table import violations
from reconciler.apiserver.builtin.writes.strategies import Strategy
from reconciler.apiserver.encoding.refusals import FieldError, Findings, Refusal
from reconciler.wire import JSONObject

__all__ = ["CERTIFICATES", "certificate_strategy"]

CERTIFICATES = "certificates.k8s.io"
_PLURAL = "certificatesigningrequests"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_OF_A_USER = ("username", "uid", "groups", "extra")


def certificate_strategy(subresource: str, user: JSONObject, now: Callable[[], str]) -> Strategy:
    """Return the strategy of requests, or of their ``status`` or ``approval``; the user is a ``UserInfo``."""
    return Strategy(
        complete=functools.partial(_complete, subresource, user, now),
        check=lambda doc, before: _check(doc, before, subresource),
    )


def _complete(
    subresource: str, user: JSONObject, now: Callable[[], str], doc: JSONObject, before: JSONObject | None
) -> None:
    if before is None:
        spec = {key: value for key, value in (doc.get("spec") or {}).items() if key not in _OF_A_USER}
        doc["spec"], doc["status"] = {**spec, **user}, {}
        return
    doc["spec"] = before.get("spec")
    if not subresource:
        return
    status, known = doc.get("status") or {}, before.get("status") or {}
    old: list[JSONObject] = known.get("conditions") or []
    conditions = [_with_times(each, old, now) for each in status.get("conditions") or ()]
    if subresource == "status":
        conditions = _with_approval(conditions, old)
    else:
        status = known
    status = {**{key: value for key, value in status.items() if key != "conditions"}}
    doc["status"] = {**status, **({"conditions": conditions} if conditions else {})}


def _with_times(condition: JSONObject, before: list[JSONObject], now: Callable[[], str]) -> JSONObject:
    alike = [each for each in before if all(each.get(key) == condition.get(key) for key in ("type", "status"))]
    since = alike[0].get("lastTransitionTime") if alike else None
    return {
        **condition,
        "lastUpdateTime": condition.get("lastUpdateTime") or now(),
        "lastTransitionTime": condition.get("lastTransitionTime") or since or now(),
    }


def _with_approval(conditions: list[JSONObject], before: list[JSONObject]) -> list[JSONObject]:
    """Return conditions with the known ones about the approval, unless some were added or removed."""
    for kind in APPROVAL:
        old, new = ([each for each in listed if each.get("type") == kind] for listed in (before, conditions))
        if len(old) == len(new):
            kept = iter(old)
            conditions = [next(kept) if each.get("type") == kind else each for each in conditions]
    return conditions


def _check(doc: JSONObject, before: JSONObject | None, subresource: str) -> Findings:
    spec = doc.get("spec") or {}
    yield from violations("certificates.v1.CertificateSigningRequest", doc, None)
    if before is not None:
        yield from _check_update(doc.get("status") or {}, before.get("status") or {}, subresource)
    elif spec.get("signerName") == _CLIENT_SIGNER and b"system:masters" in content_of_request(spec.get("request")):
        words = f"use of {_CLIENT_SIGNER} signer with system:masters group is not allowed"
        raise Refusal.forbidden(_PLURAL, CERTIFICATES, str(doc["metadata"].get("name", "")), words)


def _check_update(status: JSONObject, before: JSONObject, subresource: str) -> Findings:
    old, new = (Counter(each.get("type") for each in shown.get("conditions") or ()) for shown in (before, status))
    for kind in FINAL:
        if new[kind] < old[kind]:
            yield FieldError.forbidden("status.conditions", f'updates may not remove a condition of type "{kind}"')
    for kind in APPROVAL if subresource != "approval" else ():
        if new[kind] > old[kind]:
            yield FieldError.forbidden("status.conditions", f'updates may not add a condition of type "{kind}"')
    known = before.get("certificate")
    if known and status.get("certificate") != known:
        yield FieldError.forbidden("status.certificate", "updates may not modify existing certificate content")
