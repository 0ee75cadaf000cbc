"""Compute with sets of fields in their wire form, FieldsV1.

A set is a dict: a key names a step (``f:name``, ``k:{"key":"value"}``, ``v:value``), its value is the set below. A step
with nothing below is a member; a step with something below is a member only if ``.`` is among it. Sets are never
changed in place and may share parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import msgspec

from reconciler.apiserver.encoding.text import go_json
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.apiserver.schema.validation import item_key

__all__ = [
    "FieldSet",
    "compare",
    "difference",
    "fields_of",
    "intersection",
    "is_granular",
    "items_by_element",
    "path_element",
    "paths",
    "union",
]

FieldSet: TypeAlias = dict[str, "FieldSet"]

_SELF = "."


def _parts(fields: FieldSet) -> tuple[bool, FieldSet]:
    """Return whether a step is a member itself, and what is below."""
    if not fields:
        return True, fields
    if _SELF in fields:
        return True, {step: below for step, below in fields.items() if step != _SELF}
    return False, fields


def _joined(member: bool, below: FieldSet) -> FieldSet | None:
    """Return the set of a step, or None when there is nothing in it."""
    if not below:
        return {} if member else None
    return {_SELF: {}, **below} if member else below


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return what is in either set; both are roots."""
    found = dict(one)
    for step, below in other.items():
        mine = found.get(step)
        if mine is None or mine is below:
            found[step] = below
        elif step != _SELF:
            (my_self, my_below), (its_self, its_below) = _parts(mine), _parts(below)
            found[step] = _joined(my_self or its_self, union(my_below, its_below)) or {}
    return found


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return what is in the first set and not in the other; both are roots."""
    found = {}
    for step, mine in one.items():
        its = other.get(step)
        if its is None:
            found[step] = mine
            continue
        (my_self, my_below), (its_self, its_below) = _parts(mine), _parts(its)
        left = _joined(my_self and not its_self, difference(my_below, its_below))
        if left is not None:
            found[step] = left
    return found


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return what is in both sets; both are roots."""
    found = {}
    for step, mine in one.items():
        its = other.get(step)
        if its is None:
            continue
        (my_self, my_below), (its_self, its_below) = _parts(mine), _parts(its)
        both = _joined(my_self and its_self, intersection(my_below, its_below))
        if both is not None:
            found[step] = both
    return found


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Yield the members as the real server writes paths, members of a level before what lies below."""
    deeper = []
    for step, below in sorted(fields.items()):
        member, rest = _parts(below)
        path = f"{prefix}{_shown(step)}"
        if member:
            yield path
        if rest:
            deeper.append((path, rest))
    for path, rest in deeper:
        yield from paths(rest, path)


def _shown(step: str) -> str:
    kind, _, text = step.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "v":
        return f"[={text}]"
    if kind == "k":
        keys = msgspec.json.decode(text)
        return f"[{','.join(f'{key}={go_json(value)}' for key, value in keys.items())}]"
    return f"[{text}]"


def path_element(item: Any, node: Node) -> str:
    """Return the step that names an item of a list of type set or map."""
    if node.list_type == "map":
        return f"k:{go_json(item_key(item, node))}"
    return f"v:{go_json(item)}"


def items_by_element(items: list[Any], node: Node) -> dict[str, list[Any]]:
    """Return the items of a list of type set or map by their steps: more than one item where there are twins."""
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(path_element(item, node), []).append(item)
    return found


class _Duplicates(list[Any]):
    """Hold items of a list that have one key among them, which are fields_of together."""


def _children(value: Any, node: Node) -> Iterable[tuple[str, Any, Node]]:
    """Return the steps, values and places below a value; nothing for a value that is fields_of as a whole."""
    if isinstance(value, dict):
        if node.map_type == "atomic":
            return ()
        known, other = node.properties, node.additional or ANYTHING
        return [(f"f:{key}", member, known.get(key, other)) for key, member in value.items()]
    if isinstance(value, list) and node.list_type != "atomic":
        items = node.items or ANYTHING
        return [
            (step, found[0] if len(found) == 1 else _Duplicates(found), items)
            for step, found in items_by_element(value, node).items()
        ]
    return ()


def is_granular(value: Any, node: Node) -> bool:
    """Tell whether the parts of a value are fields_of one by one."""
    if isinstance(value, dict):
        return node.map_type != "atomic"
    return isinstance(value, list) and node.list_type != "atomic"


def fields_of(value: Any, node: Node, *, whole: bool) -> FieldSet:
    """Return the set below a value.

    Args:
        value: the value.
        node: its place.
        whole: objects and lists count themselves, as for what was added; without it only leaves and items of lists do,
            as for what is applied.
    """
    found: FieldSet = {}
    for step, child, place in _children(value, node):
        if not whole and not child and isinstance(child, list) and place.list_type != "atomic":
            # Of a list that merges an applier owns the items alone, so of an empty one nothing.
            continue
        inner = fields_of(child, place, whole=whole) if _has_parts(child) else _LEAF
        if not whole and child and not inner and isinstance(child, dict) and is_granular(child, place):
            # All it holds are lists that own nothing.
            continue
        counts = whole or place is ANYTHING or not step.startswith("f:")
        found[step] = {_SELF: {}, **inner} if inner and counts else inner
    return found


_LEAF: FieldSet = {}


def _has_parts(value: Any) -> bool:
    return isinstance(value, (dict, list)) and not isinstance(value, _Duplicates)


def compare(before: Any, after: Any, node: Node) -> tuple[FieldSet, FieldSet]:
    """Return the sets of what was added or modified, and of what was removed, below a value."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    old = {step: value for step, value, _ in _children(before, node)}
    for step, value, place in _children(after, node):
        if step not in old:
            changed[step] = _added(value, place)
            continue
        earlier = old.pop(step)
        if earlier is value or (earlier == value and type(earlier) is type(value)):
            continue
        more, less = _compared(earlier, value, place)
        if more is not None:
            changed[step] = more
        if less is not None:
            removed[step] = less
    places = {step: place for step, _, place in _children(before, node)} if old else {}
    for step, value in old.items():
        removed[step] = _added(value, places[step])
    return changed, removed


def _compared(earlier: Any, value: Any, place: Node) -> tuple[FieldSet | None, FieldSet | None]:
    """Return the sets of a value that was there already, with itself where it counts; None for nothing."""
    if isinstance(earlier, _Duplicates) or isinstance(value, _Duplicates):
        less = None if type(earlier) is type(value) else _added(earlier, place)
        return _added(value, place), less
    if is_granular(value, place) and is_granular(earlier, place):
        below_changed, below_removed = compare(earlier, value, place)
        return below_changed or None, below_removed or None
    if earlier is None and is_granular(value, place):
        # It was there, though empty: what it holds is new, not it itself.
        return fields_of(value, place, whole=True), None
    if value is None and is_granular(earlier, place):
        return None, fields_of(earlier, place, whole=True) or None
    return _added(value, place), fields_of(earlier, place, whole=True) or None


def _added(value: Any, place: Node) -> FieldSet:
    """Return the set of a value that is there on one side alone, and of all below it."""
    return _LEAF if isinstance(value, _Duplicates) else _with_self(fields_of(value, place, whole=True))


def _with_self(fields: FieldSet) -> FieldSet:
    return {_SELF: {}, **fields} if fields else fields
