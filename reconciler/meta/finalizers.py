"""Add, find and remove finalizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["add_finalizer", "has_finalizer", "remove_finalizer"]


def has_finalizer(obj: Mapping[str, Any], finalizer: str) -> bool:
    """Say whether an object carries a finalizer."""
    return finalizer in ((obj.get("metadata") or {}).get("finalizers") or ())


def add_finalizer(obj: dict[str, Any], finalizer: str) -> bool:
    """Add a finalizer in place; say whether it was missing."""
    if has_finalizer(obj, finalizer):
        return False
    metadata = obj.setdefault("metadata", {})
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), finalizer]
    return True


def remove_finalizer(obj: dict[str, Any], finalizer: str) -> bool:
    """Remove every copy of a finalizer in place; say whether there was one."""
    if not has_finalizer(obj, finalizer):
        return False
    metadata = obj["metadata"]
    metadata["finalizers"] = [f for f in metadata["finalizers"] if f != finalizer]
    return True
