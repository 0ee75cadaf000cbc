"""The discovery endpoints: versions, groups, resources, OpenAPI, health."""

from __future__ import annotations

from reconciler.apiserver.definitions.openapi import OpenAPI
from reconciler.apiserver.encoding.refusals import no_such_resource, not_served
from reconciler.apiserver.requests.routing import ACTIONS
from reconciler.apiserver.storage.registry import Endpoint, Registry
from reconciler.wire import JSONObject

__all__ = ["VERSION", "Discovery"]

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0+kube-reconciler",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}

_Groups = dict[str, dict[str, list[Endpoint]]]
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Discovery:
    """The discovery documents of a registry.

    Args:
        registry: the served kinds.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._openapi = OpenAPI(registry)

    def answer(self, path: str, accept: str) -> tuple[JSONObject | str, str]:
        """Return the document, or plain text, for a path, and its media type.

        Raises:
            Refusal: 404, the path is not served.
        """
        parts = [part for part in path.split("/") if part]
        if parts[:1] == ["openapi"]:
            return self._openapi_document(parts[1:]), "application/json"
        if parts and parts[0] in ("healthz", "readyz", "livez"):
            return "ok", "text/plain; charset=utf-8"
        if parts == ["version"]:
            return VERSION, "application/json"
        if parts in (["api"], ["apis"]) and "as=APIGroupDiscoveryList" in accept:
            return self._aggregated(core=parts == ["api"]), _AGGREGATED
        document = self._document(parts)
        if document is None:
            known = len(parts) == 3 and parts[0] == "apis" and self._registry.is_built_in(parts[1], parts[2])
            raise no_such_resource() if known or (len(parts) == 2 and parts[0] == "api") else not_served()
        return document, "application/json"

    def _openapi_document(self, parts: list[str]) -> JSONObject:
        found: JSONObject | None = None
        if parts == ["v2"]:
            found = self._openapi.swagger()
        elif parts == ["v3"]:
            found = self._openapi.index()
        elif parts[:2] == ["v3", "api"] and len(parts) == 3:
            found = self._openapi.document("", parts[2])
        elif parts[:2] == ["v3", "apis"] and len(parts) == 4:
            found = self._openapi.document(parts[2], parts[3])
        if found is None:
            raise not_served()
        return found

    def _document(self, parts: list[str]) -> JSONObject | None:
        if not parts:
            return {"paths": list(_ROOT)}
        groups = self._registry.groups()
        if parts[0] == "api":
            return _APIS if parts == ["api"] else _core(parts, groups)
        if parts[0] == "apis":
            return _named_groups(parts, groups)
        return None

    def _aggregated(self, *, core: bool) -> JSONObject:
        items = [
            {
                "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [_aggregated_resource(endpoint) for endpoint in endpoints],
                    }
                    for version, endpoints in versions.items()
                ],
            }
            for name, versions in self._registry.groups().items()
            if (name == "") is core
        ]
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        }


_ROOT = ("/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version")
_APIS = {
    "kind": "APIVersions",
    "versions": ["v1"],
    "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
}


def _core(parts: list[str], groups: _Groups) -> JSONObject | None:
    return _resource_list("v1", groups[""]["v1"]) if parts == ["api", "v1"] else None


def _named_groups(parts: list[str], groups: _Groups) -> JSONObject | None:
    """Return the document of a path below ``/apis``."""
    if len(parts) == 1:
        named = [_group(name, list(versions)) for name, versions in groups.items() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
    name = parts[1]
    if len(parts) == 2 and name in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(groups[name]))}
    if len(parts) == 3 and parts[2] in groups.get(name, {}):
        return _resource_list(f"{name}/{parts[2]}", groups[name][parts[2]])
    return None


_OTHER_KINDS = {"scale": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, **ACTIONS}
"""The subresources whose kind is not that of their objects."""


def _verbs_of(subresource: str) -> list[str]:
    return ["create"] if subresource in ACTIONS else ["get", "patch", "update"]


def _short_names_and_categories(endpoint: Endpoint) -> JSONObject:
    members = {"shortNames": [*endpoint.info.short_names], "categories": [*endpoint.info.categories]}
    return {name: values for name, values in members.items() if values}


def _group(name: str, versions: list[str]) -> JSONObject:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resource_list(group_version: str, endpoints: list[Endpoint]) -> JSONObject:
    resources: list[JSONObject] = []
    for endpoint in endpoints:
        info = endpoint.info
        resources.append(
            {
                "name": info.plural,
                "singularName": info.singular_name,
                "namespaced": info.namespaced,
                "kind": info.kind,
                "verbs": [*info.verbs],
                **_short_names_and_categories(endpoint),
            }
        )
        resources += [
            {
                "name": f"{info.plural}/{subresource}",
                "singularName": "",
                "namespaced": info.namespaced,
                **_OTHER_KINDS.get(subresource, {"kind": info.kind}),
                "verbs": _verbs_of(subresource),
            }
            for subresource in sorted(endpoint.subresources)
        ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _aggregated_resource(endpoint: Endpoint) -> JSONObject:
    info = endpoint.info
    custom = endpoint.resource.custom
    # The real server gives group and version of its own kinds only where they differ from those of the list.
    kind = {"group": info.group if custom else "", "version": endpoint.version if custom else "", "kind": info.kind}
    entry: JSONObject = {
        "resource": info.plural,
        "responseKind": kind,
        "scope": "Namespaced" if info.namespaced else "Cluster",
        "singularResource": info.singular_name,
        "verbs": [*info.verbs],
        **_short_names_and_categories(endpoint),
    }
    if endpoint.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": "", "version": "", **_OTHER_KINDS[name]} if name in _OTHER_KINDS else kind,
                "verbs": _verbs_of(name),
            }
            for name in sorted(endpoint.subresources)
        ]
    return entry
