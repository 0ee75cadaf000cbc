"""The forms of removed versions whose fields differ from today's, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler._core.wire import JSONObject

Form = Callable[[JSONObject], JSONObject]

_PRESERVED = "x-kubernetes-preserve-unknown-fields"
_OF_A_VERSION = ("schema", "subresources", "additionalPrinterColumns")
"""What a definition had once for all versions, and has for each one today; ``schema`` was called ``validation``."""


def _definition_today(doc: JSONObject) -> JSONObject:
    spec = dict(doc.get("spec") or {})
    version, preserves = spec.pop("version", ""), spec.pop("preserveUnknownFields", None) is not False
    common = {"schema": spec.pop("validation", None), "subresources": spec.pop("subresources", None)}
    common["additionalPrinterColumns"] = spec.pop("additionalPrinterColumns", None)
    versions = spec.get("versions") or [{"name": version, "served": True, "storage": True}]
    spec["versions"] = [_version_today({**common, **each}, preserves=preserves) for each in versions]
    if "conversion" in spec:
        spec["conversion"] = _conversion_today(spec["conversion"])
    spec.setdefault("scope", "Namespaced")
    return {**doc, "spec": spec}


def _version_today(version: JSONObject, *, preserves: bool) -> JSONObject:
    found = {key: value for key, value in version.items() if value is not None}
    schema = (found.get("schema") or {}).get("openAPIV3Schema") or {"type": "object", _PRESERVED: True}
    found["schema"] = {"openAPIV3Schema": _structural({"type": "object", **schema}, preserves=preserves, root=True)}
    if columns := found.get("additionalPrinterColumns"):
        found["additionalPrinterColumns"] = [_renamed(each, "JSONPath", "jsonPath") for each in columns]
    return found


def _structural(schema: Any, *, preserves: bool, root: bool = False) -> Any:
    """Return a schema with what is required today: a type, or permission for everything, at each place."""
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    if found.get("additionalProperties") is False or "properties" in found:
        found.pop("additionalProperties", None)
    if "type" not in found and "properties" in found:
        found["type"] = "object"
    if "type" not in found and not found.get("x-kubernetes-int-or-string"):
        found[_PRESERVED] = True
    holds_all = found.get("type") == "object" and "additionalProperties" not in found
    if preserves and holds_all:
        found[_PRESERVED] = True
    for key in ("items", "additionalProperties"):
        if key in found:
            found[key] = _structural(found[key], preserves=preserves)
    if "properties" in found:
        found["properties"] = {
            name: each if root and name == "metadata" else _structural(each, preserves=preserves)
            for name, each in found["properties"].items()
        }
    return found


def _conversion_today(conversion: JSONObject) -> JSONObject:
    found = dict(conversion)
    client, versions = found.pop("webhookClientConfig", None), found.pop("conversionReviewVersions", None)
    if client is not None:
        found["webhook"] = {"clientConfig": client, "conversionReviewVersions": versions or ["v1beta1"]}
    return found


def _definition_removed(doc: JSONObject) -> JSONObject:
    spec = dict(doc.get("spec") or {})
    versions = [_version_removed(each) for each in spec.get("versions") or ()]
    if not versions:
        return doc
    root = (versions[0].get("schema") or {}).get("openAPIV3Schema") or {}
    spec |= {"version": versions[0]["name"], "preserveUnknownFields": bool(root.get(_PRESERVED))}
    for key in _OF_A_VERSION:
        if all(each.get(key) == versions[0].get(key) for each in versions):
            values = [each.pop(key, None) for each in versions]
            if values[0] is not None:
                spec["validation" if key == "schema" else key] = values[0]
    spec["versions"] = versions
    if webhook := (spec.get("conversion") or {}).get("webhook"):
        spec["conversion"] = {
            "strategy": spec["conversion"].get("strategy"),
            "webhookClientConfig": webhook.get("clientConfig"),
            "conversionReviewVersions": webhook.get("conversionReviewVersions"),
        }
    return {**doc, "spec": spec}


def _version_removed(version: JSONObject) -> JSONObject:
    columns = version.get("additionalPrinterColumns")
    renamed = (
        {"additionalPrinterColumns": [_renamed(each, "jsonPath", "JSONPath") for each in columns]} if columns else {}
    )
    return {**version, **renamed}


def _renamed(value: JSONObject, old: str, new: str) -> JSONObject:
    return {new if key == old else key: member for key, member in value.items()}


def _ingress(backend: Form, names: tuple[str, str], path_type: JSONObject) -> Form:
    """Return the form of an Ingress, from the form of its backends and the name of the default one."""

    def converted(doc: JSONObject) -> JSONObject:
        spec = _renamed(doc.get("spec") or {}, *names)
        if names[1] in spec:
            spec[names[1]] = backend(spec[names[1]])
        spec["rules"] = [_with_backends(rule) for rule in spec.get("rules") or ()]
        return {**doc, "spec": {key: value for key, value in spec.items() if value != []}}

    def _with_backends(rule: JSONObject) -> JSONObject:
        paths = [
            {**path_type, **path, "backend": backend(path.get("backend") or {})}
            for path in (rule.get("http") or {}).get("paths") or ()
        ]
        return {**rule, "http": {**rule["http"], "paths": paths}} if paths else rule

    return converted


def _backend_today(backend: JSONObject) -> JSONObject:
    found = dict(backend)
    if "serviceName" in found:
        port = found.pop("servicePort", None)
        numbered = {"number": port} if isinstance(port, int) else {"name": port}
        found["service"] = {"name": found.pop("serviceName"), "port": numbered}
    return found


def _backend_removed(backend: JSONObject) -> JSONObject:
    found = dict(backend)
    if service := found.pop("service", None):
        port = service.get("port") or {}
        found |= {"serviceName": service["name"], "servicePort": port.get("number") or port.get("name")}
    return found


def _workload_today(doc: JSONObject) -> JSONObject:
    """Return a workload with the selector that was the default: the labels of its template."""
    spec = {
        key: value for key, value in (doc.get("spec") or {}).items() if key not in ("rollbackTo", "templateGeneration")
    }
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    return {**doc, "spec": {"selector": {"matchLabels": labels}, **spec} if labels else spec}


def _webhooks_today(doc: JSONObject) -> JSONObject:
    """Return webhooks with the defaults of then, and side effects that are allowed today."""
    defaults = {"failurePolicy": "Ignore", "matchPolicy": "Exact", "timeoutSeconds": 30}
    defaults |= {"admissionReviewVersions": ["v1beta1"]}
    webhooks = [{**defaults, **each} for each in doc.get("webhooks") or ()]
    for each in webhooks:
        if each.get("sideEffects") not in ("None", "NoneOnDryRun"):
            each["sideEffects"] = "NoneOnDryRun"
    return {**doc, "webhooks": webhooks}


TO_TODAY: dict[str, Form] = {
    "definition": _definition_today,
    "ingress": _ingress(_backend_today, ("backend", "defaultBackend"), {"pathType": "ImplementationSpecific"}),
    "workload": _workload_today,
    "webhooks": _webhooks_today,
}
"""From the removed version to today's."""

TO_REMOVED: dict[str, Form] = {
    "definition": _definition_removed,
    "ingress": _ingress(_backend_removed, ("defaultBackend", "backend"), {}),
}
"""From today's version to the removed one. The other forms only lack what is required today."""
