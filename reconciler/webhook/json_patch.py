"""JSON Patch (RFC 6902), the form in which a mutating webhook returns its changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.wire import JSONObject

__all__ = ["apply_json_patch", "json_patch", "same"]


def json_patch(before: Any, after: Any) -> list[JSONObject]:
    """Return the operations that turn `before` into `after`; lists that differ are replaced as a whole."""
    return list(_operations(before, after, ""))


def _operations(before: Any, after: Any, path: str) -> Iterator[JSONObject]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key not in after:
                yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
        for key, value in after.items():
            if key not in before:
                yield {"op": "add", "path": f"{path}/{_escaped(key)}", "value": value}
            else:
                yield from _operations(before[key], value, f"{path}/{_escaped(key)}")
    elif not same(before, after):
        yield {"op": "replace", "path": path, "value": after}


def same(left: Any, right: Any) -> bool:
    """Return whether two documents are equal as JSON: unlike in Python, true is not 1 and 1 is not 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def apply_json_patch(document: Any, operations: list[Any]) -> Any:
    """Return a copy of a document with operations of `json_patch` applied."""
    for operation in operations:
        parts = [_unescaped(part) for part in operation["path"].split("/")[1:]]
        document = _apply(document, parts, operation)
    return document


def _apply(document: Any, parts: list[str], operation: JSONObject) -> Any:
    if not parts:
        return operation["value"]
    result = dict(document)
    if len(parts) > 1:
        result[parts[0]] = _apply(result[parts[0]], parts[1:], operation)
    elif operation["op"] == "remove":
        del result[parts[0]]
    else:
        result[parts[0]] = operation["value"]
    return result


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
