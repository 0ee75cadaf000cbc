"""Know the shape of documents: drop what a schema does not name, fill in what it gives by default.

A `Node` is one place of a structural schema, compiled. `settle` walks a document along it and shares with its argument
whatever needs no change, so parts that were settled when they were stored cost nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ANYTHING", "METADATA_FIELDS", "NO_DEFAULT", "Node", "compile_schema", "pruned", "settle"]

METADATA_FIELDS = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)


class Node:
    """Hold one place of a schema.

    Attributes:
        type: ``"object"``, ``"array"``, …; empty where any type is allowed.
        format: such as ``"date-time"``, or empty.
        properties: the named members of an object.
        items: the items of a list, or None.
        additional: the other members of an object, or None when there may be none.
        preserve: whether members that are not named are kept.
        embedded: whether the object is a Kubernetes object itself.
        nullable: whether null stays.
        default: what is filled in, or `NO_DEFAULT`.
        complete: completes an object of a built-in type with the defaults of its members, or None.
        list_type: atomic, set or map.
        map_keys: the members that name an item of a list of type map.
        map_type: granular or atomic.
        merge_key: the member that names an item in a strategic merge patch, or empty.
        required: the members that an object must have.
        merge: whether a strategic merge patch merges the list rather than replacing it.
        int_or_string: whether both are allowed.
        most: how many letters, items or members there may be, or None.
        name: the Go type of a built-in object, or empty.
        rules: the CEL rules at this place, as written.
        watched: whether lists with unique items or rules are here or below.
    """

    __slots__ = (
        "additional",
        "complete",
        "default",
        "defaults",
        "embedded",
        "format",
        "int_or_string",
        "items",
        "list_type",
        "map_keys",
        "map_type",
        "merge",
        "merge_key",
        "most",
        "name",
        "nullable",
        "preserve",
        "properties",
        "required",
        "rules",
        "type",
        "watched",
    )

    def __init__(self, type: str = "") -> None:
        self.type = type
        self.format = ""
        self.properties: dict[str, Node] = {}
        self.items: Node | None = None
        self.additional: Node | None = None
        self.preserve = False
        self.embedded = False
        self.nullable = False
        self.complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self.default: Any = NO_DEFAULT
        self.defaults: list[tuple[str, Node]] = []
        self.list_type = "atomic"
        self.map_keys: tuple[str, ...] = ()
        self.map_type = "granular"
        self.merge_key = ""
        self.merge = False
        self.required: tuple[str, ...] = ()
        self.int_or_string = False
        self.most: int | None = None
        self.name = ""
        self.rules: list[dict[str, Any]] = []
        self.watched = False

    def child(self, key: str) -> Node | None:
        """Return the place of a member, or None when the schema does not name it."""
        found = self.properties.get(key)
        return self.additional if found is None else found


class _NoDefault:
    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT = _NoDefault()
"""Stands for the absence of a default, since null can be one."""

ANYTHING = Node()
"""A place that keeps whatever is put there."""
ANYTHING.preserve = True
ANYTHING.nullable = True


def compile_schema(schema: Mapping[str, Any], *, root: bool = False) -> Node:
    """Return the compiled form of a structural schema.

    Args:
        schema: the JSON of an ``openAPIV3Schema`` or a part of it.
        root: the schema describes whole objects: apiVersion, kind and metadata are known without being named.
    """
    node = Node(str(schema.get("type") or ""))
    node.format = str(schema.get("format") or "")
    node.preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    node.embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    node.nullable = bool(schema.get("nullable"))
    node.required = tuple(schema.get("required") or ())
    node.int_or_string = bool(schema.get("x-kubernetes-int-or-string"))
    node.list_type = str(schema.get("x-kubernetes-list-type") or "atomic")
    node.map_keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    node.map_type = str(schema.get("x-kubernetes-map-type") or "granular")
    node.rules = list(schema.get("x-kubernetes-validations") or ())
    node.most = _most(schema)
    for key, member in (schema.get("properties") or {}).items():
        if not (root and key == "metadata"):
            node.properties[key] = compile_schema(member)
    if isinstance(items := schema.get("items"), Mapping):
        node.items = compile_schema(items)
    if isinstance(additional := schema.get("additionalProperties"), Mapping):
        node.additional = compile_schema(additional)
    elif additional is True:
        node.additional = ANYTHING
    if root or node.embedded:
        for key in ("apiVersion", "kind", "metadata"):
            node.properties.setdefault(key, ANYTHING)
    if "default" in schema:
        node.default = schema["default"]
    _finish(node)
    return node


def _most(schema: Mapping[str, Any]) -> int | None:
    if schema.get("enum"):
        return max(len(str(value)) for value in schema["enum"])
    for key in ("maxLength", "maxItems", "maxProperties"):
        if isinstance(schema.get(key), int):
            most: int = schema[key]
            return most
    return None


def _finish(node: Node) -> None:
    below = [*node.properties.values(), *(child for child in (node.items, node.additional) if child is not None)]
    node.watched = bool(node.rules) or node.list_type in ("set", "map") or any(child.watched for child in below)
    for key, child in node.properties.items():
        if child.default is not NO_DEFAULT and (child.default is not None or child.nullable):
            # Defaults below a default are filled in once, here.
            child.default = settle(child.default, child, "", [])
            node.defaults.append((key, child))


def settle(value: Any, node: Node, path: str, unknown: list[str], before: Any = NO_DEFAULT) -> Any:
    """Return a value without what the schema does not know and with its defaults.

    Args:
        value: the JSON value; never changed.
        node: its place.
        path: its dotted path, for `unknown`.
        unknown: collects the paths of what was dropped.
        before: the stored value at this place; what is the same object is settled already.
    """
    if value is before:
        return value
    if isinstance(value, dict):
        return _settle_object(value, node, path, unknown, before)
    if isinstance(value, list) and node.items is not None:
        return _settle_list(value, node.items, path, unknown, before)
    return value


def pruned(value: Any, node: Node) -> Any:
    """Return a value without what the schema does not know; what needs no change is shared."""
    if node is ANYTHING:
        return value
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        changed = False
        for key, member in value.items():
            child = node.child(key)
            if child is None and not node.preserve:
                changed = True
                continue
            kept[key] = inner = member if child is None else pruned(member, child)
            changed = changed or inner is not member
        return kept if changed else value
    if isinstance(value, list) and node.items is not None:
        items = [pruned(item, node.items) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _settle_object(value: dict[str, Any], node: Node, path: str, unknown: list[str], before: Any) -> dict[str, Any]:
    changed: dict[str, Any] | None = None
    earlier = before if isinstance(before, dict) else _EMPTY
    get = node.properties.get
    for key, member in value.items():
        child = get(key) or node.additional
        if child is None:
            if not node.preserve:
                unknown.append(f"{path}.{key}" if path else key)
                changed = dict(value) if changed is None else changed
                del changed[key]
            continue
        if member is None:
            if not child.nullable:
                changed = dict(value) if changed is None else changed
                del changed[key]
            continue
        if child is ANYTHING or not isinstance(member, (dict, list)):
            if node.embedded and key == "metadata" and isinstance(member, dict):
                settled = _embedded_metadata(member, f"{path}.{key}" if path else key, unknown)
            else:
                continue
        else:
            settled = settle(member, child, f"{path}.{key}" if path else key, unknown, earlier.get(key, NO_DEFAULT))
        if settled is not member:
            changed = dict(value) if changed is None else changed
            changed[key] = settled
    for key, child in node.defaults:
        if key not in value or (changed is not None and key not in changed):
            changed = dict(value) if changed is None else changed
            changed[key] = child.default
    return value if changed is None else changed


def _settle_list(value: list[Any], node: Node, path: str, unknown: list[str], before: Any) -> list[Any]:
    if node is ANYTHING:
        return value
    earlier = before if isinstance(before, list) else ()
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        same_place = earlier[index] if index < len(earlier) else NO_DEFAULT
        settled = settle(item, node, f"{path}[{index}]", unknown, same_place)
        if settled is not item:
            changed = list(value) if changed is None else changed
            changed[index] = settled
    return value if changed is None else changed


def _embedded_metadata(metadata: dict[str, Any], path: str, unknown: list[str]) -> dict[str, Any]:
    foreign = [key for key in metadata if key not in METADATA_FIELDS]
    unknown.extend(f"{path}.{key}" for key in foreign)
    return {key: value for key, value in metadata.items() if key not in foreign} if foreign else metadata


_EMPTY: dict[str, Any] = {}
