"""Read ``metadata.managedFields``: who wrote which field of the status last.

A set of fields is a tree (FieldsV1): ``f:name`` is a member, ``k:{…}`` an item of a keyed list, ``v:…`` an item of a
set, ``.`` the thing itself. An empty tree is a leaf: the value belongs to the manager as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.status.record.mutations import Path

__all__ = ["field_trees", "owned_by_others_only", "owners_of", "owns"]

Tree = Mapping[str, Any]


def field_trees(
    managed_fields: Sequence[Mapping[str, Any]], *, operation: str | None = None
) -> Iterator[tuple[str, Tree]]:
    """Yield manager and tree below ``status`` of each entry that has one.

    Args:
        managed_fields: the entries.
        operation: only ``"Apply"`` or ``"Update"`` entries.
    """
    for entry in managed_fields:
        tree = (entry.get("fieldsV1") or {}).get("f:status")
        if isinstance(tree, Mapping) and operation in (None, entry.get("operation")):
            yield str(entry.get("manager", "")), tree


def owns(managed_fields: Sequence[Mapping[str, Any]], manager: str, path: Path) -> bool:
    """Say whether a manager owns the field of the status at a path."""
    return any(_covers(tree, path) for name, tree in field_trees(managed_fields) if name == manager)


def owned_by_others_only(managed_fields: Sequence[Mapping[str, Any]], manager: str, path: Path) -> bool:
    """Say whether somebody owns the field, and this manager does not."""
    owners = owners_of(managed_fields, path)
    return bool(owners) and manager not in owners


def owners_of(managed_fields: Sequence[Mapping[str, Any]], path: Path) -> set[str]:
    """Return the managers that own the field of the status at a path."""
    return {name for name, tree in field_trees(managed_fields) if _covers(tree, path)}


def _covers(tree: Tree, path: Path) -> bool:
    for depth, key in enumerate(path):
        child = tree.get(f"f:{key}")
        if not isinstance(child, Mapping):
            return depth > 0 and not tree
        tree = child
    return True
