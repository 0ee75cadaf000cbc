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
from reconciler.apiserver.serving import removed_forms
from reconciler.apiserver.store import encode
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse

_PATH = re.compile(r"/apis/([^/]+/[^/]+)(?:/(.*))?")
_RELEASE = re.compile(r"v?1\.(\d+)(\.\d+)?")
_APPLY = "application/apply-patch+yaml"

Send = Callable[[HTTPRequest], Awaitable[HTTPResponse]]


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
        return removed_forms.TO_TODAY.get(self.form, _as_it_is)(doc) | {"apiVersion": self.today}

    def downgraded(self, doc: JSONObject) -> JSONObject:
        """Return a document of today's version, or a list of them, in the removed one."""
        if isinstance(doc.get("items"), list):
            doc = {**doc, "items": [self._item(item) for item in doc["items"]]}
        elif doc.get("apiVersion") == self.today:
            doc = self._item(doc)
        return {**doc, "apiVersion": self.version} if doc.get("apiVersion") == self.today else doc

    def _item(self, doc: JSONObject) -> JSONObject:
        return removed_forms.TO_REMOVED.get(self.form, _as_it_is)(doc) if "spec" in doc or "webhooks" in doc else doc


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
