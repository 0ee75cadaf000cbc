"""The discovery endpoints: versions, groups, resources, OpenAPI, health."""

from __future__ import annotations

import json

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.kinds import recorded_groups
from reconciler.apiserver.definitions.openapi import OpenAPI
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.storage.cluster import Endpoint, Registry
from reconciler.apiserver.storage.store import encode

__all__ = ["Discovery"]


_VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_SWAGGER_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


class Discovery:
    """The discovery documents of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._openapi = OpenAPI(registry)

    def answer(self, path: str, accept: str) -> tuple[JSONObject | bytes, str]:
        """Return the document, or the whole body, for a path, and its media type; raise the 404 if it is not served."""
        parts = [part for part in path.split("/") if part]
        if parts[:1] == ["openapi"]:
            return self._openapi_document("/".join(parts[1:]), accept)
        if parts and parts[0] in ("healthz", "readyz", "livez"):
            return b"ok", "text/plain; charset=utf-8"
        if parts in ([], ["version"]):
            shown = recorded("serving/discovery.json")["version" if parts else "root"]
            return json.dumps(shown, indent=2).encode(), "application/json"
        if parts in (["api"], ["apis"]) and "as=APIGroupDiscoveryList" in accept:
            return self._aggregated(core=parts == ["api"]), _AGGREGATED
        document = self._document(parts)
        if document is None:
            known = len(parts) == 3 and parts[0] == "apis" and self._registry.is_built_in(parts[1], parts[2])
            raise (
                Refusal.no_such_resource() if known or (len(parts) == 2 and parts[0] == "api") else Refusal.not_served()
            )
        return document, "application/json"

    def _openapi_document(self, path: str, accept: str) -> tuple[bytes, str]:
        if path == "v2" and accept.startswith(_SWAGGER_PROTOBUF):
            return self._openapi.swagger_protobuf(), _SWAGGER_PROTOBUF.replace("@", ".")
        if path in ("v2", "v3"):
            return encode(self._openapi.swagger() if path == "v2" else self._openapi.index()), "application/json"
        found = self._openapi.document(path.removeprefix("v3/"))
        if found is None:
            raise Refusal.not_served()
        return found, "application/json"

    def _document(self, parts: list[str]) -> JSONObject | None:
        if parts == ["api"]:
            apis: JSONObject = recorded("serving/discovery.json")["api"]
            return apis
        groups = {str(group["metadata"].get("name", "")): group for group in self._groups()}
        if parts == ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(name, group) for name, group in groups.items() if name],
            }
        root, *rest = parts
        name = rest.pop(0) if root == "apis" else ""
        group = groups.get(name) if root in ("api", "apis") else None
        if group is None or len(rest) > 1:
            return None
        if not rest:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, group)}
        found = [version for version in group["versions"] if version["version"] == rest[0]]
        return _resource_list(name, found[0]) if found else None

    def _groups(self) -> list[JSONObject]:
        """Return all groups as in aggregated discovery: those of the real server, and custom ones by name."""
        custom: dict[str, JSONObject] = {}
        for (name, version), endpoints in self._registry.custom_versions().items():
            group = custom.setdefault(name, {"metadata": {"name": name}, "versions": []})
            resources = [*map(_resource, endpoints)]
            group["versions"].append({"version": version, "resources": resources, "freshness": "Current"})
        return [*recorded_groups(), *(custom[name] for name in sorted(custom))]

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
        namespaced = resource["scope"] == "Namespaced"
        optional = ("shortNames", "categories", "storageVersionHash")
        listed.append(
            {
                "name": resource["resource"],
                "singularName": resource["singularResource"],
                "namespaced": namespaced,
                "kind": resource["responseKind"]["kind"],
                "verbs": resource["verbs"],
                **{key: resource[key] for key in optional if key in resource},
            }
        )
        for subresource in resource.get("subresources", ()):
            about = subresource["responseKind"]
            other = (about["kind"] != resource["responseKind"]["kind"] and about["group"]) or about["version"]
            place = {key: about[key] for key in ("group", "version") if about[key]} if other else {}
            listed.append(
                {
                    "name": f"{resource['resource']}/{subresource['subresource']}",
                    "singularName": "",
                    "namespaced": namespaced,
                    **place,
                    "kind": about["kind"],
                    "verbs": subresource["verbs"],
                }
            )
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
        "singularResource": info.singular_name,
        "verbs": _VERBS,
    }
    members = {"shortNames": [*info.short_names], "categories": [*info.categories]}
    entry |= {name: values for name, values in members.items() if values}
    if endpoint.subresources:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": scale if name == "scale" else kind,
                "verbs": ["get", "patch", "update"],
            }
            for name in sorted(endpoint.subresources)
        ]
    return entry
