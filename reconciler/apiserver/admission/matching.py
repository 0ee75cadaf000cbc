"""Matching of writes by the rules and selectors of webhooks and policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.apiserver.builtin.rules.checks import selects
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.storage.cluster import Endpoint, Registry
from reconciler.apiserver.verbs.admitted import Admitted
from reconciler.wire import JSONObject

__all__ = ["GROUP", "configured", "endpoint_for", "selected"]

GROUP = "admissionregistration.k8s.io"


def configured(registry: Registry, plural: str) -> Iterator[tuple[str, JSONObject]]:
    """Yield the names and documents of a kind of configuration, in the order of the names."""
    for name, stored in sorted(registry.built_in(plural, GROUP).store.objects.items()):
        yield name, stored.doc


def endpoint_for(rules: Sequence[JSONObject] | None, policy: str | None, write: Admitted) -> Endpoint | None:
    """Return the kind in the version that a rule names, or None if no rule matches the write.

    With the match policy ``Equivalent``, a rule for another version of the kind matches as well.
    """
    asked = write.call.endpoint
    if asked.info.group == GROUP:
        return None  # a broken webhook or policy must not keep its own configuration from being repaired
    if any(_matches(rule, asked, write) for rule in rules or ()):
        return asked
    if policy != "Exact":
        for rule in rules or ():
            for endpoint in asked.resource.endpoints.values():
                if endpoint is not asked and _matches(rule, endpoint, write):
                    return endpoint
    return None


def _matches(rule: JSONObject, endpoint: Endpoint, write: Admitted) -> bool:
    info, scope = endpoint.info, rule.get("scope", "*")
    return (
        scope in ("*", "Namespaced" if info.namespaced else "Cluster")
        and _includes(rule.get("operations"), write.operation)
        and _includes(rule.get("apiGroups"), info.group)
        and _includes(rule.get("apiVersions"), endpoint.version)
        and any(_names(each, info.plural, write.call.subresource) for each in rule.get("resources") or ())
        and (not rule.get("resourceNames") or write.name in rule["resourceNames"])
    )


def _includes(values: Sequence[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _names(pattern: str, plural: str, subresource: str) -> bool:
    """Return whether ``pods``, ``pods/status``, ``pods/*``, ``*/scale``, ``*`` or ``*/*`` names a resource."""
    resource, _, below = pattern.partition("/")
    return resource in ("*", plural) and below in ("*", subresource)


def selected(match: JSONObject, write: Admitted, registry: Registry) -> bool:
    """Return whether the selectors match the namespace (or raise its 404) and the object of a write."""
    wanted, info = match.get("namespaceSelector") or {}, write.call.endpoint.info
    if wanted and (write.call.namespace or (info.plural == "namespaces" and not info.group)):
        # A Namespace is selected by its own labels.
        namespace, document = write.call.namespace, write.doc or write.before
        if namespace:
            found = registry.built_in("namespaces").store.objects.get(namespace)
            if found is None:
                raise Refusal.not_found("namespaces", "", namespace)
            document = found.doc
        if not selects(wanted, _labels_of(document)):
            return False
    wanted = match.get("objectSelector") or {}
    return not wanted or any(selects(wanted, _labels_of(each)) for each in (write.doc, write.before) if each)


def _labels_of(document: JSONObject | None) -> dict[str, Any]:
    return ((document or {}).get("metadata") or {}).get("labels") or {}
