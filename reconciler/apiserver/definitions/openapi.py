"""OpenAPI documents of the served kinds, for ``kubectl explain``, ``kubectl apply`` and code generators.

Those of the built-in kinds are recorded from a real API server. kubectl reads definitions of OpenAPI 2 in protobuf;
``openapi_protobuf.json`` has the number and the form of each field of the message Schema in the protocol of gnostic.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.protobuf_wire import write_field
from reconciler.apiserver.encoding.text import data_file, recorded
from reconciler.apiserver.storage.cluster import CustomContents, Endpoint, Registry
from reconciler.apiserver.storage.store import encode

__all__ = ["OpenAPI", "encode_definitions"]


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
    number, form = recorded("definitions/openapi_protobuf.json").get(key, (0, ""))
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
        versions = self.registry.custom_versions().items()
        return {f"apis/{group}/{version}": endpoints for (group, version), endpoints in versions}

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
    kind, contents = f"example.template.vtemplate.{_placeholder(endpoint)}", endpoint.contents
    known = _recorded_document("template")["components"]["schemas"]
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
    return {
        key: {name: _downgraded(each) for name, each in value.items()} if key == "properties" else _downgraded(value)
        for key, value in kept.items()
    }
