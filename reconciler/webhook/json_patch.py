"""Write the difference of two documents as a JSON Patch (RFC 6902), which is what a mutating webhook answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["apply_json_patch", "json_patch", "same"]


def json_patch(before: Any, after: Any) -> list[dict[str, Any]]:
    """Return the operations that make `after` of `before`; lists that differ are replaced as a whole."""
    return list(_operations(before, after, ""))


def _operations(before: Any, after: Any, path: str) -> Iterator[dict[str, Any]]:
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
    """Say whether two documents are written alike: unlike in Python, true is not 1 and 1 is not 1.0, at any depth."""
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
    """Return a document with the operations of `json_patch` done; the one that was given stays as it is."""
    for operation in operations:
        parts = [_unescaped(part) for part in operation["path"].split("/")[1:]]
        document = _applied(document, parts, operation)
    return document


def _applied(document: Any, parts: list[str], operation: dict[str, Any]) -> Any:
    if not parts:
        return operation["value"]
    result = dict(document)
    if len(parts) > 1:
        result[parts[0]] = _applied(result[parts[0]], parts[1:], operation)
    elif operation["op"] == "remove":
        del result[parts[0]]
    else:
        result[parts[0]] = operation["value"]
    return result


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
