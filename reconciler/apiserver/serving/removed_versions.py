"""Versions of kinds that Kubernetes has removed, served as views of today's versions.

A request for a removed version becomes one for today's, and the documents of its response become those of the removed
version. So each object is stored once, and every version shows it. ``removed_versions.json`` has the versions, until
when Kubernetes served them, and the forms of those whose fields differ.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.store import encode
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse

_PATH = re.compile(r"/apis/([^/]+/[^/]+)(?:/(.*))?")
_RELEASE = re.compile(r"v?1\.(\d+)(\.\d+)?")
_APPLY = "application/apply-patch+yaml"

Send = Callable[[HTTPRequest], Awaitable[HTTPResponse]]
Form = Callable[[JSONObject], JSONObject]


@dataclass(frozen=True)
class _View:
    """A removed version of some resources."""

    version: str
    until: str
    today: str
    resources: frozenset[str]
    form: str = ""

    def upgraded(self, doc: JSONObject) -> JSONObject:
        """Return a document of the removed version in today's."""
        return _TO_TODAY.get(self.form, _as_it_is)(doc) | {"apiVersion": self.today}

    def downgraded(self, doc: JSONObject) -> JSONObject:
        """Return a document of today's version, or a list of them, in the removed one."""
        if isinstance(doc.get("items"), list):
            doc = {**doc, "items": [self._item(item) for item in doc["items"]]}
        elif doc.get("apiVersion") == self.today:
            doc = self._item(doc)
        return {**doc, "apiVersion": self.version} if doc.get("apiVersion") == self.today else doc

    def _item(self, doc: JSONObject) -> JSONObject:
        return _TO_REMOVED.get(self.form, _as_it_is)(doc) if "spec" in doc or "webhooks" in doc else doc


def _as_it_is(doc: JSONObject) -> JSONObject:
    return doc


def _minor(release: str) -> int:
    found = _RELEASE.fullmatch(release)
    return int(found[1]) if found is not None else -1


def _views() -> list[_View]:
    return [_View(**{**row, "resources": frozenset(row["resources"])}) for row in recorded("removed_versions.json")]


def upgraded_definition(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document; a CustomResourceDefinition of the removed version is returned in today's."""
    if document.get("apiVersion") != "apiextensions.k8s.io/v1beta1":
        return document
    return next(view for view in _views() if view.version == document["apiVersion"]).upgraded(dict(document))


class RemovedVersions:
    """The versions that a release of Kubernetes, such as ``"1.21"``, served, and that today's does not.

    Raises:
        ConfigurationError: it is not a release of which versions were removed.
    """

    def __init__(self, release: str) -> None:
        self._views: dict[tuple[str, str], _View] = {}
        minor = _minor(release)
        for view in _views():
            if 0 <= minor <= _minor(view.until):
                self._views |= {(view.version, resource): view for resource in view.resources}
        if not self._views:
            last = max((view.until for view in _views()), key=_minor)
            raise ConfigurationError(
                f"served_until={release!r} adds no version: name a release of Kubernetes up to {last}, such as '1.21'"
            )
        self._versions = {version for version, _ in self._views}

    def upgraded(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a document in today's version."""
        kind = str(document.get("kind", "")).lower()
        for (version, resource), view in self._views.items():
            if version == document.get("apiVersion") and resource in (f"{kind}s", f"{kind}es", f"{kind[:-1]}ies"):
                return view.upgraded(dict(document))
        return document

    async def send(self, request: HTTPRequest, send: Send) -> HTTPResponse:
        """Return the response to a request, in the version that it asks for."""
        found = _PATH.fullmatch(request.path)
        version, rest = (found[1], found[2] or "") if found is not None else ("", "")
        if version in self._versions and not rest:
            return await self._resources(request, version, send)
        view = self._views.get((version, _resource_of(rest)))
        if view is not None:
            response = await send(_upgraded_request(replace(request, path=f"/apis/{view.today}/{rest}"), view))
            return _downgraded_response(response, view)
        if request.path == "/apis" or re.fullmatch(r"/apis/[^/]+", request.path):
            return await self._groups(request, send)
        return await send(request)

    async def _resources(self, request: HTTPRequest, version: str, send: Send) -> HTTPResponse:
        """Return the discovery document of a removed version."""
        resources = []
        for today in sorted({view.today for (name, _), view in self._views.items() if name == version}):
            asked = {
                resource for (name, resource), view in self._views.items() if (name, view.today) == (version, today)
            }
            response = await send(replace(request, path=f"/apis/{today}", headers=_plain(request.headers)))
            found = msgspec.json.decode(response.body).get("resources") or ()
            resources += [each for each in found if each["name"].partition("/")[0] in asked]
        document = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        return HTTPResponse(200, {"content-type": "application/json"}, encode(document))

    async def _groups(self, request: HTTPRequest, send: Send) -> HTTPResponse:
        """Return a discovery document of groups, with the removed versions at their ends."""
        response = await send(replace(request, headers=_plain(request.headers)))
        asked = request.path.removeprefix("/apis").strip("/")
        if response.status == 200:
            document = msgspec.json.decode(response.body)
        elif any(version.startswith(f"{asked}/") for version in self._versions):
            document = {"kind": "APIGroup", "apiVersion": "v1", "name": asked, "versions": []}
        else:
            return response
        groups = {group["name"]: group for group in document.get("groups", [document])}
        for version in sorted(self._versions):
            name, _, last = version.partition("/")
            if asked in ("", name):
                group = groups.setdefault(name, {"name": name, "versions": []})
                group["versions"].append({"groupVersion": version, "version": last})
                group.setdefault("preferredVersion", group["versions"][0])
        if "groups" in document:
            document["groups"] = list(groups.values())
        return HTTPResponse(200, {"content-type": "application/json"}, encode(document))


def _resource_of(rest: str) -> str:
    """Return the plural name in the path behind a version."""
    parts = rest.removeprefix("watch/").split("/")
    return parts[2] if parts[0] == "namespaces" and len(parts) > 2 else parts[0]


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "accept": "application/json"}


def _upgraded_request(request: HTTPRequest, view: _View) -> HTTPRequest:
    if "protobuf" in request.headers.get("accept", ""):
        request = replace(request, headers=_plain(request.headers))
    try:
        doc = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return request  # it is empty or has another form, and is answered as for today's version
    if not isinstance(doc, dict) or doc.get("apiVersion", view.version) != view.version:
        return request
    partial = request.method == "PATCH" and request.headers.get("content-type") != _APPLY
    if partial or request.method == "DELETE":
        doc = {**doc, "apiVersion": view.today} if "apiVersion" in doc else doc
    else:
        doc = view.upgraded(doc)
    return replace(request, body=encode(doc))


def _downgraded_response(response: HTTPResponse, view: _View) -> HTTPResponse:
    if response.chunks is not None:
        response.chunks = _downgraded_events(response.chunks, view)
    elif response.body[:1] == b"{":
        response.body = encode(view.downgraded(msgspec.json.decode(response.body))) + b"\n"
    return response


async def _downgraded_events(chunks: AsyncIterator[bytes], view: _View) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            event = msgspec.json.decode(line)
            yield encode({**event, "object": view.downgraded(event["object"])}) + b"\n"


# the forms of versions whose fields differ from today's

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


_TO_TODAY: dict[str, Form] = {
    "definition": _definition_today,
    "ingress": _ingress(_backend_today, ("backend", "defaultBackend"), {"pathType": "ImplementationSpecific"}),
    "workload": _workload_today,
    "webhooks": _webhooks_today,
}
"""From the removed version to today's."""

_TO_REMOVED: dict[str, Form] = {
    "definition": _definition_removed,
    "ingress": _ingress(_backend_removed, ("defaultBackend", "backend"), {}),
}
"""From today's version to the removed one. The other forms only lack what is required today."""
