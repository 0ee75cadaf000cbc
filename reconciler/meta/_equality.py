"""Compare documents by what they mean to an API server.

A null member means the same as an absent one, key order means nothing, and ``1`` equals ``1.0``; but a boolean is
never a number and a number is never a string, unlike in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["equal", "without_nulls"]


def equal(left: Any, right: Any) -> bool:
    """Say whether two JSON values mean the same."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        keys = left.keys() | right.keys()
        return all(equal(left.get(key), right.get(key)) for key in keys)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right
    return type(left) is type(right) and bool(left == right)


def without_nulls(value: Any) -> Any:
    """Return a copy without null members of objects, at any depth; nulls that are list items stay."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
