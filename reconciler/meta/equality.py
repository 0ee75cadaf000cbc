"""Compare documents by what they mean to an API server.

A null member means the same as an absent one, key order means nothing, and ``1`` equals ``1.0``; but a boolean is
never a number and a number is never a string, unlike in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

__all__ = ["equal", "is_object", "without_nulls"]

_SCALARS = frozenset({str, int, float, bool, type(None)})
_NO_OBJECTS = _SCALARS | {list}


def is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Say whether a JSON value is an object: a dict, or another mapping."""
    kind = type(value)
    # Asking an abstract class costs as much as ten of these comparisons, and nearly every value is what JSON gives.
    return kind is dict or (kind not in _NO_OBJECTS and isinstance(value, Mapping))


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
    if is_object(left):
        return _equal_members(left, right)
    return bool(left == right)


def _equal_members(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    for key, value in left.items():
        other = right.get(key)
        if value is other:
            continue
        kind = type(value)
        same = value == other if kind is type(other) and kind in _SCALARS else equal(value, other)
        if not same:
            return False
    return right.keys() <= left.keys() or all(right[key] is None for key in right.keys() - left.keys())


def _equal_across_types(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return False
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right
    return is_object(left) and is_object(right) and _equal_members(left, right)


def without_nulls(value: Any) -> Any:
    """Return a copy without null members of objects, at any depth; nulls that are list items stay."""
    if is_object(value):
        return {
            key: item if type(item) in _SCALARS else without_nulls(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
