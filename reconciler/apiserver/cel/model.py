"""The view of CEL rules on a schema and its documents: the names of members, the types, and the values."""

from __future__ import annotations

import re
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.schema.shape import ANYTHING, Node

__all__ = ["FORMAT_TYPES", "RESERVED_WORD", "member_of", "to_cel", "type_of"]

RESERVED_WORD = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|var|void|while"
)
"""The words that are not identifiers."""
FORMAT_TYPES = {"byte": "bytes", "date": "timestamp", "date-time": "timestamp", "duration": "duration"}
"""The types of strings that rules see as something else, by format."""
_SCALARS = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}


def _cel_name(key: str) -> str | None:
    """Return the name of a member in rules, or None if rules cannot name it."""
    if RESERVED_WORD.fullmatch(key):
        return f"__{key}__"
    escaped = (
        key.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )
    return escaped if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", escaped) else None


def _cel_names(key: str) -> tuple[str, ...]:
    """Return all names of a member in rules: a reserved word can also be selected as it is."""
    name = _cel_name(key)
    return () if name is None else (name, key) if name == f"__{key}__" else (name,)


def type_of(place: Node | None) -> str:
    """Return the name of a place's type, or an empty string if it is unknown."""
    if place is None or place is ANYTHING or place.int_or_string:
        return ""
    if place.type == "array":
        items = type_of(place.items)
        return f"list({items})" if items else ""
    if place.type == "object" and place.additional is not None and not place.properties:
        values = type_of(place.additional)
        return f"map(string, {values})" if values else ""
    if place.type == "object":
        return "object"
    if place.type == "string" and place.format in FORMAT_TYPES:
        return FORMAT_TYPES[place.format]
    return _SCALARS.get(place.type, "")


def member_of(owner: Node, name: str) -> Node | None:
    """Return the place of the member with a name in rules, or None."""
    found = owner.properties.get(name)
    if found is not None and name in _cel_names(name):
        return found
    for key, child in owner.properties.items():
        if _cel_name(key) == name:
            return child
    return owner.additional


def to_cel(value: Any, node: Node | None) -> Any:
    """Return a value as rules see it.

    Numbers of type ``number`` are doubles, members have their CEL names, and members that are null are absent. Strings
    that stand for times, durations or bytes stay strings, which is all that the engine accepts; the rewritten
    expressions convert them.
    """
    if node is None or node is ANYTHING:
        return value
    if isinstance(value, dict):
        return _members(value, node)
    if isinstance(value, list):
        return [to_cel(item, node.items) for item in value]
    if node.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _members(value: JSONObject, node: Node) -> dict[str, Any]:
    named = {}
    for key, member in value.items():
        child = node.properties.get(key)
        if child is not None:
            if member is not None:
                named.update(dict.fromkeys(_cel_names(key), to_cel(member, child)))
        elif node.additional is not None:
            named[key] = to_cel(member, node.additional)
        elif node.preserve:
            named[key] = member
    return named
