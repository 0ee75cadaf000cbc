"""The ``/scale`` subresource: the replicas of an object as a document of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler._core.wire import JSONObject, ManagedFieldsEntry
from reconciler.apiserver.builtin.decoding import BuiltInContents
from reconciler.apiserver.builtin.kinds import KindInfo, type_node
from reconciler.apiserver.cluster import Endpoint, ScalePaths
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.apiserver.encoding.refusals import FieldError, Refusal, not_registered
from reconciler.apiserver.managed_fields import FieldSet, ManagerKey, difference, intersection, manager_of, sort_entries
from reconciler.apiserver.requests import bodies
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.store import Stored
from reconciler.apiserver.verbs import write_rules
from reconciler.apiserver.verbs.decoding import decode_error, decode_patched, read_document
from reconciler.apiserver.verbs.patches import apply_patch
from reconciler.apiserver.verbs.write import Writer
from reconciler.apiserver.verbs.write_rules import Admitted, WriteResult

_VERSION = "autoscaling/v1"
_TYPE = {"apiVersion": _VERSION, "kind": "Scale"}

_UNKNOWN = 'no kind is registered for the type v1.Scale in scheme "pkg/runtime/scheme.go:111"'
"""The error for a Scale of a custom kind that cannot be decoded."""

_UNSET_REPLICAS = -(2**31)
"""The replicas that a patch sees if a custom object has none, as on the real server."""


_CONTENTS = BuiltInContents(type_node("autoscaling.v1.Scale"))
_BUILT_IN = ScalePaths(".spec.replicas", ".status.replicas", "")


def _paths(endpoint: Endpoint) -> ScalePaths:
    return endpoint.scale or _BUILT_IN


def _put(doc: JSONObject, parts: list[str], value: Any) -> JSONObject:
    inner = doc.get(parts[0])
    if len(parts) > 1:
        value = _put(inner if isinstance(inner, dict) else {}, parts[1:], value)
    return {**doc, parts[0]: value}


def scale_of(endpoint: Endpoint, stored: Stored) -> JSONObject:
    """Return the Scale of a stored object."""
    doc, paths = stored.doc, _paths(endpoint)
    metadata = {
        key: doc["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in doc["metadata"]
    }
    status: JSONObject = {"replicas": value_at(doc, paths.status) or 0}
    selector = value_at(doc, paths.selector) if paths.selector else _selector(doc)
    if selector:
        status["selector"] = selector
    replicas = value_at(doc, paths.spec)
    spec = {} if not replicas else {"replicas": replicas}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def read_scale(endpoint: Endpoint, stored: Stored) -> JSONObject:
    """Return the Scale of a stored object for a get; raise the 500 for a custom object without replicas."""
    path = _paths(endpoint).spec
    if endpoint.resource.custom and value_at(stored.doc, path) is None:
        raise Refusal.failed(f'the spec replicas field "{path}" does not exist')
    return scale_of(endpoint, stored)


def _selector(doc: JSONObject) -> str:
    selector = (doc.get("spec") or {}).get("selector") or {}
    labels = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if isinstance(value, str))


@dataclass(frozen=True, slots=True)
class Scaler:
    """A writer of Scales."""

    writer: Writer

    async def write(self, call: Call) -> WriteResult:
        """Update or patch a Scale."""
        endpoint = call.endpoint
        if call.verb == "patch":
            bodies.patch_type(call)
        dry_run = bodies.check_write_options(call)
        asked = _call_of_scale(call)
        sent = _read_update(call, asked) if call.verb == "update" else None
        old = call.existing()
        current = scale_of(endpoint, old)
        path, custom = _paths(endpoint).spec, endpoint.resource.custom
        if custom and value_at(old.doc, path) is None:
            current["spec"]["replicas"] = _UNSET_REPLICAS
        scale, warnings = sent or _patched(asked, current)
        call.warnings = warnings
        _check_object(call, scale["metadata"], old)
        admitted = self.writer.if_applies(Admitted(call, "UPDATE", call.name, scale, current, dry_run))
        if admitted is not None:
            scale, warnings = await self.writer.mutate(admitted, warnings)
            self.writer.check_current(call, old)
            scale, _ = decode_patched(asked, scale, None)
            admitted = replace(admitted, doc=scale)
        replicas = value_at(scale, "spec.replicas", 0)
        if replicas == _UNSET_REPLICAS and custom:
            raise Refusal.bad_request(f'the spec replicas field "{path}" cannot be empty')
        if replicas < 0 and not custom:
            error = FieldError.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
            raise Refusal.invalid("Scale", "autoscaling", call.name, [error])
        doc = _put(endpoint.to_served(old.doc), path.lstrip(".").split("."), replicas)
        version = scale["metadata"].get("resourceVersion") or str(old.rv)
        doc["metadata"] = {**doc["metadata"], "resourceVersion": version}
        before = current["spec"].get("replicas", 0)
        known = write_rules.managed_fields_of(old)
        entries = _managed_fields_after(call, known, path=path, before=before, after=replicas)
        written = await self.writer.change(call, old, doc, warnings, dry_run=dry_run, entries=entries, scale=admitted)
        if written.stored is not None:
            written.document, written.stored = scale_of(endpoint, written.stored), None
        return written


def _call_of_scale(call: Call) -> Call:
    """Return the call as if the Scale were a kind: documents are read, patched and decoded as those of any kind."""
    info = KindInfo("autoscaling", "scales", "Scale", call.endpoint.info.namespaced)
    endpoint = Endpoint(replace(call.endpoint.resource, info=info, custom=False), "v1", contents=_CONTENTS)
    request = call.request
    if bodies.media_type(request) == bodies.APPLY_PATCH:
        request = replace(request, headers={**request.headers, "content-type": bodies.MERGE_PATCH})
    return replace(call, endpoint=endpoint, request=request)


def _read_update(call: Call, asked: Call) -> tuple[JSONObject, list[str]]:
    try:
        scale, warnings = read_document(asked)
    except Refusal as refusal:
        unknown = refusal.code == 400 and call.endpoint.resource.custom
        raise (Refusal.bad_request(_UNKNOWN) if unknown else refusal) from None
    write_rules.check_name_given(call, scale["metadata"])
    write_rules.check_name_and_namespace(call, scale["metadata"])
    return scale, warnings


def _patched(asked: Call, current: JSONObject) -> tuple[JSONObject, list[str]]:
    kind = bodies.media_type(asked.request)
    found = apply_patch(asked, kind, current)
    if isinstance(found, dict) and kind == bodies.STRATEGIC_PATCH:
        found = {**found, **_TYPE}
    elif isinstance(found, dict) and {**found, **_TYPE} != found:
        version, name = str(found.get("apiVersion") or ""), str(found.get("kind") or "")
        raise decode_error(asked, found, not_registered(name, version))
    return decode_patched(asked, found, None)


def _check_object(call: Call, metadata: JSONObject, old: Stored) -> None:
    write_rules.check_name_given(call, metadata)
    write_rules.check_name_and_namespace(call, metadata)
    info, uid = call.endpoint.info, metadata.get("uid")
    if not uid or uid == old.uid:
        return
    if call.verb == "update":
        raise write_rules.uid_conflict(call, uid, old.uid)
    if not call.endpoint.resource.custom:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
        raise Refusal.conflict(f"{info.plural}/scale", info.group, call.name, why)


def _managed_fields_after(
    call: Call, known: list[ManagedFieldsEntry], *, path: str, before: int, after: int
) -> list[ManagedFieldsEntry]:
    """Return the ``managedFields`` of an object after a write to its Scale changed the replicas at a path.

    The real server moves the owners of the replicas to the Scale, updates them there, and moves them back. An owner
    that comes back gets an entry beside the one that it had; of two entries with one identity the last one counts.
    """
    fields_by_version = _replicas_fields(call.endpoint, path)
    entries = {ManagerKey.of(entry): entry for entry in known}
    owners = {
        ManagerKey(key.manager, key.operation, _VERSION, key.subresource)
        for key, entry in entries.items()
        if _overlaps(entry, fields_by_version.get(key.api_version))
    }
    if owners and before != after:
        # A Scale leaves out zero replicas, so nobody owns them.
        owners = {ManagerKey(manager_of(call), "Update", _VERSION, "scale")} if after else set()
    found: list[ManagedFieldsEntry] = []
    for key, entry in entries.items():
        if key.api_version not in fields_by_version:
            continue
        fields = fields_by_version[key.api_version]
        if not _overlaps(entry, fields) or key in owners:
            owners.discard(key)
            found.append(entry)
        elif rest := difference(entry["fieldsV1"], fields or {}):
            found.append({**entry, "fieldsV1": rest})
    api_version = call.endpoint.api_version
    replicas = fields_by_version[api_version] or {}
    # The real server gives these entries no time.
    found += [
        ManagerKey(key.manager, key.operation, api_version, key.subresource).entry(replicas, "") for key in owners
    ]
    return sort_entries(found)


def _replicas_fields(endpoint: Endpoint, path: str) -> Mapping[str, FieldSet | None]:
    """Return the field set of the replicas in each version of a kind; None for a version without a Scale."""
    if not endpoint.resource.custom:
        return {endpoint.api_version: _field_set(path)}
    versions = endpoint.resource.endpoints.values()
    return {each.api_version: None if each.scale is None else _field_set(each.scale.spec) for each in versions}


def _field_set(path: str) -> FieldSet:
    fields: FieldSet = {}
    for part in reversed(path.lstrip(".").split(".")):
        fields = {f"f:{part}": fields}
    return fields


def _overlaps(entry: ManagedFieldsEntry, fields: FieldSet | None) -> bool:
    return fields is not None and bool(intersection(entry.get("fieldsV1") or {}, fields))
