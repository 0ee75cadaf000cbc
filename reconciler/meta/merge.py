"""Make and apply JSON merge patches (RFC 7386)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.meta.equality import equal, is_object, without_nulls

__all__ = ["merge_diff", "merge_patch"]


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` with `patch` applied; neither argument is changed.

    Parts of `target` that the patch leaves alone are shared with the result, not copied.
    """
    if not is_object(patch):
        return patch
    result = dict(target) if is_object(target) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value) if is_object(value) else value
    return result


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest merge patch that turns `old` into `new`; ``{}`` when they mean the same.

    Its members are in the order of `new`, those that are removed after them. Lists are replaced whole. Null members of
    `new` count as absent, which is how a server stores them.
    """
    patch: dict[str, Any] = {}
    for key in (*new, *(key for key in old if key not in new)):
        before, after = old.get(key), new.get(key)
        if equal(before, after):
            continue
        if is_object(before) and is_object(after):
            patch[key] = merge_diff(before, after)
        else:
            patch[key] = without_nulls(after)
    return patch
