"""The discovery endpoints: versions, groups, resources, health, and OpenAPI documents.

The OpenAPI documents of the built-in kinds are recorded from a real API server. kubectl reads definitions of OpenAPI 2
in protobuf; ``openapi_protobuf.json`` has the number and the form of each field of the message Schema in the protocol
of gnostic.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import lzma
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cluster import CustomContents, Endpoint, Registry
from reconciler.apiserver.encoding.protobuf import write_field
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import data_file, recorded
from reconciler.apiserver.encoding.versions import NEWEST, in_version, recorded_for
from reconciler.apiserver.store import encode

_EXTENSION = 31
_REF = "#/components/schemas/"
_GVK = "x-kubernetes-group-version-kind"
_ONLY_IN_V3 = frozenset({"default", "nullable", "oneOf", "anyOf", "not", "x-kubernetes-validations"})


def encode_definitions(info: JSONObject, definitions: Mapping[str, JSONObject]) -> bytes:
    """Return a Document with definitions and without paths; without `info`, a part that is appended to another one."""
    named = write_field(9, _named_schemas(definitions)) if definitions else b""
    if not info:
        return named
    head = _encode_text(1, str(info["title"])) + _encode_text(2, str(info["version"]))
    return _encode_text(1, "2.0") + write_field(2, head) + named


def _encode_text(number: int, text: str) -> bytes:
    return write_field(number, text.encode())


def _named_schemas(schemas: Mapping[str, JSONObject]) -> bytes:
    encoded = (_encode_text(1, name) + write_field(2, _encode_schema(schema)) for name, schema in schemas.items())
    return b"".join(write_field(1, each) for each in encoded)


def _any(value: Any) -> bytes:
    """Return a value as YAML, of which JSON is a part."""
    return _encode_text(2, json.dumps(value) + "\n")


def _encode_schema(schema: JSONObject) -> bytes:
    return b"".join(_member(key, value) for key, value in schema.items())


def _member(key: str, value: Any) -> bytes:
    if key.startswith("x-"):
        return write_field(_EXTENSION, _encode_text(1, key) + write_field(2, _any(value)))
    number, form = recorded("serving/openapi_protobuf.json").get(key, (0, ""))
    return _ENCODERS[form](number, value) if form else b""


def _additional(number: int, value: Any) -> bytes:
    return write_field(number, write_field(2, 1) if value is True else write_field(1, _encode_schema(value or {})))


_ENCODERS: dict[str, Callable[[int, Any], bytes]] = {
    "additional": _additional,
    "any": lambda number, value: write_field(number, _any(value)),
    "double": lambda number, value: bytes([number << 3 | 1]) + struct.pack("<d", value),
    "items": lambda number, value: write_field(number, write_field(1, _encode_schema(value))),
    "number": lambda number, value: write_field(number, int(value)),
    "properties": lambda number, value: write_field(number, _named_schemas(value)),
    "schemas": lambda number, value: b"".join(write_field(number, _encode_schema(each)) for each in value),
    "text": _encode_text,
    "texts": lambda number, value: b"".join(_encode_text(number, each) for each in value),
    "type": lambda number, value: write_field(number, _encode_text(1, value)),
    "values": lambda number, value: b"".join(write_field(number, _any(each)) for each in value),
}


@functools.cache
def _newest_documents() -> dict[str, msgspec.Raw]:
    """Return the documents of a real server, by path below ``/openapi``; unpacked only when a client asks for one."""
    packed = data_file("serving/openapi.json.xz")
    return msgspec.json.decode(lzma.decompress(packed), type=dict[str, msgspec.Raw])


@functools.lru_cache(maxsize=16)
def _recorded_document(name: str, release: str) -> Any:
    """Return a decoded document: ``v2``, or ``template`` of two custom kinds, whose names start with ``Zz``.

    None if a server of the Kubernetes version does not serve it.
    """
    newest = _newest_documents()
    return in_version(msgspec.json.decode(newest[name]), f"openapi/{name}", release) if name in newest else None


@functools.cache
def _recorded_protobuf(release: str) -> bytes:
    swagger = _recorded_document("v2", release)
    return encode_definitions(swagger["info"], swagger["definitions"])


def _document(endpoints: list[Endpoint]) -> JSONObject:
    template = _recorded_document("template", endpoints[0].info.release)
    scaled = any("scale" in endpoint.subresources for endpoint in endpoints)
    left_out = ("example.",) if scaled else ("example.", "io.k8s.api.autoscaling.")
    schemas = {k: schema for k, schema in template["components"]["schemas"].items() if not k.startswith(left_out)}
    paths: JSONObject = {}
    for endpoint in endpoints:
        paths |= _filled(endpoint, {path: item for path, item in template["paths"].items() if _serves(endpoint, path)})
        schemas |= _schemas(endpoint)
    return {**template, "paths": _sorted(paths), "components": {"schemas": _sorted(schemas)}}


def _sorted(members: JSONObject) -> JSONObject:
    return {name: members[name] for name in sorted(members)}


def _placeholder(endpoint: Endpoint) -> str:
    return "Zznamespaced" if endpoint.info.namespaced else "Zzcluster"


def _serves(endpoint: Endpoint, path: str) -> bool:
    subresource = path.partition("{name}/")[2]
    return f"/{_placeholder(endpoint).lower()}s" in path and (not subresource or subresource in endpoint.subresources)


def _filled(endpoint: Endpoint, part: JSONObject) -> JSONObject:
    info, version, kind, text = endpoint.info, endpoint.version, _placeholder(endpoint), encode(part).decode()
    group = info.group.removesuffix(".k8s.io")
    for placeholder, name in (
        ("templateExample_vtemplate", f"{_identifier(group)}_{_identifier(version)}"),
        ("TemplateExampleVtemplate", _identifier(f".{group}.{version}")),
        ("example.template.vtemplate", f"{'.'.join(reversed(info.group.split('.')))}.{version}"),
        ("template.example", info.group),
        ("vtemplate", version),
        (f"{kind}List", info.list_kind),
        (f"{kind.lower()}s", info.plural),
        (kind, info.kind),
    ):
        text = text.replace(placeholder, name)
    return msgspec.json.decode(text, type=dict[str, Any])


def _identifier(name: str) -> str:
    """Return a name as a part of an operation's id: without other signs, and a capital letter after each of them."""
    return re.sub(r"[^\w]+(\w)", lambda found: found[1].upper(), name)


def _schemas(endpoint: Endpoint) -> JSONObject:
    kind, contents = f"example.template.vtemplate.{_placeholder(endpoint)}", endpoint.contents
    known = _recorded_document("template", endpoint.info.release)["components"]["schemas"]
    filled = _filled(endpoint, {name: known[name] for name in (kind, f"{kind}List")})
    name, of_list = filled
    whole: JSONObject = contents.schema if isinstance(contents, CustomContents) else {"type": "object"}
    properties = {**(whole.get("properties") or {}), **filled[name]["properties"]}
    schema = {**whole, "properties": _sorted(properties), _GVK: filled[name][_GVK]}
    return {name: schema, of_list: filled[of_list]}


def _downgraded(schema: Any) -> Any:
    """Return a schema in the terms of OpenAPI 2, without what it cannot express."""
    if isinstance(schema, list):
        return [_downgraded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema.replace(_REF, "#/definitions/") if isinstance(schema, str) else schema
    if reference := [each["$ref"] for each in schema.get("allOf", ()) if "$ref" in each]:
        return {"description": schema.get("description", ""), "$ref": _downgraded(reference[0])}
    kept = {key: value for key, value in schema.items() if key not in _ONLY_IN_V3}
    if schema.get("nullable") or schema.get("x-kubernetes-int-or-string"):
        kept = {key: value for key, value in kept.items() if key not in ("type", "items", "properties", "format")}
    if schema.get(_OPEN):
        closed = {"items", "properties", *(["type"] if schema.get("type") in ("array", "object") else [])}
        kept = {key: value for key, value in kept.items() if key not in closed}
    return {
        key: {name: _downgraded(each) for name, each in value.items()} if key == "properties" else _downgraded(value)
        for key, value in kept.items()
    }


_OPEN = "x-kubernetes-preserve-unknown-fields"
_VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_SWAGGER_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def _component(name: str = "", *_below: str) -> JSONObject:
    """Return the status of a component, or the list of all. Only the storage is healthy: nothing else runs."""
    components: list[JSONObject] = recorded("serving/discovery.json")["components"]
    if not name:
        return {"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": components}
    for component in components:
        if component["metadata"]["name"] == name:
            return {"kind": "ComponentStatus", "apiVersion": "v1", **component}
    raise Refusal.not_found("componentstatus", "", name)


def _health(kind: str, check: str, query: Mapping[str, str]) -> bytes:
    """Return the text about all checks of a kind, or about one; they succeed as long as the server answers."""
    checks: list[str] = recorded("serving/discovery.json")["checks"][kind]
    if check and check not in checks:
        raise Refusal.not_served()
    if check or "verbose" not in query:
        return b"ok"
    excluded = query.get("exclude", "")
    lines = (f"[+]{each} {'excluded: ' if each == excluded else ''}ok\n" for each in checks)
    return f"{''.join(lines)}{kind} check passed\n".encode()


class DiscoveryDocuments:
    """The discovery documents of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._release = registry.release

    def answer(self, path: str, query: Mapping[str, str], accept: str) -> tuple[JSONObject | bytes, str]:
        """Return the document, or the whole body, for a path, and its media type; raise the 404 if it is not served."""
        parts = [part for part in path.split("/") if part]
        if parts[:1] == ["openapi"]:
            return self._openapi_document("/".join(parts[1:]), accept)
        if parts and parts[0] in ("healthz", "readyz", "livez"):
            return _health(parts[0], "/".join(parts[1:]), query), "text/plain; charset=utf-8"
        if parts in ([], ["version"]):
            shown = recorded_for("serving/discovery.json", self._release)["version" if parts else "root"]
            return json.dumps(shown, indent=2).encode(), "application/json"
        if parts in (["api"], ["apis"]) and "as=APIGroupDiscoveryList" in accept:
            return self._aggregated(core=parts == ["api"]), _AGGREGATED
        if parts[:3] == ["api", "v1", "componentstatuses"]:
            return _component(*parts[3:]), "application/json"
        return self._document(parts), "application/json"

    def _openapi_document(self, path: str, accept: str) -> tuple[bytes, str]:
        if path == "v2" and accept.startswith(_SWAGGER_PROTOBUF):
            # Encoded documents that follow each other are one document.
            whole = _recorded_protobuf(self._release) + encode_definitions({}, self._custom_definitions())
            return whole, _SWAGGER_PROTOBUF.replace("@", ".")
        if path == "v2":  # paths of the built-in kinds, definitions of all
            known = _recorded_document("v2", self._release)
            definitions = {**known["definitions"], **self._custom_definitions()}
            return encode({**known, "definitions": definitions}), "application/json"
        if path == "v3":
            return encode(self._index()), "application/json"
        path = path.removeprefix("v3/")
        if endpoints := self._custom().get(path):
            return encode(_document(endpoints)), "application/json"
        if self._release == NEWEST and f"v3/{path}" in _newest_documents():
            return bytes(_newest_documents()[f"v3/{path}"]), "application/json"  # byte for byte
        document = _recorded_document(f"v3/{path}", self._release)
        if document is None:
            raise Refusal.not_served()
        return encode(document), "application/json"

    def _custom(self) -> dict[str, list[Endpoint]]:
        versions = self._registry.custom_versions().items()
        return {f"apis/{group}/{version}": endpoints for (group, version), endpoints in versions}

    def _index(self) -> JSONObject:
        """Return the index of the documents."""
        paths = dict(_recorded_document("v3", self._release)["paths"])
        for path, endpoints in self._custom().items():
            digest = hashlib.sha512(encode(_document(endpoints))).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": {path: paths[path] for path in sorted(paths)}}

    def _custom_definitions(self) -> JSONObject:
        endpoints = [endpoint for served in self._custom().values() for endpoint in served]
        schemas = {name: schema for endpoint in endpoints for name, schema in _schemas(endpoint).items()}
        # Without even the metadata, since kubectl would refuse everything else.
        return {
            name: {"type": "object", _GVK: schema[_GVK]} if schema.get(_OPEN) else _downgraded(schema)
            for name, schema in schemas.items()
        }

    def _document(self, parts: list[str]) -> JSONObject:
        if parts == ["api"]:
            apis: JSONObject = recorded("serving/discovery.json")["api"]
            return apis
        groups = {str(group["metadata"].get("name", "")): group for group in self._groups()}
        if parts == ["apis"]:
            listed = [_group(name, group) for name, group in groups.items() if name]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        root, *rest = parts
        name = rest.pop(0) if root == "apis" else ""
        group = groups.get(name) if root in ("api", "apis") else None
        if group is not None and not rest:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, group)}
        for version in group["versions"] if group is not None else ():
            if rest == [version["version"]]:
                return _resource_list(name, version)
        known = len(rest) == 1 and (root == "api" or (root == "apis" and self._registry.is_built_in(name, rest[0])))
        raise Refusal.no_such_resource() if known else Refusal.not_served()

    def _groups(self) -> list[JSONObject]:
        """Return all groups as in aggregated discovery: those of the real server, and custom ones by name."""
        custom: dict[str, JSONObject] = {}
        for (name, version), endpoints in self._registry.custom_versions().items():
            group = custom.setdefault(name, {"metadata": {"name": name}, "versions": []})
            resources = [*map(_resource, endpoints)]
            group["versions"].append({"version": version, "resources": resources, "freshness": "Current"})
        return [*recorded_for("builtin/discovery.json", self._release), *(custom[name] for name in sorted(custom))]

    def _aggregated(self, *, core: bool) -> JSONObject:
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": [_aggregated(group) for group in self._groups() if ("name" in group["metadata"]) is not core],
        }


def _aggregated(group: JSONObject) -> JSONObject:
    """Return a group without what only the older form of discovery shows."""

    def shown(resource: JSONObject) -> JSONObject:
        return {key: value for key, value in resource.items() if key != "storageVersionHash"}

    versions = [{**each, "resources": [*map(shown, each["resources"])]} for each in group["versions"]]
    return {**group, "versions": versions}


def _group(name: str, group: JSONObject) -> JSONObject:
    versions = [str(version["version"]) for version in group["versions"]]
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resource_list(group: str, version: JSONObject) -> JSONObject:
    """Return the resources of a version in the older form of discovery."""
    listed: list[JSONObject] = []
    for resource in version["resources"]:
        name, namespaced, about = resource["resource"], resource["scope"] == "Namespaced", resource["responseKind"]
        shown = {"name": name, "singularName": resource["singularResource"], "namespaced": namespaced}
        shown |= {"kind": about["kind"], "verbs": resource["verbs"]}
        optional = ("shortNames", "categories", "storageVersionHash")
        listed.append(shown | {key: resource[key] for key in optional if key in resource})
        for subresource in resource.get("subresources", ()):
            below = subresource["responseKind"]
            other = (below["kind"] != about["kind"] and below["group"]) or below["version"]
            place = {key: below[key] for key in ("group", "version") if below[key]} if other else {}
            shown = {"name": f"{name}/{subresource['subresource']}", "singularName": "", "namespaced": namespaced}
            listed.append({**shown, **place, "kind": below["kind"], "verbs": subresource["verbs"]})
    head = {"kind": "APIResourceList", **({"apiVersion": "v1"} if group else {})}
    group_version = f"{group}/{version['version']}" if group else version["version"]
    return {**head, "groupVersion": group_version, "resources": listed}


def _resource(endpoint: Endpoint) -> JSONObject:
    info = endpoint.info
    kind = {"group": info.group, "version": endpoint.version, "kind": info.kind}
    entry: JSONObject = {
        "resource": info.plural,
        "responseKind": kind,
        "scope": "Namespaced" if info.namespaced else "Cluster",
        "singularResource": info.singular,
        "verbs": _VERBS,
    }
    members = {"shortNames": [*info.short_names], "categories": [*info.categories]}
    entry |= {name: values for name, values in members.items() if values}
    stored = f"{info.group}/{endpoint.resource.storage}/{info.kind}"
    entry["storageVersionHash"] = base64.b64encode(hashlib.sha256(stored.encode()).digest()[:8]).decode()
    if endpoint.subresources:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        kinds = {name: scale if name == "scale" else kind for name in sorted(endpoint.subresources)}
        verbs = ["get", "patch", "update"]
        entry["subresources"] = [
            {"subresource": name, "responseKind": about, "verbs": verbs} for name, about in kinds.items()
        ]
    return entry
