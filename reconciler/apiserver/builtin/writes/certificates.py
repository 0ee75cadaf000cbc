"""CertificateSigningRequests: their users, their validation, and how they are approved and signed."""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Iterator

from reconciler.apiserver.builtin.writes.strategies import Strategy
from reconciler.apiserver.encoding.refusals import FieldError, forbidden
from reconciler.apiserver.schema.names import form_problems
from reconciler.wire import JSONObject

__all__ = ["CERTIFICATES", "certificate_strategy"]

CERTIFICATES = "certificates.k8s.io"
Findings = Iterator[FieldError]
_PLURAL = "certificatesigningrequests"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_APPROVAL = ("Approved", "Denied")
_FINAL = (*_APPROVAL, "Failed")
_SIGNER_FORM = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
_USAGES = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\n(?P<headers>(?:[^\n:]+: [^\n]*\n)*\n?)([^-]*)-----END \1-----")


def certificate_strategy(subresource: str, user: JSONObject, now: Callable[[], str]) -> Strategy:
    """Return the strategy of requests.

    Args:
        subresource: what is written: ``status``, ``approval``, or empty for the request itself.
        user: who writes it, as a ``UserInfo``.
        now: returns the current time as a timestamp.
    """
    return Strategy(
        complete=functools.partial(_complete, subresource, user, now),
        check=lambda doc, before: list(_check(doc, before, subresource)),
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


_OF_A_USER = ("username", "uid", "groups", "extra")


def _with_times(condition: JSONObject, before: list[JSONObject], now: Callable[[], str]) -> JSONObject:
    """Return a condition with the time of its update and that of its transition."""
    alike = [each for each in before if all(each.get(key) == condition.get(key) for key in ("type", "status"))]
    since = alike[0].get("lastTransitionTime") if alike else None
    return {
        **condition,
        "lastUpdateTime": condition.get("lastUpdateTime") or now(),
        "lastTransitionTime": condition.get("lastTransitionTime") or since or now(),
    }


def _with_approval(conditions: list[JSONObject], before: list[JSONObject]) -> list[JSONObject]:
    """Return conditions with the known ones about the approval, unless some were added or removed."""
    for kind in _APPROVAL:
        old, new = ([each for each in listed if each.get("type") == kind] for listed in (before, conditions))
        if len(old) == len(new):
            kept = iter(old)
            conditions = [next(kept) if each.get("type") == kind else each for each in conditions]
    return conditions


def _check(doc: JSONObject, before: JSONObject | None, subresource: str) -> Findings:
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    yield from _check_spec(spec)
    yield from _check_conditions(status.get("conditions") or [])
    problem = _certificate_problem(_decoded(status.get("certificate")))
    if problem:
        yield FieldError.invalid("status.certificate", "<certificate data>", problem)
    if before is not None:
        yield from _check_update(status, before.get("status") or {}, subresource)
    elif spec.get("signerName") == _CLIENT_SIGNER and b"system:masters" in _der(_decoded(spec.get("request"))):
        words = f"use of {_CLIENT_SIGNER} signer with system:masters group is not allowed"
        raise forbidden(_PLURAL, CERTIFICATES, str(doc["metadata"].get("name", "")), words)


def _check_spec(spec: JSONObject) -> Findings:
    if not _der(_decoded(spec.get("request"))):
        words = "PEM block type must be CERTIFICATE REQUEST"
        yield FieldError.invalid("spec.request", spec.get("request") or None, words)
    usages = spec.get("usages") or []
    if not usages:
        yield FieldError.required("spec.usages")
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            yield FieldError.not_supported(f"spec.usages[{index}]", usage, _USAGES)
    for index, usage in enumerate(usages):
        if usage in usages[:index]:
            yield FieldError.duplicate(f"spec.usages[{index}]", usage)
    yield from _check_signer(spec.get("signerName") or "", "spec.signerName")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        words = "may not specify a duration less than 600 seconds (10 minutes)"
        yield FieldError.invalid("spec.expirationSeconds", seconds, words)


def _check_signer(name: str, path: str) -> Findings:
    domain, *rest = name.split("/")
    if not name:
        yield FieldError.required(path)
    elif name == "kubernetes.io/legacy-unknown":
        yield FieldError.invalid(path, name, "the legacy signerName is not allowed via this API version")
    elif len(rest) != 1:
        yield FieldError.invalid(path, name, _SIGNER_FORM)
    else:
        for label in domain.split("."):
            for problem in form_problems("label", label)[-1:]:
                yield FieldError.invalid(path, domain, f'validating label "{label}": {problem}')
        if "." not in domain:
            yield FieldError.invalid(path, domain, "should be a domain with at least two segments separated by dots")


def _check_conditions(conditions: list[JSONObject]) -> Findings:
    path, seen = "status.conditions", set[str]()
    for index, condition in enumerate(conditions):
        kind, value, place = condition.get("type") or "", condition.get("status"), f"{path}[{index}]"
        if not kind:
            yield FieldError.required(f"{place}.type")
        known = ("True",) if kind in _FINAL else ("False", "True", "Unknown")
        if not value:
            yield FieldError.required(f"{place}.status")
        elif value not in known:
            yield FieldError.not_supported(f"{place}.status", value, known)
        if kind in _APPROVAL and seen & ({*_APPROVAL} - {kind}):
            yield FieldError.invalid(path, kind, "Approved and Denied conditions are mutually exclusive")
        if kind in seen:
            yield FieldError.duplicate(f"{place}.type", kind)
        seen.add(kind)


def _check_update(status: JSONObject, before: JSONObject, subresource: str) -> Findings:
    def counts(kind: str) -> tuple[int, int]:
        old, new = (
            sum(each.get("type") == kind for each in each_status.get("conditions") or ())
            for each_status in (before, status)
        )
        return old, new

    for kind in _FINAL:
        old, new = counts(kind)
        if new < old:
            yield FieldError.forbidden("status.conditions", f'updates may not remove a condition of type "{kind}"')
    for kind in _APPROVAL if subresource != "approval" else ():
        old, new = counts(kind)
        if new > old:
            yield FieldError.forbidden("status.conditions", f'updates may not add a condition of type "{kind}"')
    known = before.get("certificate")
    if known and status.get("certificate") != known:
        yield FieldError.forbidden("status.certificate", "updates may not modify existing certificate content")


def _decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def _der(pem: bytes) -> bytes:
    """Return the content of a certificate request, or nothing; its signature is not checked."""
    found = _PEM.search(pem)
    if found is None or found[1] != b"CERTIFICATE REQUEST":
        return b""
    try:
        return base64.b64decode(found[3])
    except binascii.Error:
        return b""


def _certificate_problem(pem: bytes) -> str:
    """Return what is wrong with the certificates of a status, or nothing."""
    blocks = list(_PEM.finditer(pem))
    for block in blocks:
        if block[1] != b"CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{block[1].decode()}"'
        if block["headers"].strip():
            return "no PEM block headers are permitted"
    return "must contain at least one CERTIFICATE PEM block" if pem and not blocks else ""
