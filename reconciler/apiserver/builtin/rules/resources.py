"""The checks of resources, their amounts and their limits that ``rules.txt`` names."""

from __future__ import annotations

import re
from typing import Any

from reconciler.apiserver.builtin.rules.rule import Check, Place, Rule
from reconciler.apiserver.encoding.quantities import read_quantity
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.schema.names import qualified_name_problems

__all__ = ["RESOURCE_CHECKS"]

_COMPUTE = {"cpu", "memory", "ephemeral-storage"}
_COUNTED = {
    *("configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets"),
    *("services", "services.loadbalancers", "services.nodeports"),
}
_KNOWN = {
    "containers": _COMPUTE,
    "quota": _COMPUTE
    | _COUNTED
    | {"requests.storage", *(f"{part}.{name}" for part in ("requests", "limits") for name in _COMPUTE)},
}
_NOT_NEGATIVE = "must be greater than or equal to 0"


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
        if not only and number % 1 and (name in _COUNTED or _is_extended(name) or name.startswith("count/")):
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


_SCOPED = {"BestEffort": {"pods"}}


def _scoped(_rule: Rule, place: Place, value: Any, _path: str) -> Findings:
    """Check that a resource of a quota can have its scopes."""
    scopes = place.value.get("scopes") or ()
    for scope in scopes:
        allowed = _SCOPED.get(scope, _KNOWN["quota"] - _COUNTED | {"pods"})
        if value in _KNOWN["quota"] - allowed:
            yield FieldError.invalid(f"{place.path}.scopes", scopes, "unsupported scope applied to resource")


RESOURCE_CHECKS: dict[str, Check] = {
    "limit-range": _limit_range,
    "limited": _limited,
    "non-negative": _non_negative,
    "resources": _resources,
    "scoped": _scoped,
}
