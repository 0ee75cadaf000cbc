"""OpenAPI 3 documents of the served kinds, for ``kubectl explain``, ``kubectl apply`` and code generators."""

from __future__ import annotations

import hashlib

from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.apiserver.storage.custom_contents import CustomContents
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.apiserver.storage.store import encode
from reconciler.wire import JSONObject

__all__ = ["OpenAPI"]

_INFO = {"title": "Kubernetes", "version": "v1.36.0"}
_METADATA = {
    "type": "object",
    "description": "Standard object metadata.",
    "properties": {
        **{key: {"type": "string"} for key in ("name", "generateName", "namespace", "uid", "resourceVersion")},
        **{key: {"type": "object", "additionalProperties": {"type": "string"}} for key in ("labels", "annotations")},
        **{key: {"type": "string", "format": "date-time"} for key in ("creationTimestamp", "deletionTimestamp")},
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "generation": {"type": "integer", "format": "int64"},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
    },
}


class OpenAPI:
    """The OpenAPI documents of a registry.

    Args:
        registry: the served kinds.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def index(self) -> JSONObject:
        """Return the index of the documents."""
        paths = {}
        for group, versions in self._registry.groups().items():
            for version in versions:
                path = f"apis/{group}/{version}" if group else f"api/{version}"
                digest = hashlib.sha256(encode(self.document(group, version))).hexdigest().upper()
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": paths}

    def document(self, group: str, version: str) -> JSONObject | None:
        """Return the document of one group and version, or None if it is not served."""
        endpoints = self._registry.groups().get(group, {}).get(version)
        if not endpoints:
            return None
        schemas: JSONObject = {"ObjectMeta": _METADATA}
        paths: JSONObject = {}
        for endpoint in endpoints:
            name = _component(endpoint)
            schemas[name] = _schema(endpoint, schemas)
            base = f"/apis/{group}/{version}" if group else f"/api/{version}"
            if endpoint.info.namespaced:
                base += "/namespaces/{namespace}"
            paths |= _paths(f"{base}/{endpoint.info.plural}", endpoint, name)
        return {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}

    @staticmethod
    def swagger() -> JSONObject:
        """Return an empty OpenAPI 2 document; clients use OpenAPI 3 instead."""
        return {"swagger": "2.0", "info": _INFO, "paths": {}, "definitions": {}}


def _component(endpoint: Endpoint) -> str:
    group = ".".join(reversed(endpoint.info.group.split("."))) if endpoint.info.group else "core"
    return f"{group}.{endpoint.version}.{endpoint.info.kind}"


def _gvk(endpoint: Endpoint) -> dict[str, str]:
    return {"group": endpoint.info.group, "kind": endpoint.info.kind, "version": endpoint.version}


def _schema(endpoint: Endpoint, schemas: JSONObject) -> JSONObject:
    contents = endpoint.contents
    if isinstance(contents, CustomContents):
        schema = _plain(contents.schema)
    elif contents is not None:
        schema = _of_node(contents.node, schemas, top=True)
    else:
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = dict(schema.get("properties") or {})
    properties["apiVersion"] = properties["kind"] = {"type": "string"}
    properties["metadata"] = {"allOf": [{"$ref": "#/components/schemas/ObjectMeta"}], "default": {}}
    return {**schema, "properties": properties, "x-kubernetes-group-version-kind": [_gvk(endpoint)]}


def _plain(schema: JSONObject) -> JSONObject:
    return {key: value for key, value in schema.items() if key != "x-kubernetes-validations"}


def _of_node(node: Node, schemas: JSONObject, *, top: bool = False) -> JSONObject:
    """Return the schema of a place of a built-in kind; named types are added to `schemas` and referenced."""
    if node is ANYTHING:
        return {"x-kubernetes-preserve-unknown-fields": True}
    if node.properties:
        if top:
            return {"type": "object", "properties": _members(node, schemas)}
        if node.name not in schemas:
            schemas[node.name] = {}
            schemas[node.name] = {"type": "object", "properties": _members(node, schemas)}
        return {"allOf": [{"$ref": f"#/components/schemas/{node.name}"}]}
    if node.items is not None:
        found: JSONObject = {"type": "array", "items": _of_node(node.items, schemas)}
        if node.list_type != "atomic":
            found["x-kubernetes-list-type"] = node.list_type
        if node.map_keys:
            found["x-kubernetes-list-map-keys"] = list(node.map_keys)
        if node.merge:
            found["x-kubernetes-patch-strategy"] = "merge"
        if node.merge_key:
            found["x-kubernetes-patch-merge-key"] = node.merge_key
        return found
    if node.additional is not None:
        return {"type": "object", "additionalProperties": _of_node(node.additional, schemas)}
    shown = {"type": node.type or "string"}
    return {**shown, "format": node.format} if node.format else shown


def _members(node: Node, schemas: JSONObject) -> JSONObject:
    return {key: _of_node(child, schemas) for key, child in node.properties.items() if key != "metadata"}


_DRY_RUN, _VALIDATION, _MANAGER, _FORCE = "dryRun", "fieldValidation", "fieldManager", "force"


def _paths(base: str, endpoint: Endpoint, component: str) -> JSONObject:
    writes = (_DRY_RUN, _VALIDATION, _MANAGER)
    return {
        base: {
            "get": _operation("list", endpoint, component, ()),
            "post": _operation("post", endpoint, component, writes),
            "delete": _operation("deletecollection", endpoint, component, (_DRY_RUN,)),
        },
        f"{base}/{{name}}": {
            "get": _operation("get", endpoint, component, ()),
            "put": _operation("put", endpoint, component, writes),
            "patch": _operation("patch", endpoint, component, (*writes, _FORCE)),
            "delete": _operation("delete", endpoint, component, (_DRY_RUN,)),
        },
    }


def _operation(action: str, endpoint: Endpoint, component: str, parameters: tuple[str, ...]) -> JSONObject:
    answer = {"application/json": {"schema": {"$ref": f"#/components/schemas/{component}"}}}
    kinds = {_FORCE: "boolean"}
    return {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(endpoint),
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": kinds.get(name, "string")}} for name in parameters
        ],
        "responses": {"200": {"description": "OK", "content": answer}},
    }
