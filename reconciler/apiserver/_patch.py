"""Apply JSON merge patches and JSON patches without changing what is stored."""

from __future__ import annotations

from typing import Any

__all__ = ["PatchFailed", "json_patch", "merge_patch"]


class PatchFailed(Exception):
    """Say why a JSON patch cannot be applied."""


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` with an RFC 7386 merge patch applied.

    Null members vanish at any depth of what the patch brings, list items included, as the real server has it. What the
    patch does not touch is shared with `target`.
    """
    if not isinstance(patch, dict):
        return _pruned(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = merge_patch(merged.get(key), value)
        else:
            merged[key] = _pruned(value)
    return merged


def _pruned(value: Any) -> Any:
    """Drop null members of the objects in a list; null items stay."""
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    if isinstance(value, dict):
        return {key: _pruned(member) for key, member in value.items() if member is not None}
    return value


def json_patch(document: Any, operations: Any) -> Any:
    """Return `document` with an RFC 6902 patch applied.

    Raises:
        PatchFailed: an operation cannot be applied; the message says which and why.
    """
    if not isinstance(operations, list):
        raise PatchFailed("a JSON patch is a list of operations")
    for operation in operations:
        document = _apply(document, operation)
    return document


def _apply(document: Any, operation: Any) -> Any:
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        raise PatchFailed(f"unexpected operation: {operation}")
    op, path = operation.get("op"), _pointer(operation["path"])
    if op == "test":
        _test(document, path, operation)
        return document
    if op == "remove":
        return _edit(document, path, "remove", None)
    if op in ("add", "replace"):
        return _edit(document, path, op, operation.get("value"))
    if op in ("move", "copy"):
        if not isinstance(operation.get("from"), str):
            raise PatchFailed(f"unexpected operation: {operation}")
        source = _pointer(operation["from"])
        if op == "move":
            value = _read(document, source)
            document = _edit(document, source, "remove", None)
        else:
            value = _copied(document, source)
        return _edit(document, path, "add", value)
    raise PatchFailed(f"unexpected kind: {op}")


def _copied(document: Any, path: list[str]) -> Any:
    """Return a copied value; of a member that is not there the server's library copies null."""
    if path:
        parent = _read(document, path[:-1])
        if isinstance(parent, dict) and path[-1] not in parent:
            return None
    return _read(document, path)


def _test(document: Any, path: list[str], operation: dict[str, Any]) -> None:
    try:
        found = _read(document, path)
    except PatchFailed:
        found = None
    if not _same(found, operation.get("value")):
        raise PatchFailed(f"testing value {operation['path']} failed: test failed")


def _same(one: Any, other: Any) -> bool:
    """Compare JSON values: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _pointer(text: str) -> list[str]:
    if not text:
        return []
    _, slash, rest = text.partition("/")
    if not slash:
        raise PatchFailed(f"the pointer {text!r} does not begin with a slash")
    return [part.replace("~1", "/").replace("~0", "~") for part in rest.split("/")]


def _read(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document) - 1)]
        else:
            raise PatchFailed(f"doc is missing key: /{'/'.join(path)}: missing value")
    return document


def _index(part: str, last: int) -> int:
    if part[:1] == "-" and part[1:].isdigit() and int(part[1:]) <= last + 1:
        # The server's library counts from the end as well.
        return last + 1 - int(part[1:])
    if part != "0" and (not part.isdigit() or part.startswith("0")):
        raise PatchFailed(f"invalid index referenced: {part}")
    if int(part) > last:
        raise PatchFailed(f"invalid index referenced: {part}: index out of range")
    return int(part)


def _edit(document: Any, path: list[str], op: str, value: Any) -> Any:
    """Return a document with one place added, replaced or removed; what lies beside the path is shared."""
    if not path:
        if op == "remove":
            raise PatchFailed("the whole document cannot be removed")
        return value
    if isinstance(document, dict):
        return _edit_member(document, path, op, value)
    if isinstance(document, list):
        return _edit_item(document, path, op, value)
    raise PatchFailed(f"{op} operation does not apply: doc is missing path: /{'/'.join(path)}: missing value")


def _edit_member(document: dict[str, Any], path: list[str], op: str, value: Any) -> Any:
    changed, head, rest = dict(document), path[0], path[1:]
    # The server's library replaces members that are not there; only what lies below them has to be.
    if head not in changed and (rest or op == "remove"):
        raise PatchFailed(f"{op} operation does not apply: doc is missing key: /{'/'.join(path)}: missing value")
    if rest:
        changed[head] = _edit(changed[head], rest, op, value)
    elif op == "remove":
        del changed[head]
    else:
        changed[head] = value
    return changed


def _edit_item(document: list[Any], path: list[str], op: str, value: Any) -> Any:
    changed, head, rest = list(document), path[0], path[1:]
    if not rest and op == "add":
        position = len(changed) if head == "-" else _index(head, len(changed))
        changed.insert(position, value)
        return changed
    position = _index(head, len(changed) - 1)
    if rest:
        changed[position] = _edit(changed[position], rest, op, value)
    elif op == "remove":
        del changed[position]
    else:
        changed[position] = value
    return changed
