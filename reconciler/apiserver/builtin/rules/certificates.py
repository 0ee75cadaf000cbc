"""The checks of CertificateSigningRequests that ``rules.txt`` names."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from reconciler.apiserver.builtin.rules.rule import Check, Place, Rule
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.schema.names import form_problems
from reconciler.wire import JSONObject

__all__ = ["APPROVAL", "CERTIFICATE_CHECKS", "FINAL", "content_of_request"]

APPROVAL = ("Approved", "Denied")
"""The conditions of which a request has at most one."""
FINAL = (*APPROVAL, "Failed")
"""The conditions that cannot be taken back."""
_SIGNER_FORM = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\n(?P<headers>(?:[^\n:]+: [^\n]*\n)*\n?)([^-]*)-----END \1-----")


def content_of_request(text: str | None) -> bytes:
    """Return the content of a certificate request in base64 of PEM, or nothing; its signature is not checked."""
    found = _PEM.search(base64.b64decode(text or ""))
    if found is None or found[1] != b"CERTIFICATE REQUEST":
        return b""
    try:
        return base64.b64decode(found[3])
    except binascii.Error:
        return b""


def _request(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    if not content_of_request(value):
        yield FieldError.invalid(path, value or None, "PEM block type must be CERTIFICATE REQUEST")


def _signer(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    name = value or ""
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


def _conditions(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    conditions: list[JSONObject] = value or []
    seen = set[str]()
    for index, condition in enumerate(conditions):
        kind, value, place = condition.get("type") or "", condition.get("status"), f"{path}[{index}]"
        if not kind:
            yield FieldError.required(f"{place}.type")
        known = ("True",) if kind in FINAL else ("False", "True", "Unknown")
        if not value:
            yield FieldError.required(f"{place}.status")
        elif value not in known:
            yield FieldError.not_supported(f"{place}.status", value, known)
        if kind in APPROVAL and seen & ({*APPROVAL} - {kind}):
            yield FieldError.invalid(path, kind, "Approved and Denied conditions are mutually exclusive")
        if kind in seen:
            yield FieldError.duplicate(f"{place}.type", kind)
        seen.add(kind)


def _certificate(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    """Check the certificates of a status; the error does not show them."""
    problem = _certificate_problem(base64.b64decode(value or ""))
    if problem:
        yield FieldError.invalid(path, "<certificate data>", problem)


def _certificate_problem(pem: bytes) -> str:
    """Return what is wrong with the certificates of a status, or nothing."""
    blocks = list(_PEM.finditer(pem))
    for block in blocks:
        if block[1] != b"CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{block[1].decode()}"'
        if block["headers"].strip():
            return "no PEM block headers are permitted"
    return "must contain at least one CERTIFICATE PEM block" if pem and not blocks else ""


CERTIFICATE_CHECKS: dict[str, Check] = {
    "certificate": _certificate,
    "certificate-conditions": _conditions,
    "certificate-request": _request,
    "signer-name": _signer,
}
