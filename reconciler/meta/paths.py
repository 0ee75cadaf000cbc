"""Address a value inside a document.

A path is a sequence of keys, or a text with dots between them (``"a.b"``). Keys that contain a dot need the sequence
form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["PathError", "delete_path", "format_path", "get_path", "parse_path", "set_path"]


class PathError(ValueError):
    """Say that a path is empty, or leads through a value that is no object."""


def parse_path(path: str | Sequence[str]) -> tuple[str, ...]:
    """Return the keys of a path.

    Raises:
        PathError: the path is empty or has an empty key.
    """
    keys = tuple(path.split(".")) if isinstance(path, str) else tuple(path)
    if not keys or not all(keys):
        raise PathError(f"{path!r} is no path: write 'a.b', or a sequence of keys that are not empty")
    return keys


def format_path(keys: Sequence[str]) -> str:
    """Return a path as people read it, keys with dots in brackets."""
    text = "".join(f"[{key}]" if "." in key else f".{key}" for key in keys)
    return text.removeprefix(".")


def get_path(document: Any, keys: Sequence[str], default: Any = None) -> Any:
    """Return the value at a path, or `default` where it leads nowhere."""
    value = document
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value


def set_path(document: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Put a value at a path, making the objects on the way; null or absent ones are made too.

    Raises:
        PathError: the path leads through a list or a scalar.
    """
    *parents, last = keys
    target = document
    for depth, key in enumerate(parents):
        child = target.get(key)
        if child is None:
            child = target[key] = {}
        if not isinstance(child, dict):
            raise PathError(
                f"{format_path(keys)!r} leads through {format_path(keys[: depth + 1])!r}, which is no object"
            )
        target = child
    target[last] = value


def delete_path(document: dict[str, Any], keys: Sequence[str]) -> bool:
    """Remove the value at a path; say whether there was one."""
    *parents, last = keys
    target = get_path(document, parents, None) if parents else document
    if not isinstance(target, dict) or last not in target:
        return False
    del target[last]
    return True
