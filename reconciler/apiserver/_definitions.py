"""Serve what CustomResourceDefinitions define."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.apiserver._cluster import Cluster
from reconciler.apiserver._kinds import KindInfo
from reconciler.apiserver._registry import Endpoint, Resource
from reconciler.apiserver._storage import Stored

__all__ = ["Definitions"]


class Definitions:
    """Follow the commits to CustomResourceDefinitions: establish, change and remove what they define.

    Args:
        cluster: what is stored.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._definitions = cluster.registry.resource("apiextensions.k8s.io", "customresourcedefinitions")
        cluster.consequences.append(self._follow)

    def _follow(self, resource: Resource, old: Stored | None, new: Stored | None) -> None:
        if resource is not self._definitions:
            return
        if new is None and old is not None:
            self._withdraw(old)
        elif new is not None:
            self._serve(new)
            if not _is_established(new.doc):
                self._establish(resource, new)

    def _serve(self, stored: Stored) -> None:
        spec = stored.doc["spec"]
        versions = spec["versions"]
        storage = next(version["name"] for version in versions if version.get("storage"))
        registry = self._cluster.registry
        info = _info(spec, versions)
        resource = registry.resource(info.group, info.plural)
        if resource is None:
            resource = registry.add(info, storage=storage, custom=True)
        else:
            for endpoint in list(resource.endpoints.values()):
                registry.unserve(endpoint)
            resource.info = info
        for version in sorted(versions, key=lambda version: _priority(version["name"]), reverse=True):
            if version.get("served"):
                registry.serve(_endpoint(resource, version))

    def _establish(self, resource: Resource, stored: Stored) -> None:
        spec, now = stored.doc["spec"], self._cluster.now()
        conditions = [
            {
                "type": type,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": now,
            }
            for type, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ]
        storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
        status = {"acceptedNames": spec["names"], "conditions": conditions, "storedVersions": [storage]}
        doc = {**stored.doc, "metadata": dict(stored.doc["metadata"]), "status": status}
        self._cluster.replace(resource, stored, doc)

    def _withdraw(self, stored: Stored) -> None:
        spec = stored.doc["spec"]
        resource = self._cluster.registry.resource(spec["group"], spec["names"]["plural"])
        if resource is None:
            return
        for found in list(resource.store.objects.values()):
            current = resource.store.objects.get(found.key)
            if current is not None:
                self._cluster.remove(resource, current)
        self._cluster.registry.remove(resource)


def _is_established(doc: dict[str, Any]) -> bool:
    conditions = (doc.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Established" and one.get("status") == "True" for one in conditions)


def _info(spec: dict[str, Any], versions: list[dict[str, Any]]) -> KindInfo:
    names = spec["names"]
    return KindInfo(
        group=spec["group"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names.get("singular") or "",
        list_kind=names.get("listKind") or "",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        status=any("status" in (version.get("subresources") or {}) for version in versions),
        generation=True,
        unconditional=False,
    )


def _endpoint(resource: Resource, version: dict[str, Any]) -> Endpoint:
    selectable = {
        field["jsonPath"].lstrip("."): _reader(field["jsonPath"]) for field in version.get("selectableFields") or ()
    }
    subresources = frozenset(version.get("subresources") or ())
    return Endpoint(resource, version["name"], subresources, selectable)


def _reader(json_path: str) -> Callable[[dict[str, Any]], str]:
    parts = json_path.lstrip(".").split(".")

    def read(doc: dict[str, Any]) -> str:
        found: Any = doc
        for part in parts:
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            return ""
        return str(found).lower() if isinstance(found, bool) else str(found)

    return read


def _priority(version: str) -> tuple[int, int, int]:
    """Order versions as Kubernetes does: v2, v1, v1beta2, v1beta1, v1alpha1."""
    import re

    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (-1, 0, 0)
    stage = {None: 2, "beta": 1, "alpha": 0}[match.group(2)]
    return (stage, int(match.group(1)), int(match.group(3) or 0))
