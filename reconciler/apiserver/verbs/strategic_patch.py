"""Strategic merge patch: lists of built-in kinds merge by the keys that their types declare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.encoding.text import GO_TYPES, go_json, go_value
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.wire import JSONObject

__all__ = ["strategic_merge"]

_DIRECTIVE, _RETAIN = "$patch", "$retainKeys"
_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def strategic_merge(target: Any, patch: JSONObject, node: Node) -> JSONObject:
    """Return an object with a strategic merge patch applied; unchanged parts are shared.

    Raises:
        Refusal: 400 or 500, as the real server, for an invalid directive or an item without its merge key.
    """
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise Refusal.internal_error(f"unknown patch type: {directive} in map: {go_value(patch)}")
    merged = _retained(dict(target) if isinstance(target, dict) else {}, patch)
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith((_ORDER, _DELETE)):
            continue
        if value is None:
            merged.pop(key, None)
        else:
            if key not in merged and isinstance(value, dict) and _DIRECTIVE in value:
                # New values are added unmerged, and one with a directive is not added at all.
                continue
            child = node.child(key) or ANYTHING
            merged[key] = _merge_member(merged.get(key), value, child, patch.get(_ORDER + key))
    return merged


def _retained(members: JSONObject, patch: JSONObject) -> JSONObject:
    """Return the fields of an object that a patch keeps, before the merge."""
    retained = patch.get(_RETAIN)
    if retained is not None:
        if not isinstance(retained, list):
            raise Refusal.bad_request("invalid patch format of retainKeys")
        members = {key: value for key, value in members.items() if key in retained}
    for key, gone in patch.items():
        name = key.removeprefix(_DELETE)
        if key.startswith(_ORDER) and not isinstance(gone, list):
            raise Refusal.internal_error(f"expected a []interface {{}}, but received a {GO_TYPES[type(gone)]}")
        if name != key and isinstance(gone, list) and isinstance(members.get(name), list):
            unwanted = set(map(go_json, gone))
            members[name] = [item for item in members[name] if go_json(item) not in unwanted]
            if not members[name] and name not in patch:
                del members[name]
    return members


def _merge_member(old: Any, new: Any, node: Node, order: Any) -> Any:
    if isinstance(new, dict):
        return strategic_merge(old, new, node)
    if isinstance(new, list) and node.merge:
        items = old if isinstance(old, list) else []
        if node.merge_key and _are_objects(items, new):
            return _merge_objects(items, new, node, order)
        # Scalars are unique in a merged list.
        merged = _in_order(list({go_json(item): item for item in (*items, *new)}.values()), new, items, go_json)
        return merged if order is None else _in_order(merged, order, items, go_json)
    return new


def _are_objects(old: list[Any], new: list[Any]) -> bool:
    """Return whether lists contain objects, which merge by key."""
    kinds = {type(item) for item in (*old, *new)}
    if old and len(kinds) > 1:
        raise Refusal.internal_error(f"list element types are not identical: {go_value([old, new])}")
    return kinds <= {dict}


def _merge_objects(old: list[Any], new: list[Any], node: Node, order: Any) -> list[Any]:
    key = node.merge_key
    if any(item == {_DIRECTIVE: "replace"} for item in new):
        return [item for item in new if item != {_DIRECTIVE: "replace"}]

    def name(item: Any) -> str:
        if not isinstance(item, dict) or key not in item:
            raise Refusal.internal_error(f"map: {go_value(item)} does not contain declared merge key: {key}")
        return go_json(item[key])

    by_name: dict[str, list[Any]] = {}
    for item in old:
        by_name.setdefault(name(item), []).append(item)
    changed = []
    for item in new:
        known = by_name.get(name(item), [])
        if item.get(_DIRECTIVE) == "delete":
            by_name.pop(name(item), None)
            continue
        changed.append(item)
        by_name[name(item)] = [strategic_merge(known[0] if known else {}, item, node.items or ANYTHING), *known[1:]]
    merged = [item for items in by_name.values() for item in items]
    if order is not None:
        _check_order(changed, order, name)
    wanted = changed if order is None else order
    return _in_order(merged, wanted, old, name)


def _check_order(changed: list[Any], order: list[Any], name: Callable[[Any], str]) -> None:
    """Check that the patched items are in the order of ``$setElementOrder``."""
    listed = iter([name(item) for item in order])
    if not all(name(item) in listed for item in changed):
        raise Refusal.internal_error(
            f"The order in patch list:\n{go_value(changed)}\n doesn't match $setElementOrder list:\n{go_value(order)}\n"
        )


def _in_order(items: list[Any], wanted: list[Any], before: list[Any], name: Callable[[Any], str]) -> list[Any]:
    """Order items: the listed ones in their order, the others where they were, new ones first.

    Items with one key stay together.
    """
    by_name: dict[str, list[Any]] = {}
    for item in items:
        by_name.setdefault(name(item), []).append(item)
    known = {name(item): index for index, item in enumerate(before)}
    left = [text for text in dict.fromkeys(map(name, wanted)) if text in by_name]
    listed = set(left)
    right = [text for text in by_name if text not in listed]
    found: list[str] = []
    left.reverse()
    right.reverse()
    while left or right:
        if not right or (left and known.get(left[-1], -1) < known.get(right[-1], len(known))):
            found.append(left.pop())
        else:
            found.append(right.pop())
    return [item for text in found for item in by_name[text]]
