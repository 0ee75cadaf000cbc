"""The rules of roles: what they allow, and which of them others cover."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from reconciler.apiserver.access.attributes import Attributes
from reconciler.apiserver.encoding.text import quoted
from reconciler.wire import JSONObject

__all__ = ["allows", "describe_missing", "missing_rules"]


def _has(rule: JSONObject, member: str, value: str) -> bool:
    values = rule.get(member) or ()
    return "*" in values or value in values


def allows(rule: JSONObject, asked: Attributes) -> bool:
    """Return whether a rule allows a request."""
    if not _has(rule, "verbs", asked.verb):
        return False
    if not asked.resource:
        return any(_path_covers(each, asked.path) for each in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames")
    return (
        _has(rule, "apiGroups", asked.group)
        and _covers_resource(rule, asked.full_resource)
        and (not names or asked.name in names)
    )


def _covers_resource(rule: JSONObject, resource: str) -> bool:
    _, slash, subresource = resource.partition("/")
    return _has(rule, "resources", resource) or (bool(slash) and f"*/{subresource}" in rule["resources"])


def _path_covers(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def missing_rules(held: Sequence[JSONObject], wanted: Iterable[JSONObject]) -> list[JSONObject]:
    """Return the parts of rules that no held rule covers; each has one verb, and one resource or path."""
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(each, part) for each in held)]


def _parts(rule: JSONObject) -> Iterator[JSONObject]:
    names: list[list[str]] = [[name] for name in rule.get("resourceNames") or ()] or [[]]
    resources = (rule.get(member) or () for member in ("apiGroups", "resources", "verbs"))
    for group, resource, verb, name in product(*resources, names):
        yield {"apiGroups": [group], "resources": [resource], "resourceNames": name, "verbs": [verb]}
    for path, verb in product(rule.get("nonResourceURLs") or (), rule.get("verbs") or ()):
        yield {"nonResourceURLs": [path], "verbs": [verb]}


def _covers(held: JSONObject, part: JSONObject) -> bool:
    verb, path, group, resource, name = ("".join(part.get(member) or ()) for member in _MEMBERS)
    return allows(held, Attributes(verb, path, group, resource, name=name))


_MEMBERS = ("verbs", "nonResourceURLs", "apiGroups", "resources", "resourceNames")


def describe_missing(missing: Iterable[JSONObject]) -> str:
    """Return the lines about rules that a user does not have; the verbs of a resource are on one line."""
    merged: dict[tuple[str, ...], JSONObject] = {}
    for part in missing:
        key = tuple(str(part.get(member)) for member in ("apiGroups", "resources", "resourceNames"))
        if "nonResourceURLs" in part or key not in merged:
            merged[(*key, str(len(merged))) if "nonResourceURLs" in part else key] = {**part}
        else:
            merged[key]["verbs"] = merged[key]["verbs"] + part["verbs"]
    return "\n".join(sorted({_described(rule) for rule in merged.values()}))


_SHOWN = {
    "apiGroups": "APIGroups",
    "resources": "Resources",
    "nonResourceURLs": "NonResourceURLs",
    "resourceNames": "ResourceNames",
    "verbs": "Verbs",
}


def _described(rule: JSONObject) -> str:
    parts = (f"{name}:[{' '.join(map(quoted, rule[key]))}]" for key, name in _SHOWN.items() if rule.get(key))
    return f"{{{', '.join(parts)}}}"
