"""Patches: JSON patch, JSON merge patch and strategic merge patch, applied to a copy of the document.

In a strategic merge patch, lists of built-in kinds merge by the keys that their types declare.
"""

from __future__ import annotations

import contextlib
import heapq
import re
from collections.abc import Callable
from typing import Any, cast

from reconciler._core.wire import JSONObject, JSONValue, exceeds_max_levels
from reconciler.apiserver.encoding.json_documents import merge_patch
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import GO_TYPES, go_json, go_type, go_value
from reconciler.apiserver.schema import ANYTHING, Node
from reconciler.apiserver.store import encode
from reconciler.apiserver.verbs.decoding import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, decode_patch, duplicate_fields
from reconciler.apiserver.verbs.routing import Call

MAX_OPERATIONS = 10_000
"""Operations of a JSON patch, as in kube-apiserver."""
MAX_COPIED_BYTES = 3 * 1024 * 1024
"""Bytes that the copy operations of a JSON patch may add, as in kube-apiserver."""
_INDEX = re.compile("0|-?[1-9][0-9]{0,8}|-0")
_DIRECTIVE, _RETAIN = "$patch", "$retainKeys"
_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def apply_patch(call: Call, kind: str, before: JSONObject) -> JSONValue:
    """Return the result of applying a request's patch, which is not that of an apply, to a document.

    Raises:
        Refusal: 400 for an invalid patch, 413 for one with too many operations, 422 for one that cannot be applied.
    """
    patch = _read_patch(call, kind)
    try:
        if kind == JSON_PATCH:
            found = json_patch(before, cast("list[Any]", patch))
            if exceeds_max_levels(found):
                raise PatchFailed("exceeded max depth")
            return found
        if kind == STRATEGIC_PATCH:
            return strategic_merge(before, cast("JSONObject", patch), call.endpoint.schema)
        return cast("JSONValue", merge_patch(before, patch))
    except PatchFailed:  # the response does not say why
        why = "the server rejected our request due to an error in our request"
        raise Refusal(422, "Invalid", why, details={}) from None


def _read_patch(call: Call, kind: str) -> JSONValue:
    try:
        patch: JSONValue = decode_patch(call.request.body)
    except Refusal as refusal:
        if kind != STRATEGIC_PATCH:
            raise
        # The library for strategic patches returns its message without a prefix.
        raise Refusal.bad_request(refusal.message.removeprefix("error decoding patch: ")) from None
    if kind == MERGE_PATCH and patch is None:
        raise Refusal.bad_request("Invalid JSON Patch")
    if patch is None:
        # Go decodes null as an empty list or map.
        return [] if kind == JSON_PATCH else {}
    if not isinstance(patch, list if kind == JSON_PATCH else dict):
        wanted = "[]handlers.jsonPatchOp" if kind == JSON_PATCH else "map[string]interface {}"
        problem = f"json: cannot unmarshal {go_type(patch)} into Go value of type {wanted}"
        raise Refusal.bad_request(problem if kind == STRATEGIC_PATCH else f"error decoding patch: {problem}")
    if kind == JSON_PATCH and len(patch) > MAX_OPERATIONS:
        raise Refusal.too_large(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}")
    if kind == MERGE_PATCH:
        call.duplicates += duplicate_fields(call.request.body, patch)
    return patch


class PatchFailed(Exception):
    """A JSON patch that cannot be applied."""


def json_patch(document: JSONValue, operations: list[Any]) -> JSONValue:
    """Return `document` with an RFC 6902 patch applied.

    Raises:
        PatchFailed: an operation cannot be applied; the message says which and why.
    """
    root, copied = {"": _deep_copy(document)}, 0
    for operation in operations:
        if not isinstance(operation, dict):
            raise PatchFailed(f"unexpected operation: {operation}")
        op, path, value = operation.get("op"), _pointer(operation, "path"), operation.get("value")
        if op == "move":
            source = _pointer(operation, "from")
            value = _read(root, source)
            _change(root, source, "remove", None)
        elif op == "copy":
            value = _copied(root, _pointer(operation, "from"))
            copied += len(encode(value))
            if copied > MAX_COPIED_BYTES:
                raise PatchFailed(f"the copies have more than {MAX_COPIED_BYTES} bytes")
        if op == "test":
            _test(root, path, operation)
        elif op in ("add", "copy", "move", "remove", "replace"):
            _change(root, path, op if op in ("remove", "replace") else "add", value)
        else:
            raise PatchFailed(f"unexpected kind: {op}")
    return root[""]


def _deep_copy(value: JSONValue) -> JSONValue:
    """Return a copy that may be changed in place."""
    if isinstance(value, dict):
        return {key: _deep_copy(member) for key, member in value.items()}
    return [_deep_copy(item) for item in value] if isinstance(value, list) else value


def _copied(root: JSONObject, path: list[str]) -> JSONValue:
    """Return a copied value; like the real server, copy null if the field is missing."""
    parent = _read(root, path[:-1])
    value = None if isinstance(parent, dict) and path[-1] not in parent else _read(root, path)
    if exceeds_max_levels(value):
        raise PatchFailed("exceeded max depth")
    return _deep_copy(value)


def _test(root: JSONObject, path: list[str], operation: JSONObject) -> None:
    found = None
    with contextlib.suppress(PatchFailed):
        found = _read(root, path)
    if not _json_equal(found, operation.get("value")):
        raise PatchFailed(f"testing value {operation['path']} failed: test failed")


def _json_equal(one: JSONValue, other: JSONValue) -> bool:
    """Compare JSON values: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_json_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_json_equal, one, other))
    return bool(one == other)


def _pointer(operation: JSONObject, member: str) -> list[str]:
    """Return the parts of a pointer; the first one is empty and stands for the whole document."""
    text = operation.get(member)
    if not isinstance(text, str):
        raise PatchFailed(f"unexpected operation: {operation}")
    if text and "/" not in text:
        raise PatchFailed(f"the pointer {text!r} does not begin with a slash")
    return ["", *(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])]


def _read(document: JSONValue, path: list[str]) -> JSONValue:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document) - 1)]
        else:
            raise PatchFailed(f"doc is missing key: {'/'.join(path)}: missing value")
    return document


def _index(part: str, last: int) -> int:
    if not _INDEX.fullmatch(part):
        raise PatchFailed(f"invalid index referenced: {part}")
    # The real server accepts indexes from the end as well.
    index = last + 1 + int(part) if part[0] == "-" else int(part)
    if not 0 <= index <= last:
        raise PatchFailed(f"invalid index referenced: {part}: index out of range")
    return index


def _change(root: JSONObject, path: list[str], op: str, value: JSONValue) -> None:
    """Add, replace or remove one field or item, or the whole document."""
    parent: Any = _read(root, path[:-1])
    where: Any = path[-1]
    if op == "remove" and parent is root:
        raise PatchFailed("the whole document cannot be removed")
    if isinstance(parent, list):
        last = len(parent) - 1 if op != "add" else len(parent)
        where = last if op == "add" and where == "-" else _index(where, last)
    elif not isinstance(parent, dict) or (op == "remove" and where not in parent):
        # The real server replaces missing fields too; only their parents must exist.
        raise PatchFailed(f"{op} operation does not apply: doc is missing path: {'/'.join(path)}: missing value")
    if op == "remove":
        del parent[where]
    elif op == "add" and isinstance(parent, list):
        parent.insert(where, value)
    else:
        parent[where] = value


def strategic_merge(target: Any, patch: JSONObject, node: Node) -> JSONObject:
    """Return an object with a strategic merge patch applied; unchanged parts are shared.

    Raises:
        Refusal: 400 or 500, as the real server, for an invalid directive or an item without its merge key.
    """
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise Refusal.internal_error(f"unknown patch type: {directive} in map: {go_value(patch)}")
    merged = _retained(dict(target) if isinstance(target, dict) else {}, patch)
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith((_ORDER, _DELETE)):
            continue
        if value is None:
            merged.pop(key, None)
        else:
            if key not in merged and isinstance(value, dict) and _DIRECTIVE in value:
                # New values are added unmerged, and one with a directive is not added at all.
                continue
            child = node.child(key) or ANYTHING
            merged[key] = _merge_member(merged.get(key), value, child, patch.get(_ORDER + key))
    return merged


def _retained(members: JSONObject, patch: JSONObject) -> JSONObject:
    """Return the fields of an object that a patch keeps, before the merge."""
    retained = patch.get(_RETAIN)
    if retained is not None:
        if not isinstance(retained, list):
            raise Refusal.bad_request("invalid patch format of retainKeys")
        members = {key: value for key, value in members.items() if key in retained}
    for key, gone in patch.items():
        name = key.removeprefix(_DELETE)
        if key.startswith(_ORDER) and not isinstance(gone, list):
            raise Refusal.internal_error(f"expected a []interface {{}}, but received a {GO_TYPES[type(gone)]}")
        if name != key and isinstance(gone, list) and isinstance(members.get(name), list):
            unwanted = set(map(go_json, gone))
            members[name] = [item for item in members[name] if go_json(item) not in unwanted]
            if not members[name] and name not in patch:
                del members[name]
    return members


def _merge_member(old: Any, new: Any, node: Node, order: Any) -> Any:
    if isinstance(new, dict):
        return strategic_merge(old, new, node)
    if isinstance(new, list) and node.merge:
        items = old if isinstance(old, list) else []
        if node.merge_key and _are_objects(items, new):
            return _merge_objects(items, new, node, order)
        # Scalars are unique in a merged list.
        merged = _in_order(list({go_json(item): item for item in (*items, *new)}.values()), new, items, go_json)
        return merged if order is None else _in_order(merged, order, items, go_json)
    return new


def _are_objects(old: list[Any], new: list[Any]) -> bool:
    """Return whether lists contain objects, which merge by key."""
    kinds = {type(item) for item in (*old, *new)}
    if old and len(kinds) > 1:
        raise Refusal.internal_error(f"list element types are not identical: {go_value([old, new])}")
    return kinds <= {dict}


def _merge_objects(old: list[Any], new: list[Any], node: Node, order: Any) -> list[Any]:
    key = node.merge_key
    if any(item == {_DIRECTIVE: "replace"} for item in new):
        return [item for item in new if item != {_DIRECTIVE: "replace"}]

    def name(item: Any) -> str:
        if not isinstance(item, dict) or key not in item:
            raise Refusal.internal_error(f"map: {go_value(item)} does not contain declared merge key: {key}")
        return go_json(item[key])

    by_name: dict[str, list[Any]] = {}
    for item in old:
        by_name.setdefault(name(item), []).append(item)
    changed = []
    for item in new:
        known = by_name.get(name(item), [])
        if item.get(_DIRECTIVE) == "delete":
            by_name.pop(name(item), None)
            continue
        changed.append(item)
        by_name[name(item)] = [strategic_merge(known[0] if known else {}, item, node.items or ANYTHING), *known[1:]]
    merged = [item for items in by_name.values() for item in items]
    if order is not None:
        _check_order(changed, order, name)
    wanted = changed if order is None else order
    return _in_order(merged, wanted, old, name)


def _check_order(changed: list[Any], order: list[Any], name: Callable[[Any], str]) -> None:
    """Check that the patched items are in the order of ``$setElementOrder``."""
    listed = iter([name(item) for item in order])
    if not all(name(item) in listed for item in changed):
        raise Refusal.internal_error(
            f"The order in patch list:\n{go_value(changed)}\n doesn't match $setElementOrder list:\n{go_value(order)}\n"
        )


def _in_order(items: list[Any], wanted: list[Any], before: list[Any], name: Callable[[Any], str]) -> list[Any]:
    """Order items: the listed ones in their order, the others where they were, new ones first.

    Items with one key stay together.
    """
    by_name: dict[str, list[Any]] = {}
    for item in items:
        by_name.setdefault(name(item), []).append(item)
    listed = {text: -1 for text in map(name, wanted) if text in by_name}
    positions = listed | {name(item): index for index, item in enumerate(before)}
    others = [text for text in by_name if text not in listed]
    found = heapq.merge(others, listed, key=lambda text: positions.get(text, len(before)))
    return [item for text in found for item in by_name[text]]
