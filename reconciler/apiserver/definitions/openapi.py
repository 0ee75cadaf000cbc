"""OpenAPI documents of the served kinds, for ``kubectl explain``, ``kubectl apply`` and code generators.

Those of the built-in kinds are recorded from a real API server.
"""

from __future__ import annotations

import functools
import hashlib
import lzma
from importlib import resources
from typing import Any

import msgspec

from reconciler.apiserver.encoding.openapi_protobuf import encode_definitions
from reconciler.apiserver.storage.custom_contents import CustomContents
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.apiserver.storage.store import encode
from reconciler.wire import JSONObject

__all__ = ["OpenAPI"]

_INFO = {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_REF = "#/components/schemas/"


@functools.cache
def _recorded() -> dict[str, msgspec.Raw]:
    """Return the documents of a real server, by path below ``/openapi``; unpacked only when a client asks for one."""
    packed = resources.files("reconciler.apiserver.builtin").joinpath("openapi.json.xz").read_bytes()
    return msgspec.json.decode(lzma.decompress(packed), type=dict[str, msgspec.Raw])


@functools.cache
def _meta_schemas() -> JSONObject:
    """Return the schemas of meta/v1."""
    document = msgspec.json.decode(_recorded()["v3/apis/apiextensions.k8s.io/v1"])
    return {name: schema for name, schema in document["components"]["schemas"].items() if name.startswith(_META)}


@functools.cache
def _recorded_swagger() -> JSONObject:
    document: JSONObject = msgspec.json.decode(_recorded()["v2"])
    return document


@functools.cache
def _recorded_protobuf() -> bytes:
    return encode_definitions(_recorded_swagger()["info"], _recorded_swagger()["definitions"])


class OpenAPI:
    """The OpenAPI documents of a registry.

    Args:
        registry: the served kinds.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def _custom(self) -> dict[str, list[Endpoint]]:
        """Return the versions of custom groups by path."""
        found: dict[str, list[Endpoint]] = {}
        for group, versions in self._registry.groups().items():
            for version, endpoints in versions.items():
                custom = [endpoint for endpoint in endpoints if endpoint.resource.custom]
                if custom:
                    found[f"apis/{group}/{version}"] = custom
        return found

    def index(self) -> JSONObject:
        """Return the index of the documents."""
        paths = dict(msgspec.json.decode(_recorded()["v3"])["paths"])
        for path, endpoints in self._custom().items():
            digest = hashlib.sha512(encode(_document(path, endpoints))).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": {path: paths[path] for path in sorted(paths)}}

    def document(self, path: str) -> bytes | None:
        """Return the document for a path, such as ``apis/apps/v1``, or None if it is not served."""
        endpoints = self._custom().get(path)
        if endpoints:
            return encode(_document(path, endpoints))
        recorded = _recorded().get(f"v3/{path}")
        return None if recorded is None else bytes(recorded)

    def swagger(self) -> JSONObject:
        """Return the OpenAPI 2 document: paths of the built-in kinds, definitions of all."""
        recorded = _recorded_swagger()
        return {**recorded, "definitions": {**recorded["definitions"], **self._custom_definitions()}}

    def swagger_protobuf(self) -> bytes:
        """Return the definitions of the OpenAPI 2 document in protobuf."""
        # Encoded documents that follow each other are one document.
        return _recorded_protobuf() + encode_definitions({}, self._custom_definitions())

    def _custom_definitions(self) -> JSONObject:
        endpoints = [endpoint for served in self._custom().values() for endpoint in served]
        schemas = {name: schema for endpoint in endpoints for name, schema in _schemas(endpoint).items()}
        return {name: _downgraded(schema) for name, schema in schemas.items()}


def _document(path: str, endpoints: list[Endpoint]) -> JSONObject:
    """Return the document of custom kinds of one group and version."""
    schemas, paths = dict(_meta_schemas()), {}
    for endpoint in endpoints:
        schemas |= _schemas(endpoint)
        namespace = "/namespaces/{namespace}" if endpoint.info.namespaced else ""
        paths.update(_paths(f"/{path}{namespace}/{endpoint.info.plural}", endpoint))
    return {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}


def _component(endpoint: Endpoint) -> str:
    return f"{'.'.join(reversed(endpoint.info.group.split('.')))}.{endpoint.version}.{endpoint.info.kind}"


def _gvk(endpoint: Endpoint, kind: str) -> dict[str, str]:
    return {"group": endpoint.info.group, "kind": kind, "version": endpoint.version}


def _described(of: str, member: str) -> JSONObject:
    """Return a member of a recorded type of apiextensions, which has the words that all types share."""
    document = msgspec.json.decode(_recorded()["v3/apis/apiextensions.k8s.io/v1"])
    name = f"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{of}"
    schema: JSONObject = document["components"]["schemas"][name]["properties"][member]
    return {key: value for key, value in schema.items() if key != "default"}


@functools.cache
def _type_members() -> JSONObject:
    return {key: _described("CustomResourceDefinition", key) for key in ("apiVersion", "kind")}


def _schemas(endpoint: Endpoint) -> JSONObject:
    """Return the schemas of a custom kind and of its list."""
    info, name, contents = endpoint.info, _component(endpoint), endpoint.contents
    whole: JSONObject = contents.schema if isinstance(contents, CustomContents) else {"type": "object"}
    about = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/"
    metadata = {"description": f"{about}api-conventions.md#metadata", "allOf": [{"$ref": f"{_REF}{_META}.ObjectMeta"}]}
    about = about.replace("object's metadata", "list metadata")
    of_list = {
        "description": f"{about}api-conventions.md#types-kinds",
        "allOf": [{"$ref": f"{_REF}{_META}.ListMeta"}],
    }
    items = {
        "description": f"List of {info.plural}. More info: {about.partition('info: ')[2]}api-conventions.md",
        "type": "array",
        "items": {"$ref": f"{_REF}{name}"},
    }
    plain = {key: value for key, value in whole.items() if key != "x-kubernetes-validations"}
    return {
        name: {
            **plain,
            "properties": {**(whole.get("properties") or {}), **_type_members(), "metadata": metadata},
            "x-kubernetes-group-version-kind": [_gvk(endpoint, info.kind)],
        },
        f"{name.removesuffix(info.kind)}{info.list_name}": {
            "description": f"{info.list_name} is a list of {info.kind}",
            "type": "object",
            "required": ["items"],
            "properties": {**_type_members(), "items": items, "metadata": of_list},
            "x-kubernetes-group-version-kind": [_gvk(endpoint, info.list_name)],
        },
    }


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


_DRY_RUN, _VALIDATION, _MANAGER, _FORCE = "dryRun", "fieldValidation", "fieldManager", "force"


def _paths(base: str, endpoint: Endpoint) -> JSONObject:
    writes = (_DRY_RUN, _VALIDATION, _MANAGER)
    return {
        base: {
            "get": _operation("list", endpoint, ()),
            "post": _operation("post", endpoint, writes),
            "delete": _operation("deletecollection", endpoint, (_DRY_RUN,)),
        },
        f"{base}/{{name}}": {
            "get": _operation("get", endpoint, ()),
            "put": _operation("put", endpoint, writes),
            "patch": _operation("patch", endpoint, (*writes, _FORCE)),
            "delete": _operation("delete", endpoint, (_DRY_RUN,)),
        },
    }


def _operation(action: str, endpoint: Endpoint, parameters: tuple[str, ...]) -> JSONObject:
    answer = {"application/json": {"schema": {"$ref": f"{_REF}{_component(endpoint)}"}}}
    kinds = {_FORCE: "boolean"}
    return {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(endpoint, endpoint.info.kind),
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": kinds.get(name, "string")}} for name in parameters
        ],
        "responses": {"200": {"description": "OK", "content": answer}},
    }
