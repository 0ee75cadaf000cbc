"""Server-side apply: the configuration of a request, its merge into the object, and who owns which fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler._core.wire import JSONObject, JSONValue, ManagedFieldsEntry
from reconciler.apiserver.cluster import CustomContents
from reconciler.apiserver.encoding.json_documents import InvalidJSON, read_json
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import GO_TYPES, go_bool, go_json, go_syntax, go_type, go_value, quoted
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
from reconciler.apiserver.schema import ANYTHING, NO_DEFAULT, Node, item_key
from reconciler.apiserver.store import Stored
from reconciler.apiserver.verbs import write_rules
from reconciler.apiserver.verbs.decoding import read_yaml, yaml_problem
from reconciler.apiserver.verbs.routing import Call

_TYPE_META = ("apiVersion", "kind")
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
    if problem := schema_mismatch(call, config):
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
    if needs_conversion(call, before) and (text := schema_mismatch(call, before)):
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


def can_track_owners(call: Call, doc: JSONObject, before: JSONObject) -> bool:
    """Return whether field owners can be tracked; otherwise the real server drops all of them.

    They cannot if a part that the request does not write has the wrong type; the parts that it writes are checked
    elsewhere.
    """
    if needs_conversion(call, before):
        return not any(schema_mismatch(call, each) for each in (before, doc))
    if not call.endpoint.resource.custom or "status" not in call.endpoint.subresources:
        return True
    keys = doc.keys() - {*_TYPE_META, "metadata", "status"} if call.subresource == "status" else {"status"} & doc.keys()
    ignored = {key: doc[key] for key in doc if key in keys and doc[key] is not before.get(key)}
    return all("duplicate entries" in problem for problem in type_errors(ignored, call.endpoint.schema))


def needs_conversion(call: Call, before: JSONObject) -> bool:
    """Return whether tracking owners converts a document, because managers wrote it in other versions.

    A converted document must match the schema as a whole; one that is not may have duplicates in its lists.
    """
    endpoint = call.endpoint
    entries = (before.get("metadata") or {}).get("managedFields") or ()
    versions = {each.api_version for each in endpoint.resource.endpoints.values()} - {endpoint.api_version}
    return any(entry.get("apiVersion") in versions for entry in entries)


def schema_mismatch(call: Call, doc: JSONObject) -> str:
    """Return how a document violates the schema, in the words of structured-merge-diff, or nothing."""
    content = {key: value for key, value in doc.items() if key not in _TYPE_META}
    problems = list(type_errors(content, call.endpoint.schema))
    if len(problems) < 2:
        return "".join(problems)
    return "errors:\n" + "\n".join(f"  {problem}" for problem in problems)


def managed_fields_of(old: Stored | None) -> list[ManagedFieldsEntry]:
    """Return the ``managedFields`` of a stored object; an empty list if there are none."""
    return [] if old is None else list(old.doc["metadata"].get("managedFields") or ())


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


# Violations of a schema, as in structured-merge-diff.

_NO_KEY: Mapping[type, str] = {
    dict: "associative list without keys has an element that's a map type",
    list: "not supported: associative list with lists as elements",
    type(None): "associative list without keys has an element that's an explicit null",
}


def type_errors(value: JSONValue, node: Node, path: str = "") -> Iterator[str]:
    """Yield how an applied configuration violates the schema, in the words of structured-merge-diff."""
    if node is ANYTHING or value is None:
        return
    if node.type == "object" or node.properties:
        yield from _object_problems(value, node, path)
    elif node.type == "array":
        yield from _list_problems(value, node, path)
    elif problem := _scalar_problem(value, node):
        yield f"{path}: {problem}"


def _object_problems(value: JSONValue, node: Node, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected map, got {_boxed(value)}"
        return
    for key, member in value.items():
        child = node.child(key)
        if child is None:
            if not node.preserve:
                yield f"{path}.{key}: field not declared in schema"
        else:
            yield from type_errors(member, child, f"{path}.{key}")


def _list_problems(value: JSONValue, node: Node, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected list, got {_boxed(value)}"
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        where = f"[{index}]"
        if node.list_type in ("set", "map"):
            if problem := _key_error(item, node):
                # structured-merge-diff reports nothing more about such a list.
                yield f"{path}: element {index}: {problem}"
                return
            element, where = path_element(item, node), _bracketed(item, node)
            if element in seen:
                yield f"{path}: duplicate entries for key {where}"
            seen.add(element)
        if node.items is not None:
            yield from type_errors(item, node.items, f"{path}{where}")


def _key_error(item: JSONValue, node: Node) -> str:
    """Return why an item of a set or keyed list has no path element, or nothing."""
    if node.list_type == "set":
        return _NO_KEY.get(type(item), "")
    if not isinstance(item, dict):
        return f"associative list with keys may not have {'a null element' if item is None else 'non-map elements'}"
    if path_element(item, node) != "k:{}":
        return ""
    keys = go_json(list(node.map_keys)).replace('","', '" "')
    return (
        f"associative list with keys has an element that omits all key fields {keys} (and doesn't have default values "
        "for any key fields)"
    )


def _bracketed(item: JSONValue, node: Node) -> str:
    if node.list_type == "set":
        return f"[={_shown(item)}]"
    return f"[{','.join(f'{key}={_shown(value)}' for key, value in sorted(item_key(item, node).items()))}]"


def _shown(value: JSONValue) -> str:
    """Return a value as structured-merge-diff shows it in a path."""
    if isinstance(value, dict):
        return "".join(f"{key}={_shown(member)}" for key, member in value.items())
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return quoted(value)


def _scalar_problem(value: JSONValue, node: Node) -> str:
    if node.format == "quantity" or (node.type == "string" and node.format not in ("", "byte")):
        return "" if not isinstance(value, (dict, list)) else f"expected any scalar, got {_boxed(value)}"
    if not node.type:
        return ""
    if node.type in ("integer", "number"):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if fits else f"expected numeric (int or float), got {GO_TYPES[type(value)]}"
    if node.type == "boolean":
        return "" if isinstance(value, bool) else f"expected boolean, got {_boxed(value)}"
    shown = f"&value.valueUnstructured{{Value:{go_syntax(value)}}}"
    return "" if isinstance(value, str) else f"expected string, got {shown}"


def _boxed(value: JSONValue) -> str:
    """Return a value as structured-merge-diff shows it in an error."""
    return f"&{{{go_value(value)}}}"
