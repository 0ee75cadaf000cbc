"""The lifecycle of CustomResourceDefinitions: establishing, changing and withdrawing the kinds that they define."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconciler._core.wire import ConditionObject, JSONObject
from reconciler.apiserver.builtin.decoding import Decoding
from reconciler.apiserver.builtin.kinds import KindInfo, field_reader
from reconciler.apiserver.builtin.strategies import Strategy, strategy_of
from reconciler.apiserver.cluster import APIResource, ClusterStorage, CustomContents, Endpoint, ScalePaths, contents_of
from reconciler.apiserver.definitions.conversion import ConversionNeeded, conversion_of
from reconciler.apiserver.definitions.validation import check_definition, unknown_formats
from reconciler.apiserver.encoding.json_documents import condition_of
from reconciler.apiserver.encoding.refusals import FieldError, Refusal
from reconciler.apiserver.managed_fields import FieldManager, ManagerKey
from reconciler.apiserver.store import Stored
from reconciler.http import Transport

if TYPE_CHECKING:
    from reconciler.apiserver.verbs.routing import Call


CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer of a definition that is being deleted; removed when its last custom resource is gone."""


_CONTROLLER = ManagerKey("kube-apiserver", "Update", "apiextensions.k8s.io/v1", "status")
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


class Definitions:
    """The controller of CustomResourceDefinitions. It is called with every change that is committed to the cluster.

    Without `sockets` it calls conversion webhooks in the same process alone, as under virtual time.
    """

    def __init__(
        self, cluster: ClusterStorage, webhook_servers: Mapping[str, Transport], *, sockets: bool = True
    ) -> None:
        self._cluster = cluster
        self._sockets = sockets and not getattr(cluster.clock, "virtual", False)
        self._webhook_servers = webhook_servers
        self._definitions = cluster.registry.built_in("customresourcedefinitions", "apiextensions.k8s.io")
        self._strategy = Strategy(complete=_complete, check=self._check, warn=_warn)
        # The schemas that were compiled for validation are then served; one entry for a definition being written.
        self._compiled: dict[str, dict[str, CustomContents]] = {}
        cluster.commit_hooks.append(self._follow)

    def strategy(self, call: Call) -> Strategy:
        """Return the strategy of the kind that a request writes, including definitions."""
        info = call.endpoint.info
        if call.endpoint.resource is self._definitions:
            return self._strategy
        return strategy_of(info.group, info.plural, call.subresource)

    def _check(self, doc: JSONObject, before: JSONObject | None) -> list[FieldError]:
        self._compiled.clear()
        if before is not None and before.get("spec") == doc.get("spec"):
            return []
        errors, compiled = check_definition(doc, before)
        if not errors:
            self._compiled[doc["metadata"]["name"]] = compiled
        return errors

    def _follow(self, resource: APIResource, old: Stored | None, new: Stored | None) -> None:
        if resource is self._definitions:
            self._follow_definition(resource, old, new)
        elif resource.custom and new is None and not resource.store.objects:
            self._finish(resource)

    def _follow_definition(self, resource: APIResource, old: Stored | None, new: Stored | None) -> None:
        if new is None:
            assert old is not None  # noqa: S101 - a commit has one of both
            spec = old.doc["spec"]
            gone = self._cluster.registry.resource(spec["group"], spec["names"]["plural"])
            if gone is not None:
                self._cluster.registry.remove(gone)
            return
        if old is None or old.doc["spec"] is not new.doc["spec"]:
            self.serve(new)
        if new.doc["metadata"].get("deletionTimestamp"):
            self._empty(new)
        elif condition_of(new.doc, "Established").get("status") != "True":
            self._establish(resource, new)

    # Serving.

    def serve(self, stored: Stored) -> None:
        """Serve the kind of a definition as it is now."""
        spec = stored.doc["spec"]
        versions, registry = spec["versions"], self._cluster.registry
        storage = next(version["name"] for version in versions if version.get("storage"))
        info = _info(spec, versions)
        resource = registry.resource(info.group, info.plural)
        compiled = self._compiled.pop(stored.key, {})
        if resource is None:
            resource = registry.add(info, storage=storage, custom=True)
        else:
            for endpoint in list(resource.endpoints.values()):
                registry.unserve(endpoint)
            resource.info = info
        resource.convert = conversion_of(spec, self._webhook_servers, self._cluster.random_uid, sockets=self._sockets)
        _migrate(resource, storage)
        for version in sorted(versions, key=lambda version: _priority(version["name"]), reverse=True):
            if version.get("served"):
                name = version["name"]
                contents = compiled.get(name) or contents_of(version["schema"]["openAPIV3Schema"])
                registry.serve(_endpoint(resource, version, contents))
        self._reshape_stored(resource)

    @staticmethod
    def _reshape_stored(resource: APIResource) -> None:
        """Prune and default stored objects by a changed schema, as the real server does when it reads them."""
        endpoint = resource.endpoints.get(resource.storage)
        if endpoint is None or endpoint.contents is None:
            return
        for stored in list(resource.store.objects.values()):
            decoded = endpoint.contents.decode(stored.doc, None, Decoding())
            if decoded is not stored.doc:
                resource.store.reshape(stored, decoded)

    def _establish(self, resource: APIResource, stored: Stored) -> None:
        spec, now = stored.doc["spec"], self._cluster.now()
        conditions: list[ConditionObject] = [
            {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
            for kind, reason, message in (
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        ]
        status = {**(stored.doc.get("status") or {}), "acceptedNames": spec["names"], "conditions": conditions}
        metadata = dict(stored.doc["metadata"])
        owners = FieldManager(metadata.get("managedFields") or (), now)
        schema = next(iter(resource.endpoints.values())).schema
        owners.update(
            _CONTROLLER, {"status": {**status, "acceptedNames": {}, "conditions": []}}, {"status": status}, schema
        )
        metadata["managedFields"] = owners.entries()
        self._cluster.replace(resource, stored, {**stored.doc, "metadata": metadata, "status": status})

    # Withdrawing.

    def _empty(self, stored: Stored) -> None:
        """Delete all objects of a definition that is being deleted; objects with finalizers block it."""
        spec = stored.doc["spec"]
        resource = self._cluster.registry.resource(spec["group"], spec["names"]["plural"])
        if resource is None:
            return
        for found in list(resource.store.objects.values()):
            current = resource.store.objects.get(found.key)
            if current is None or current.doc["metadata"].get("deletionTimestamp"):
                continue
            if current.doc["metadata"].get("finalizers"):
                metadata = {**current.doc["metadata"], "deletionTimestamp": self._cluster.now()}
                metadata["deletionGracePeriodSeconds"] = 0
                metadata["generation"] = metadata.get("generation", 0) + 1
                self._cluster.replace(resource, current, {**current.doc, "metadata": metadata})
            else:
                self._cluster.remove(resource, current)
        if not resource.store.objects:
            self._finish(resource)

    def _finish(self, resource: APIResource) -> None:
        """Remove the finalizer of a definition that is being deleted, after its last object is gone."""
        name = f"{resource.info.plural}.{resource.info.group}"
        stored = self._definitions.store.objects.get(name)
        if stored is None or not stored.doc["metadata"].get("deletionTimestamp"):
            return
        metadata = dict(stored.doc["metadata"])
        kept = [name for name in metadata.get("finalizers") or [] if name != CLEANUP]
        if kept == metadata.get("finalizers"):
            return
        if kept:
            metadata["finalizers"] = kept
            self._cluster.replace(self._definitions, stored, {**stored.doc, "metadata": metadata})
        else:
            metadata.pop("finalizers", None)
            self._cluster.remove(self._definitions, stored, {**stored.doc, "metadata": metadata})


def _complete(doc: JSONObject, before: JSONObject | None) -> None:
    spec = doc["spec"] = dict(doc.get("spec") or {})
    names = spec["names"] = dict(spec.get("names") or {})
    if names.get("kind"):
        names["singular"] = names.get("singular") or str(names["kind"]).lower()
        names["listKind"] = names.get("listKind") or f"{names['kind']}List"
    spec["conversion"] = spec.get("conversion") or {"strategy": "None"}
    storage = [version.get("name") for version in spec.get("versions") or () if version.get("storage")][:1]
    if before is None:
        status = {"acceptedNames": {"kind": "", "plural": ""}, "conditions": None, "storedVersions": storage}
        doc["status"] = status
        return
    if spec == before["spec"]:
        doc["spec"] = before["spec"]
    status = dict(doc.get("status") or {})
    known = list(status.get("storedVersions") or [])
    status["storedVersions"] = known + [name for name in storage if name not in known]
    if status["storedVersions"] != known:
        doc["status"] = status


def _warn(doc: JSONObject) -> list[str]:
    found: dict[str, None] = {}
    for version in doc["spec"].get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        found |= dict.fromkeys(f'unrecognized format "{form}"' for form in unknown_formats(schema))
    return list(found)


def _migrate(resource: APIResource, storage: str) -> None:
    if resource.storage == storage:
        return
    resource.storage = storage
    try:
        for stored in list(resource.store.objects.values()):
            resource.store.reshape(stored, resource.in_version(stored.doc, resource.api_version))
    except ConversionNeeded as needed:  # the write of the definition cannot be repeated
        raise Refusal.internal_error(str(needed)) from None


def _info(spec: JSONObject, versions: list[JSONObject]) -> KindInfo:
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


def _endpoint(resource: APIResource, version: JSONObject, contents: CustomContents) -> Endpoint:
    fields, subresources = version.get("selectableFields") or (), version.get("subresources") or {}
    scale = subresources.get("scale") or {}
    paths = (scale.get(f"{name}Path") or "" for name in ("specReplicas", "statusReplicas", "labelSelector"))
    warning = ""
    if version.get("deprecated"):
        default = f"{resource.info.group}/{version['name']} {resource.info.kind} is deprecated"
        warning = version.get("deprecationWarning") or default
    return Endpoint(
        resource,
        version["name"],
        frozenset(name for name, value in subresources.items() if value is not None),
        {field["jsonPath"].lstrip("."): field_reader(field["jsonPath"]) for field in fields},
        contents,
        tuple(version.get("additionalPrinterColumns") or ()),
        warning,
        ScalePaths(*paths) if scale else None,
    )


def _priority(version: str) -> tuple[int, int, int]:
    """Return the sort key of a version: v1alpha1, v1beta1, v1beta2, v1, v2."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (-1, 0, 0)
    stage = {None: 2, "beta": 1, "alpha": 0}[match.group(2)]
    return (stage, int(match.group(1)), int(match.group(3) or 0))
