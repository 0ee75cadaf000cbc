"""Server-side apply: the configuration of a request, the resulting object and its field owners."""

from __future__ import annotations

from typing import Any

from reconciler._core.wire import JSONObject, ManagedFieldsEntry
from reconciler.apiserver.encoding.json_documents import InvalidJSON, read_json
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import go_bool, go_json, go_type
from reconciler.apiserver.managed_fields import (
    NO_RESET_FIELDS,
    Change,
    FieldSet,
    ManagedFields,
    ManagerKey,
    ResetFields,
    compare,
    difference,
    fields_of,
    manager_key,
    ownable_content,
    paths,
    reset_fields_of,
    union,
)
from reconciler.apiserver.requests.bodies import read_yaml, yaml_problem
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.schema.shape import ANYTHING, NO_DEFAULT, Node
from reconciler.apiserver.storage.cluster import CustomContents
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.verbs import write_rules
from reconciler.apiserver.verbs.merge import merge, prune

__all__ = ["apply_to_new", "apply_to_stored", "left_to_kubectl", "read_applied_configuration", "record_last_applied"]

_UNOWNED = "before-first-apply"
"""The manager of fields that were set before the object had managedFields."""
_SERVER_FIELDS = ("creationTimestamp", "generation", "selfLink")
"""The fields of metadata that only the server sets and nobody owns."""
_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"
"""The field manager of ``kubectl apply --server-side``; other managers leave the annotation alone."""


def read_applied_configuration(call: Call) -> JSONObject:
    """Return the configuration that a request applies; the caller owns it and its metadata.

    Raises:
        Refusal: 400 if it is not an object of the kind, 500 if it violates the schema.
    """
    found = _read_body(call)
    given = found.get("metadata")
    metadata = dict(given) if isinstance(given, dict) else {}
    entries = metadata.get("managedFields")
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        raise Refusal.bad_request("metadata.managedFields must be nil")
    if entries is None:
        metadata.pop("managedFields", None)
    name = metadata.setdefault("name", call.name)
    # Metadata or a name of the wrong type violates the schema, which is reported below.
    if (given and not isinstance(given, dict)) or (name is not None and not isinstance(name, str)):
        name = ""
    else:
        write_rules.check_name_given(call, metadata)
        write_rules.check_name(call, metadata)
    config = {**found, "metadata": metadata if isinstance(given, dict) or not given else given}
    if problem := write_rules.schema_mismatch(call, config):
        namespace, endpoint = metadata.get("namespace"), call.endpoint
        # The group of core kinds is empty, which leaves the slash.
        version = endpoint.api_version if endpoint.info.group else f"/{endpoint.version}"
        place = f"{namespace if isinstance(namespace, str) else ''}/{name or ''}"
        shown = f"{place}; {version}, Kind={endpoint.info.kind}"
        raise Refusal.internal_error(f"failed to create typed patch object ({shown}): {problem}")
    return config


def _read_body(call: Call) -> JSONObject:
    info, endpoint = call.endpoint.info, call.endpoint
    try:
        found = read_yaml(call.request.body, call.duplicates)
    except Refusal as problem:
        raise Refusal.bad_request(f"error decoding YAML: {problem.message}") from None
    if call.duplicates and call.query.get("fieldValidation") == "Strict":
        words = f"error converting YAML to JSON: {yaml_problem(call.duplicates)}"
        raise Refusal.bad_request(f"error strict decoding YAML: {words}")
    found = {} if found is None else found
    if not isinstance(found, dict):
        wanted = f"cannot unmarshal {go_type(found)} into Go value of type map[string]interface {{}}"
        raise Refusal.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: json: {wanted}")
    version, kind = str(found.get("apiVersion") or ""), str(found.get("kind") or "")
    if version != endpoint.api_version or kind != info.kind:
        raise Refusal.bad_request(f"invalid object type: {version if '/' in version else f'/{version}'}, Kind={kind}")
    return found


def apply_to_new(call: Call, config: JSONObject, owners: ManagedFields) -> list[ManagedFieldsEntry]:
    """Return the ``managedFields`` of an object that an apply creates."""
    schema, content = call.endpoint.schema, ownable_content(call, config)
    owners.apply(manager_key(call, "Apply"), _applied_fields(content, schema), Change({}, content), schema)
    _check_nulls(call, content, config, None)
    return owners.entries()


def apply_to_stored(call: Call, config: JSONObject, old: Stored, owners: ManagedFields) -> JSONObject:
    """Return the result of applying a configuration to an object, and update the owners in `owners`.

    Raises:
        Refusal: 409 for fields of other managers, unless the request forces, and for an outdated resourceVersion; 422
            for nulls that the schema does not allow; 500 for a stored object that cannot be converted.
    """
    schema, before = call.endpoint.schema, call.endpoint.to_served(old.doc)
    if write_rules.needs_conversion(call, before) and (text := write_rules.schema_mismatch(call, before)):
        raise Refusal.internal_error(text)
    key = manager_key(call, "Apply")
    live, content = ownable_content(call, before), ownable_content(call, config)
    if not owners.sets and not before["metadata"].get("managedFields"):
        existing = compare(call.endpoint.skeleton, live, schema)[0]
        if existing:
            owners.sets[ManagerKey(_UNOWNED, "Update", call.endpoint.api_version)] = existing
    last = owners.sets.get(key, {})
    fields = _applied_fields(content, schema)
    managed = fields
    for other, theirs in owners.sets.items():
        if other != key:
            managed = union(managed, theirs)
    pruned = prune(merge(live, content, schema), last, managed, schema)
    merged: JSONObject = pruned if isinstance(pruned, dict) else {}
    if "metadata" in live and not merged.get("metadata"):
        merged["metadata"] = {}
    reset = _reset_fields(call, config, before)
    if not go_bool(call.query.get("force", "")):
        found = left_to_kubectl(call, key, before, owners.conflicts(key, live, merged, schema, reset))
        if found:
            raise Refusal.apply_conflict(sorted((str(other), list(paths(theirs))) for other, theirs in found.items()))
    asked, known = config["metadata"], before["metadata"]
    changes_server_fields = any(key in asked and asked[key] != known.get(key) for key in _SERVER_FIELDS)
    changes_unowned = changes_server_fields or bool(reset.changed or reset.removed)
    owners.apply(key, fields, Change(live, merged, reset, changes_unowned), schema)
    doc = _assemble(call, config, before, merged)
    record_last_applied(key, config, doc)
    # A value that lost all its content became null, which a schema may not allow.
    _check_nulls(call, merged, doc, old)
    return doc


def _reset_fields(call: Call, config: JSONObject, before: JSONObject) -> ResetFields:
    if "status" not in config:
        return NO_RESET_FIELDS
    sent = merge(before.get("status"), config["status"], call.endpoint.schema.child("status") or ANYTHING)
    return reset_fields_of(call, before, {"status": sent})


def _check_nulls(call: Call, content: JSONObject, doc: JSONObject, old: Stored | None) -> None:
    """Check that the schema allows the nulls; they are not pruned from an applied configuration."""
    info, contents = call.endpoint.info, call.endpoint.contents
    own = {key: value for key, value in content.items() if key != "metadata"}
    if (
        _holds_null(own)
        and isinstance(contents, CustomContents)
        and _holds_null(_with_defaults_for_nulls(own, contents.node))
    ):
        if old is not None:
            write_rules.check_resource_version(call, old, doc["metadata"])
        before = None if old is None else call.endpoint.to_served(old.doc)
        errors = contents.check(_with_defaults_for_nulls(doc, contents.node), before, call.subresource, blocked=True)
        if any(error.field != "<nil>" for error in errors):
            raise Refusal.invalid(info.kind, info.group, call.name, errors)


def _applied_fields(content: JSONObject, schema: Node) -> FieldSet:
    """Return the fields that a configuration owns: not its metadata if that is empty."""
    owned = {key: value for key, value in content.items() if key != "metadata" or value}
    return fields_of(owned, schema, whole=False)


def _holds_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(member is None or _holds_null(member) for member in value.values())
    return isinstance(value, list) and any(map(_holds_null, value))


def _with_defaults_for_nulls(value: Any, node: Node) -> Any:
    """Return a value with defaults in place of nulls that the schema does not allow."""
    if isinstance(value, dict):
        return {key: _with_defaults_for_nulls(member, node.child(key) or ANYTHING) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_defaults_for_nulls(item, node.items or ANYTHING) for item in value]
    return node.default if value is None and not node.nullable and node.default is not NO_DEFAULT else value


def _assemble(call: Call, config: JSONObject, before: JSONObject, merged: JSONObject) -> JSONObject:
    if call.subresource == "status" and call.endpoint.resource.custom:
        kept = {key: value for key, value in before.items() if key != "status"}
        return {**kept, **merged, "metadata": {**before["metadata"], **_identity(config)}}
    owned_metadata = ownable_content(call, before).get("metadata", {})
    metadata = {key: value for key, value in before["metadata"].items() if key not in owned_metadata}
    doc = {**merged, "apiVersion": before["apiVersion"], "kind": before["kind"]}
    if call.subresource == "status":
        doc = {key: value for key, value in before.items() if key != "status"} | doc
    elif "status" in call.endpoint.subresources and "status" in before:
        doc["status"] = before["status"]
    asked = {} if call.endpoint.resource.custom else {key: config["metadata"].get(key) for key in _SERVER_FIELDS}
    # Built-in kinds are decoded as a whole, including the fields that then keep their old values.
    unread = {key: value for key, value in asked.items() if value is not None}
    doc["metadata"] = {**metadata, **merged.get("metadata", {}), **_identity(config), **unread}
    return doc


def _identity(config: JSONObject) -> JSONObject:
    metadata = config["metadata"]
    found = {key: metadata[key] for key in ("uid", "namespace") if metadata.get(key)}
    if metadata.get("resourceVersion") is not None:
        found["resourceVersion"] = metadata["resourceVersion"]
    return found


def _annotation(doc: JSONObject) -> Any:
    return (doc["metadata"].get("annotations") or {}).get(_ANNOTATION)


def left_to_kubectl(
    call: Call, key: ManagerKey, before: JSONObject, conflicts: dict[ManagerKey, FieldSet]
) -> dict[ManagerKey, FieldSet]:
    """Return the conflicts that remain: kubectl may take over what it has applied on the client's side."""
    text = _annotation(before)
    if key.manager != _KUBECTL or not text:
        return conflicts
    try:
        applied = read_json(str(text).encode())
    except InvalidJSON:
        return conflicts
    if not isinstance(applied, dict) or applied.get("apiVersion") != call.endpoint.api_version:
        return conflicts
    schema, content = call.endpoint.schema, ownable_content(call, applied)
    changed, removed = compare(content, ownable_content(call, before), schema)
    allowed = difference(difference(fields_of(content, schema, whole=False), changed), removed)
    left = {other: difference(fields, allowed) for other, fields in conflicts.items()}
    return {other: fields for other, fields in left.items() if fields}


def record_last_applied(key: ManagerKey, config: JSONObject, doc: JSONObject) -> None:
    """Update the annotation of an object that kubectl has applied; without the annotation, do nothing."""
    if key.manager != _KUBECTL or not _annotation(doc):
        return
    metadata = dict(config["metadata"])
    if metadata.get("annotations"):
        metadata["annotations"] = {key: text for key, text in metadata["annotations"].items() if key != _ANNOTATION}
    text = go_json({**config, "metadata": metadata}) + "\n"
    doc["metadata"]["annotations"] = {**doc["metadata"]["annotations"], _ANNOTATION: text}
