"""The checks of single kinds that ``rules.txt`` names."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import urlsplit

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.rule import Check, Place, Rule
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import read_quantity, recorded
from reconciler.apiserver.schema.formats import form_problems, qualified_name_problems

__all__ = ["APPROVAL", "FINAL", "KIND_CHECKS", "content_of_request"]

# CertificateSigningRequests.

APPROVAL = ("Approved", "Denied")
"""The conditions of which a request has at most one."""
FINAL = (*APPROVAL, "Failed")
"""The conditions that cannot be taken back."""
_SIGNER_FORM = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\n(?P<headers>(?:[^\n:]+: [^\n]*\n)*\n?)([^-]*)-----END \1-----")
_KNOWN = {of: frozenset(names) for of, names in recorded("builtin/rules/resources.json").items()}
"""The standard resources of containers and of quotas, and those that are counted."""
_NOT_NEGATIVE = "must be greater than or equal to 0"
_ORDER = (
    ("min", "max", "min", "min"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest"),
    ("min", "default", "default", "min"),
    ("default", "max", "default", "max"),
)
"""Amounts of a limit of which the first is at most the second, the one that errors name, and the one that they show."""
_CALLED = {"defaultRequest": "default request"}
_SCOPED = {"BestEffort": {"pods"}}


def content_of_request(text: str | None) -> bytes:
    """Return the content of a certificate request in base64 of PEM, or nothing; its signature is not checked."""
    found = _PEM.search(base64.b64decode(text or ""))
    if found is None or found[1] != b"CERTIFICATE REQUEST":
        return b""
    try:
        return base64.b64decode(found[3])
    except binascii.Error:
        return b""


def _certificate_request(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    if not content_of_request(value):
        yield FieldError.invalid(path, value or None, "PEM block type must be CERTIFICATE REQUEST")


def _signer_name(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
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


def _certificate_conditions(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
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
    blocks = list(_PEM.finditer(pem))
    for block in blocks:
        if block[1] != b"CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{block[1].decode()}"'
        if block["headers"].strip():
            return "no PEM block headers are permitted"
    return "must contain at least one CERTIFICATE PEM block" if pem and not blocks else ""


# Resources, their amounts and their limits.


def _is_extended(name: str) -> bool:
    """Return whether a resource is not one of Kubernetes itself."""
    domain, slash, _ = name.removeprefix("requests.").partition("/")
    return bool(slash) and "kubernetes.io" not in domain and domain != "count"


def _is_fixed(name: str) -> bool:
    """Return whether a resource cannot be overcommitted."""
    return _is_extended(name) or name.startswith("hugepages-")


def _name_problems(name: str, of: str) -> list[str]:
    problems = qualified_name_problems(name)
    if "/" in name or re.match(r"(requests\.|limits\.)?hugepages-", name):
        return problems
    if not problems and name not in _KNOWN["quota"] | {"storage"}:
        problems = ["must be a standard resource type or fully qualified"]
    return problems + ([] if name in _KNOWN[of] else [f"must be a standard resource for {of}"])


def _resources(rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    """Check the names and the amounts of resources of ``containers`` or a ``quota``; with ``names``, only these."""
    of, *only = rule.arguments
    for name, text in (value or {}).items():
        where, number = f"{path}[{name}]", read_quantity(text)
        yield from (FieldError.invalid(where, name, problem) for problem in _name_problems(name, of))
        if not only and number < 0:
            yield FieldError.invalid(where, text, _NOT_NEGATIVE)
        if not only and number % 1 and (name in _KNOWN["counted"] or _is_extended(name) or name.startswith("count/")):
            yield FieldError.invalid(where, text, "must be an integer")


def _non_negative(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    for name, text in (value or {}).items():
        if read_quantity(text) < 0:
            yield FieldError.invalid(f"{path}.{name}", text, _NOT_NEGATIVE)


def _limited(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    """Check that the requests of a container are at most its limits."""
    limits, requests = value.get("limits") or {}, value.get("requests") or {}
    for name, text in requests.items():
        if name not in limits:
            if _is_fixed(name):
                yield FieldError.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
            continue
        asked, most = read_quantity(text), read_quantity(limits[name])
        if asked > most or (_is_fixed(name) and asked != most):
            word = "equal to" if _is_fixed(name) else "less than or equal to"
            yield FieldError.invalid(f"{path}.requests", text, f"must be {word} {name} limit of {limits[name]}")
    names = limits.keys() | requests.keys()
    if any(name.startswith("hugepages-") for name in names) and not names & {"cpu", "memory"}:
        yield FieldError.forbidden(path, "HugePages require cpu or memory")


def _limit_range(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    """Check the order of the amounts of a limit."""
    amounts = {key: value.get(key) or {} for key in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")}
    for name in dict.fromkeys(name for each in amounts.values() for name in each):
        found = {key: each[name] for key, each in amounts.items() if name in each}
        for low, high, at, show in _ORDER:
            if low in found and high in found and read_quantity(found[low]) > read_quantity(found[high]):
                most = "default limit" if low == "defaultRequest" and high == "default" else _CALLED.get(high, high)
                text = f"{_CALLED.get(low, low)} value {found[low]} is greater than {most} value {found[high]}"
                yield FieldError.invalid(f"{path}.{at}[{name}]", found[show], text)
        ratio = found.get("maxLimitRequestRatio")
        if ratio and read_quantity(ratio) < 1:
            where = f"{path}.maxLimitRequestRatio[{name}]"
            yield FieldError.invalid(where, ratio, f"ratio {ratio} is less than 1")


def _scoped(_rule: Rule, place: Place, value: Any, _path: str) -> Findings:
    """Check that a resource of a quota can have its scopes."""
    scopes = place.value.get("scopes") or ()
    for scope in scopes:
        allowed = _SCOPED.get(scope, _KNOWN["quota"] - _KNOWN["counted"] | {"pods"})
        if value in _KNOWN["quota"] - allowed:
            yield FieldError.invalid(f"{place.path}.scopes", scopes, "unsupported scope applied to resource")


# Webhook configurations and policies.


def _webhook_resources(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    """Check that no resource of a rule is covered by another one."""
    whole: set[str] = set()
    everywhere: set[str] = set()
    resources: list[str] = value or []
    for index, resource in enumerate(resources):
        plural, slash, below = resource.partition("/")
        if not slash:
            continue
        for covered, name in ((plural in whole, f"{plural}/*"), (below in everywhere, f"*/{below}")):
            if covered:
                words = f"if '{name}' is present, must not specify {resource}"
                yield FieldError.invalid(f"{path}[{index}]", resource, words)
        whole |= {plural} if below == "*" else set()
        everywhere |= {below} if plural == "*" else set()
    if "*" in resources and any("/" not in each and each != "*" for each in resources):
        words = "if '*' is present, must not specify other resources without subresources"
        yield FieldError.invalid(path, value, words)


def _webhook_url(_rule: Rule, _place: Place, value: Any, path: str) -> Findings:
    parts, form = urlsplit(value or "https://host"), "; desired format: https://host[/path]"
    user, at, _ = parts.netloc.rpartition("@")
    for wrong, shown, words in (
        (parts.scheme != "https", parts.scheme, f"'https' is the only allowed URL scheme{form}"),
        (not parts.netloc, "", f"host must be specified{form}"),
        (at, user, "user information is not permitted in the URL"),
        (parts.fragment, parts.fragment, "fragments are not permitted in the URL"),
        (parts.query, parts.query, "query parameters are not permitted in the URL"),
    ):
        if wrong:
            yield FieldError.invalid(path, shown, words)


KIND_CHECKS: tuple[Check, ...] = (
    *(_certificate, _certificate_conditions, _certificate_request, _signer_name),
    *(_limit_range, _limited, _non_negative, _resources, _scoped),
    *(_webhook_resources, _webhook_url),
)
