"""Patches: JSON patch, JSON merge patch and strategic merge patch, applied to a copy of the document."""

from __future__ import annotations

import re
from typing import cast

from reconciler.apiserver.encoding.json_documents import InvalidJSON, check_value
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import go_type
from reconciler.apiserver.requests.bodies import (
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    decode_patch,
    duplicate_fields,
)
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.storage.store import encode
from reconciler.apiserver.verbs.strategic_patch import strategic_merge
from reconciler.wire import JSONObject, JSONValue

__all__ = ["PatchFailed", "apply_patch", "json_patch", "merge_patch"]


def apply_patch(call: Call, kind: str, before: JSONObject) -> JSONValue:
    """Return the result of applying a request's patch, which is not that of an apply, to a document.

    Raises:
        Refusal: 400 for an invalid patch, 413 for one with too many operations, 422 for one that cannot be applied.
    """
    patch = _read_patch(call, kind)
    try:
        if kind == JSON_PATCH:
            found = json_patch(before, patch)
            check_value(found)
            return found
        if kind == STRATEGIC_PATCH:
            return strategic_merge(before, cast("JSONObject", patch), call.endpoint.schema)
        return merge_patch(before, patch)
    except (PatchFailed, InvalidJSON):
        raise Refusal.patch_rejected() from None


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


MAX_OPERATIONS = 10_000
"""Operations of a JSON patch, as in kube-apiserver."""

MAX_COPIED_BYTES = 3 * 1024 * 1024
"""Bytes that the copy operations of a JSON patch may add, as in kube-apiserver."""

_INDEX = re.compile("0|-?[1-9][0-9]{0,8}|-0")


class PatchFailed(Exception):
    """A JSON patch that cannot be applied."""


def merge_patch(target: JSONValue, patch: JSONValue) -> JSONValue:
    """Return `target` with an RFC 7386 merge patch applied; unchanged parts are shared with `target`.

    Nulls are removed at any depth of what the patch adds, also in items of lists, as on the real server.
    """
    if not isinstance(patch, dict):
        return _without_nulls(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = merge_patch(merged.get(key), value)
        else:
            merged[key] = _without_nulls(value)
    return merged


def _without_nulls(value: JSONValue) -> JSONValue:
    """Remove null fields of the objects in a list; null items stay."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return value


def json_patch(document: JSONValue, operations: JSONValue) -> JSONValue:
    """Return `document` with an RFC 6902 patch applied.

    Raises:
        PatchFailed: an operation cannot be applied; the message says which and why.
    """
    if not isinstance(operations, list):
        raise PatchFailed("a JSON patch is a list of operations")
    document, copied = _deep_copy(document), 0
    for operation in operations:
        if not isinstance(operation, dict):
            raise PatchFailed(f"unexpected operation: {operation}")
        op, path = operation.get("op"), _pointer(operation, "path")
        if op == "test":
            _test(document, path, operation)
        elif op == "remove":
            document = _change(document, path, "remove", None)
        elif op in ("add", "replace"):
            document = _change(document, path, op, operation.get("value"))
        elif op in ("move", "copy"):
            source = _pointer(operation, "from")
            if op == "move":
                value = _read(document, source)
                document = _change(document, source, "remove", None)
            else:
                value, size = _copy_value(document, source)
                copied += size
                if copied > MAX_COPIED_BYTES:
                    raise PatchFailed(f"the copies have more than {MAX_COPIED_BYTES} bytes")
            document = _change(document, path, "add", value)
        else:
            raise PatchFailed(f"unexpected kind: {op}")
    return document


def _deep_copy(value: JSONValue) -> JSONValue:
    """Return a copy that may be changed in place."""
    if isinstance(value, dict):
        return {key: _deep_copy(member) for key, member in value.items()}
    return [_deep_copy(item) for item in value] if isinstance(value, list) else value


def _copy_value(document: JSONValue, path: list[str]) -> tuple[JSONValue, int]:
    """Return a copied value and its size as JSON; like the real server, copy null if the field is missing."""
    value = None
    parent = _read(document, path[:-1]) if path else None
    if not isinstance(parent, dict) or path[-1] in parent:
        value = _read(document, path)
    try:
        check_value(value)
    except InvalidJSON as error:
        raise PatchFailed(str(error)) from None
    return _deep_copy(value), len(encode(value))


def _test(document: JSONValue, path: list[str], operation: JSONObject) -> None:
    try:
        found = _read(document, path)
    except PatchFailed:
        found = None
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
    text = operation.get(member)
    if not isinstance(text, str):
        raise PatchFailed(f"unexpected operation: {operation}")
    if text and "/" not in text:
        raise PatchFailed(f"the pointer {text!r} does not begin with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _read(document: JSONValue, path: list[str]) -> JSONValue:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document) - 1)]
        else:
            raise PatchFailed(f"doc is missing key: /{'/'.join(path)}: missing value")
    return document


def _index(part: str, last: int) -> int:
    if not _INDEX.fullmatch(part):
        raise PatchFailed(f"invalid index referenced: {part}")
    # The real server accepts indexes from the end as well.
    index = last + 1 + int(part) if part[0] == "-" else int(part)
    if not 0 <= index <= last:
        raise PatchFailed(f"invalid index referenced: {part}: index out of range")
    return index


def _change(document: JSONValue, path: list[str], op: str, value: JSONValue) -> JSONValue:
    """Add, replace or remove one field or item of a document, and return the document."""
    if not path:
        if op == "remove":
            raise PatchFailed("the whole document cannot be removed")
        return value
    parent, last = _read(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        # The real server replaces missing fields too; only their parents must exist.
        if op == "remove" and last not in parent:
            raise PatchFailed(f"{op} operation does not apply: doc is missing key: /{'/'.join(path)}: missing value")
        if op == "remove":
            del parent[last]
        else:
            parent[last] = value
    elif isinstance(parent, list):
        if op == "add":
            parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)
        elif op == "remove":
            del parent[_index(last, len(parent) - 1)]
        else:
            parent[_index(last, len(parent) - 1)] = value
    else:
        raise PatchFailed(f"{op} operation does not apply: doc is missing path: /{'/'.join(path)}: missing value")
    return document
