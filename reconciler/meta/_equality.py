"""Compare documents by what they mean to an API server.

A null member means the same as an absent one, key order means nothing, and ``1`` equals ``1.0``; but a boolean is
never a number and a number is never a string, unlike in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["equal", "without_nulls"]

_SCALARS = frozenset({str, int, float, bool, type(None)})


def equal(left: Any, right: Any) -> bool:
    """Say whether two JSON values mean the same."""
    if left is right:
        return True
    kind = type(left)
    if kind is not type(right):
        return _equal_across_types(left, right)
    if kind is dict:
        return _equal_members(left, right)
    if kind is list:
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, Mapping):
        return _equal_members(left, right)
    return bool(left == right)


def _equal_members(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    for key, value in left.items():
        other = right.get(key)
        if value is not other and not equal(value, other):
            return False
    return all(right[key] is None for key in right.keys() - left.keys())


def _equal_across_types(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return False
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right
    return isinstance(left, Mapping) and isinstance(right, Mapping) and _equal_members(left, right)


def without_nulls(value: Any) -> Any:
    """Return a copy without null members of objects, at any depth; nulls that are list items stay."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict or isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
