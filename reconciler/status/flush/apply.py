"""Compute what a server-side apply has to say: all that this manager owns, as it is to be.

An apply that leaves out a field which its manager applied before gives the field up, and with its last owner the field
goes. So each apply repeats what the manager owns, as ``managedFields`` of the version read tell, with the changes laid
over it. Items of a list belong to managers one by one if the list is keyed (``listType=map``), which the trees of its
owners show, or a mutation says by its key; any other list belongs to one manager whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.meta import GroupVersionKind, Request, equal, format_path, union_of_fields, upgrade_managed_fields
from reconciler.status.flush.managed_fields import Tree, field_trees
from reconciler.status.record.json_values import copy_json
from reconciler.status.record.mutations import Append, Mutation, Path, RemoveItem, SetCondition, Upsert, same_key
from reconciler.status.record.snapshot import Snapshot

__all__ = ["adopted", "applied_configuration", "refuse_for_apply"]

ListKeys = dict[Path, Path]
"""For each keyed list, the members that name an item."""


def refuse_for_apply(mutation: Mutation, managed_fields: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what would take a list over that several managers share.

    Raises:
        ValueError: it adds to a list without a key, or to one that belongs to one manager whole.
    """
    if not isinstance(mutation, (Append, Upsert, RemoveItem)):
        return
    where = format_path(mutation.path)
    if not isinstance(mutation, RemoveItem) and not mutation.key:
        raise ValueError(
            f"append to {where!r} would take the whole list over from other managers: with strategy='apply' give key=, "
            "and the list listType=map in the CRD; or use strategy='merge'"
        )
    for manager, tree in field_trees(managed_fields):
        if _is_leaf(tree, mutation.path):
            raise ValueError(
                f"{where!r} belongs to {manager!r} whole, because the CRD does not give the list listType=map; with "
                "strategy='apply' it cannot be shared: use strategy='merge'"
            )


def applied_configuration(
    gvk: GroupVersionKind,
    request: Request,
    manager: str,
    *,
    tip: Snapshot,
    computed: Mapping[str, Any],
    mutations: Sequence[Mutation],
) -> dict[str, Any]:
    """Return the configuration to apply so that a status becomes the computed one.

    Args:
        gvk: the object's kind.
        request: its name and namespace.
        manager: who applies.
        tip: the version that it is conditional on.
        computed: the whole status as it is to be.
        mutations: what led there; their keys say which lists are keyed.
    """
    trees = list(field_trees(tip.managed_fields))
    owned: dict[str, Any] = {}
    keys: ListKeys = {m.path: m.key for m in mutations if isinstance(m, (Append, Upsert)) and m.key}
    keys |= {m.path: ("type",) for m in mutations if isinstance(m, SetCondition)}
    for name, tree in trees:
        _find_keys(tree, (), keys)
        if name == manager:
            owned = union_of_fields(owned, tree)
    metadata: dict[str, Any] = {"name": request.name, "resourceVersion": tip.version}
    if request.namespace:
        metadata["namespace"] = request.namespace
    status = _said(tip.status, computed, owned, (), keys)
    said = {"status": status} if isinstance(status, dict) else {}
    return {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata, **said}


def adopted(
    managed_fields: Sequence[Mapping[str, Any]], manager: str, *, former: str, changed: Sequence[Path]
) -> list[dict[str, Any]] | None:
    """Return managed fields in which what a manager wrote before counts as applied; None when there is nothing to do.

    Fields of the status that it owns by earlier patches would outlive an apply that leaves them out. So would fields
    written under its former name; of those only the ones that change are moved, since other controllers had that name.

    Args:
        managed_fields: the entries of one version.
        manager: who applies.
        former: its former name; ``""`` if it had none.
        changed: paths of the status that the next apply changes.
    """

    def taken(entry: Mapping[str, Any]) -> Tree:
        tree = (entry.get("fieldsV1") or {}).get("f:status")
        if not isinstance(tree, Mapping):
            return {}
        if entry.get("manager") == manager:
            return {"f:status": tree} if entry.get("operation") == "Update" else {}
        if not former or entry.get("manager") != former:
            return {}
        fields: Tree = {}
        for path in changed:
            fields = union_of_fields(fields, _branch(tree, path))
        return {"f:status": fields} if fields else {}

    return upgrade_managed_fields(managed_fields, manager, taken)


def _branch(tree: Tree, path: Path) -> Tree:
    """Return the part of a tree at a path, or what stands for the path's value in it."""
    if not path:
        return tree
    name = f"f:{path[0]}"
    sub = tree.get(name)
    if not isinstance(sub, Mapping):
        return {}
    if not sub or len(path) == 1:
        return {name: sub}
    deeper = _branch(sub, path[1:])
    return {name: deeper} if deeper else {}


def _said(old: Any, new: Any, tree: Tree | None, path: Path, keys: ListKeys) -> Any:
    """Return the part of a value that is owned or changed; None when it is neither."""
    if equal(old, new):
        return None if tree is None else _owned_part(new, tree, keys.get(path))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _said_members(old, new, tree or {}, path, keys)
    if isinstance(old, list) and isinstance(new, list) and path in keys:
        return _said_items(old, new, tree or {}, path, keys)
    return copy_json(new)


def _said_members(
    old: Mapping[str, Any], new: Mapping[str, Any], tree: Tree, path: Path, keys: ListKeys
) -> dict[str, Any] | None:
    said: dict[str, Any] = {}
    for member, value in new.items():
        part = _said(old.get(member), value, tree.get(f"f:{member}"), (*path, member), keys)
        if part is not None:
            said[member] = part
    if not said and _is_hollow(new):
        return None  # a kube-apiserver makes null of a named object that loses all it had, and refuses it with 422
    return said if said or not path or "." in tree else None


def _is_hollow(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_hollow, value.values()))


def _said_items(old: list[Any], new: list[Any], tree: Tree, path: Path, keys: ListKeys) -> list[Any]:
    said = []
    for item in new:
        before = next((other for other in old if same_key(other, item, keys[path])), None)
        part = _said(before, item, _item_tree(tree, item, keys[path]), (*path, "*"), keys)
        if part is not None:
            said.append({**{member: item[member] for member in keys[path]}, **part})
    return said


def _owned_part(value: Any, tree: Tree, key: Path | None) -> Any:
    """Return the part of a value that a tree covers; None when it covers nothing that is there."""
    if not tree.keys() - {"."}:
        return copy_json(value) if not tree or not value else None
    if isinstance(value, Mapping):
        parts = {name[2:]: _owned_part(value[name[2:]], sub, None) for name, sub in tree.items() if name[2:] in value}
        owned = {name: part for name, part in parts.items() if part is not None}
        return owned if owned or "." in tree else None
    if isinstance(value, list):
        return _owned_items(value, tree, key)
    return copy_json(value)


def _owned_items(items: list[Any], tree: Tree, key: Path | None) -> list[Any]:
    owned = [copy_json(item) for item in items if f"v:{_encoded(item)}" in tree]
    for item in items:
        sub = _item_tree(tree, item, key) if key is not None else None
        if sub is not None and key is not None:
            part = _owned_part(item, sub, None)
            owned.append({**{member: item[member] for member in key}, **(part or {})})
    return owned


def _item_tree(tree: Tree, item: Any, key: Path) -> Tree | None:
    if not isinstance(item, Mapping):
        return None
    wanted = {member: item.get(member) for member in key}
    for name, sub in tree.items():
        if name.startswith("k:") and equal(msgspec.json.decode(name[2:]), wanted):
            return dict(sub)
    return None


def _find_keys(tree: Tree, path: Path, keys: ListKeys) -> None:
    for name, sub in tree.items():
        if name.startswith("k:"):
            keys.setdefault(path, tuple(msgspec.json.decode(name[2:])))
            _find_keys(sub, (*path, "*"), keys)
        elif name.startswith("f:"):
            _find_keys(sub, (*path, name[2:]), keys)


def _is_leaf(tree: Tree, path: Path) -> bool:
    for member in path:
        child = tree.get(f"f:{member}")
        if not isinstance(child, Mapping):
            return False
        tree = child
    return not tree


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
