"""Sets of fields in their wire form, FieldsV1, and operations on them.

A set is a dict. A key is a path element (``f:name``, ``k:{"key":"value"}``, ``v:value``), its value the set below it.
An element with nothing below is a member of the set; an element with something below is a member only if ``.`` is below
it too. Sets are never changed in schema and may share parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import msgspec

from reconciler.apiserver.encoding.text import go_json
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.apiserver.schema.validation import item_key
from reconciler.wire import JSONValue

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
_LEAF: FieldSet = {}


def _parts(fields: FieldSet) -> tuple[bool, FieldSet]:
    """Return whether a path element is itself a member, and the set below it."""
    if not fields:
        return True, fields
    if _SELF in fields:
        return True, {element: below for element, below in fields.items() if element != _SELF}
    return False, fields


def _joined(member: bool, below: FieldSet) -> FieldSet | None:
    """Return the set of a path element, or None if it is empty."""
    if not below:
        return {} if member else None
    return {_SELF: {}, **below} if member else below


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields in either set; both are roots."""
    found = dict(one)
    for element, below in other.items():
        mine = found.get(element)
        if mine is None or mine is below:
            found[element] = below
        elif element != _SELF:
            (my_self, my_below), (its_self, its_below) = _parts(mine), _parts(below)
            found[element] = _joined(my_self or its_self, union(my_below, its_below)) or {}
    return found


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields in the first set but not in the other; both are roots."""
    return _combined(one, other, common=False)


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields in both sets; both are roots."""
    return _combined(one, other, common=True)


def _combined(one: FieldSet, other: FieldSet, *, common: bool) -> FieldSet:
    """Return the fields in the first set that are in the other, or are not."""
    found = {}
    for element, mine in one.items():
        its = other.get(element)
        if its is None:
            if not common:
                found[element] = mine
            continue
        (my_self, my_below), (its_self, its_below) = _parts(mine), _parts(its)
        left = _joined(my_self and its_self is common, _combined(my_below, its_below, common=common))
        if left is not None:
            found[element] = left
    return found


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Yield the members as the real server writes paths, the members of a level before those below it."""
    deeper = []
    for element, below in sorted(fields.items()):
        member, rest = _parts(below)
        path = f"{prefix}{_shown(element)}"
        if member:
            yield path
        if rest:
            deeper.append((path, rest))
    for path, rest in deeper:
        yield from paths(rest, path)


def _shown(element: str) -> str:
    kind, _, text = element.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "v":
        return f"[={text}]"
    if kind == "k":
        keys = msgspec.json.decode(text)
        return f"[{','.join(f'{key}={go_json(value)}' for key, value in keys.items())}]"
    return f"[{text}]"


def path_element(item: JSONValue, node: Node) -> str:
    """Return the path element of an item of a list of type set or map."""
    if node.list_type == "map":
        return f"k:{go_json(item_key(item, node))}"
    return f"v:{go_json(item)}"


def items_by_element(items: list[JSONValue], node: Node) -> dict[str, list[JSONValue]]:
    """Return the items of a list of type set or map by path element; duplicates share one."""
    found: dict[str, list[JSONValue]] = {}
    for item in items:
        found.setdefault(path_element(item, node), []).append(item)
    return found


class _Duplicates(list[JSONValue]):
    """Items of a list that share a path element, and are owned together."""


def _children(value: JSONValue, node: Node) -> Iterable[tuple[str, JSONValue, Node]]:
    """Return the path elements, values and schemas below a value; nothing for an atomic value."""
    if isinstance(value, dict):
        if node.map_type == "atomic":
            return ()
        known, other = node.properties, node.additional or ANYTHING
        return [(f"f:{key}", member, known.get(key, other)) for key, member in value.items()]
    if isinstance(value, list) and node.list_type != "atomic":
        items = node.items or ANYTHING
        return [
            (element, found[0] if len(found) == 1 else _Duplicates(found), items)
            for element, found in items_by_element(value, node).items()
        ]
    return ()


def is_granular(value: JSONValue, node: Node) -> bool:
    """Return whether the parts of a value are owned one by one."""
    if isinstance(value, dict):
        return node.map_type != "atomic"
    return isinstance(value, list) and node.list_type != "atomic"


def fields_of(value: JSONValue, node: Node, *, whole: bool) -> FieldSet:
    """Return the set of fields below a value.

    Of a whole value, as for added ones, objects and lists are members themselves; otherwise, as for applied values,
    only leaves and items of lists are.
    """
    found: FieldSet = {}
    for element, child, schema in _children(value, node):
        if not whole and not child and isinstance(child, list) and schema.list_type != "atomic":
            # An applier owns only the items of a granular list, so nothing of an empty one.
            continue
        inner = _LEAF if isinstance(child, _Duplicates) else fields_of(child, schema, whole=whole)
        if not whole and child and not inner and isinstance(child, dict) and is_granular(child, schema):
            # It contains only lists of which nothing is owned.
            continue
        counts = whole or schema is ANYTHING or not element.startswith("f:")
        found[element] = {_SELF: {}, **inner} if inner and counts else inner
    return found


def compare(before: JSONValue, after: JSONValue, node: Node) -> tuple[FieldSet, FieldSet]:
    """Return the fields below a value that were added or modified, and those that were removed."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    old = {element: value for element, value, _ in _children(before, node)}
    for element, value, schema in _children(after, node):
        if element not in old:
            changed[element] = _added(value, schema)
            continue
        earlier = old.pop(element)
        if earlier is value or (earlier == value and type(earlier) is type(value)):
            continue
        more, less = _compare_values(earlier, value, schema)
        if more is not None:
            changed[element] = more
        if less is not None:
            removed[element] = less
    schemas = {element: schema for element, _, schema in _children(before, node)} if old else {}
    for element, value in old.items():
        removed[element] = _added(value, schemas[element])
    return changed, removed


def _compare_values(earlier: JSONValue, value: JSONValue, schema: Node) -> tuple[FieldSet | None, FieldSet | None]:
    """Return the changed and removed fields of a value that exists on both sides; None for nothing."""
    if isinstance(earlier, _Duplicates) or isinstance(value, _Duplicates):
        less = None if type(earlier) is type(value) else _added(earlier, schema)
        return _added(value, schema), less
    if is_granular(value, schema) and is_granular(earlier, schema):
        below_changed, below_removed = compare(earlier, value, schema)
        return below_changed or None, below_removed or None
    if earlier is None and is_granular(value, schema):
        # The field existed, though empty: its content is new, not the field itself.
        return fields_of(value, schema, whole=True), None
    if value is None and is_granular(earlier, schema):
        return None, fields_of(earlier, schema, whole=True) or None
    return _added(value, schema), fields_of(earlier, schema, whole=True) or None


def _added(value: JSONValue, schema: Node) -> FieldSet:
    """Return the set of a value that exists on one side only, and everything below it."""
    below = _LEAF if isinstance(value, _Duplicates) else fields_of(value, schema, whole=True)
    return {_SELF: {}, **below} if below else below
