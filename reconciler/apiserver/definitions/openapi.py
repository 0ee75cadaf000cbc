"""OpenAPI documents of the served kinds, for ``kubectl explain``, ``kubectl apply`` and code generators.

Those of the built-in kinds are recorded from a real API server.
"""

from __future__ import annotations

import functools
import hashlib
import lzma
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.apiserver.encoding.data_files import data_file
from reconciler.apiserver.encoding.openapi_protobuf import encode_definitions
from reconciler.apiserver.storage.custom_contents import CustomContents
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.apiserver.storage.store import encode
from reconciler.wire import JSONObject

__all__ = ["OpenAPI"]

_REF = "#/components/schemas/"


@functools.cache
def _recorded() -> dict[str, msgspec.Raw]:
    """Return the documents of a real server, by path below ``/openapi``; unpacked only when a client asks for one."""
    packed = data_file("definitions/openapi.json.xz")
    return msgspec.json.decode(lzma.decompress(packed), type=dict[str, msgspec.Raw])


@functools.cache
def _recorded_document(name: str) -> JSONObject:
    """Return a decoded document: ``v2``, or ``template`` of two custom kinds, whose names start with ``Zz``."""
    document: JSONObject = msgspec.json.decode(_recorded()[name])
    return document


@functools.cache
def _recorded_protobuf() -> bytes:
    swagger = _recorded_document("v2")
    return encode_definitions(swagger["info"], swagger["definitions"])


@dataclass(frozen=True, slots=True)
class OpenAPI:
    """The OpenAPI documents of a registry."""

    registry: Registry

    def _custom(self) -> dict[str, list[Endpoint]]:
        """Return the versions of custom groups by path."""
        found: dict[str, list[Endpoint]] = {}
        for group, versions in self.registry.groups().items():
            for version, endpoints in versions.items():
                custom = [endpoint for endpoint in endpoints if endpoint.resource.custom]
                if custom:
                    found[f"apis/{group}/{version}"] = custom
        return found

    def index(self) -> JSONObject:
        """Return the index of the documents."""
        paths = dict(msgspec.json.decode(_recorded()["v3"])["paths"])
        for path, endpoints in self._custom().items():
            digest = hashlib.sha512(encode(_document(endpoints))).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": {path: paths[path] for path in sorted(paths)}}

    def document(self, path: str) -> bytes | None:
        """Return the document for a path, such as ``apis/apps/v1``, or None if it is not served."""
        endpoints = self._custom().get(path)
        if endpoints:
            return encode(_document(endpoints))
        recorded = _recorded().get(f"v3/{path}")
        return None if recorded is None else bytes(recorded)

    def swagger(self) -> JSONObject:
        """Return the OpenAPI 2 document: paths of the built-in kinds, definitions of all."""
        recorded = _recorded_document("v2")
        return {**recorded, "definitions": {**recorded["definitions"], **self._custom_definitions()}}

    def swagger_protobuf(self) -> bytes:
        """Return the definitions of the OpenAPI 2 document in protobuf."""
        # Encoded documents that follow each other are one document.
        return _recorded_protobuf() + encode_definitions({}, self._custom_definitions())

    def _custom_definitions(self) -> JSONObject:
        endpoints = [endpoint for served in self._custom().values() for endpoint in served]
        schemas = {name: schema for endpoint in endpoints for name, schema in _schemas(endpoint).items()}
        return {name: _downgraded(schema) for name, schema in schemas.items()}


def _document(endpoints: list[Endpoint]) -> JSONObject:
    """Return the document of custom kinds of one group and version."""
    template, scaled = _recorded_document("template"), any("scale" in endpoint.subresources for endpoint in endpoints)
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
    """Return a part of the template with the names of a kind."""
    info, version, kind, text = endpoint.info, endpoint.version, _placeholder(endpoint), encode(part).decode()
    group = info.group.removesuffix(".k8s.io")
    for placeholder, name in (
        ("templateExample_vtemplate", f"{_identifier(group)}_{_identifier(version)}"),
        ("TemplateExampleVtemplate", _identifier(f".{group}.{version}")),
        ("example.template.vtemplate", f"{'.'.join(reversed(info.group.split('.')))}.{version}"),
        ("template.example", info.group),
        ("vtemplate", version),
        (f"{kind}List", info.list_name),
        (f"{kind.lower()}s", info.plural),
        (kind, info.kind),
    ):
        text = text.replace(placeholder, name)
    filled: JSONObject = msgspec.json.decode(text)
    return filled


def _identifier(name: str) -> str:
    """Return a name as a part of an operation's id: without other signs, and a capital letter after each of them."""
    return re.sub(r"[^\w]+(\w)", lambda found: found[1].upper(), name)


def _schemas(endpoint: Endpoint) -> JSONObject:
    """Return the schemas of a custom kind and of its list."""
    kind, contents = f"example.template.vtemplate.{_placeholder(endpoint)}", endpoint.contents
    known = _recorded_document("template")["components"]["schemas"]
    filled = _filled(endpoint, {name: known[name] for name in (kind, f"{kind}List")})
    name, of_list = filled
    whole: JSONObject = contents.schema if isinstance(contents, CustomContents) else {"type": "object"}
    properties = {**(whole.get("properties") or {}), **filled[name]["properties"]}
    schema = {**whole, "properties": _sorted(properties), _GVK: filled[name][_GVK]}
    return {name: schema, of_list: filled[of_list]}


_GVK = "x-kubernetes-group-version-kind"
_ONLY_IN_V3 = frozenset({"default", "nullable", "oneOf", "anyOf", "not", "x-kubernetes-validations"})


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
    return {
        key: {name: _downgraded(each) for name, each in value.items()} if key == "properties" else _downgraded(value)
        for key, value in kept.items()
    }
