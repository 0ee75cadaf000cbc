"""Server-side apply: the configuration of a request, its merge into the object, and the resulting field owners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler._core.wire import JSONObject, JSONValue, ManagedFieldsEntry
from reconciler.apiserver.cluster import CustomContents
from reconciler.apiserver.encoding.json_documents import InvalidJSON, read_json
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import go_bool, go_json, go_type
from reconciler.apiserver.managed_fields import (
    NO_RESET_FIELDS,
    Change,
    FieldManager,
    FieldSet,
    ManagerKey,
    ResetFields,
    compare,
    difference,
    fields_of,
    is_granular,
    items_by_element,
    manager_key,
    ownable_content,
    path_element,
    paths,
    reset_fields_of,
    union,
)
from reconciler.apiserver.requests.bodies import read_yaml, yaml_problem
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.schema import ANYTHING, NO_DEFAULT, Node
from reconciler.apiserver.store import Stored
from reconciler.apiserver.verbs import write_rules

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


def apply_to_new(call: Call, config: JSONObject, owners: FieldManager) -> list[ManagedFieldsEntry]:
    """Return the ``managedFields`` of an object that an apply creates."""
    schema, content = call.endpoint.schema, ownable_content(call, config)
    owners.apply(manager_key(call, "Apply"), _applied_fields(content, schema), Change({}, content), schema)
    _check_nulls(call, content, config, None)
    return owners.entries()


def apply_to_stored(call: Call, config: JSONObject, old: Stored, owners: FieldManager) -> JSONObject:
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


# The merge, as in structured-merge-diff.


def merge(live: JSONValue, config: JSONValue, node: Node) -> JSONValue:
    """Return a value with an applied one merged into it; unchanged parts are shared.

    A null does not replace a granular object or list that has content.
    """
    if config is None and live and is_granular(live, node):
        return live
    if node.map_type != "atomic" and isinstance(live, dict) and isinstance(config, dict):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = merge(live[key], value, node.child(key) or ANYTHING) if key in live else value
        return merged
    if node.list_type in ("set", "map") and isinstance(live, list) and isinstance(config, list):
        return _merge_lists(live, config, node)
    return config


def _merge_lists(live: list[JSONValue], config: list[JSONValue], node: Node) -> list[JSONValue]:
    """Merge lists by path element.

    Items in both lists are in the applied order; items that are only live keep their place. Duplicates among the live
    items stay unless the item is applied, which then replaces them all.
    """
    schema = node.items or ANYTHING
    left, right = [path_element(item, node) for item in live], [path_element(item, node) for item in config]
    old, new = items_by_element(live, node), dict(zip(right, config, strict=True))
    shared = [element for element in right if element in old]
    found: list[JSONValue] = []
    done: set[str] = set()
    at, to = 0, 0

    def take(element: str) -> None:
        known = old.get(element, ())
        found.append(merge(known[0], new[element], schema) if len(known) == 1 else new[element])
        done.add(element)
        if shared and shared[0] == element:
            del shared[0]

    while at < len(left) or to < len(right):
        if at < len(left) and to < len(right):
            if left[at] == right[to]:
                take(right[to])
                at, to = at + 1, to + 1
                continue
            if left[at] in new and shared and shared[0] != left[at]:
                at += 1
                continue
        if at < len(left):
            if left[at] not in new:
                found.append(live[at])
                at += 1
                continue
            if left[at] in done:
                at += 1
        if to < len(right):
            take(right[to])
            to += 1
    return found


def prune(value: JSONValue, last: FieldSet, managed: FieldSet, node: Node) -> JSONValue:
    """Return a value without what its manager applied last time and no manager owns any more.

    An object or list that loses all its content becomes null, as in the real server's library.
    """
    if isinstance(value, dict):
        kept = _pruned_members(value, last, managed, node)
        return kept if kept or not value else None
    if isinstance(value, list) and node.list_type in ("set", "map"):
        items = list(_pruned_items(value, last, managed, node))
        return items if items or not value else None
    return value


def _pruned_members(value: JSONObject, last: FieldSet, managed: FieldSet, node: Node) -> JSONObject:
    kept = dict(value)
    for element, below in last.items():
        key = element[2:]
        if element == "." or key not in kept:
            continue
        if element not in managed:
            del kept[key]
        elif below:
            kept[key] = prune(kept[key], below, managed[element], node.child(key) or ANYTHING)
    return kept


def _pruned_items(value: list[JSONValue], last: FieldSet, managed: FieldSet, node: Node) -> Iterator[JSONValue]:
    for item in value:
        element = path_element(item, node)
        below = last.get(element)
        if below is None or element in managed:
            yield prune(item, below, managed[element], node.items or ANYTHING) if below else item
