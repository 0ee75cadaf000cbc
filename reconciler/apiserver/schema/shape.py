"""Compiled structural schemas, and the pruning and defaulting of documents by them.

A `Node` describes one place in a document. `prune_and_default` returns a document that shares all unchanged parts with
its argument, so the parts of a stored document are not processed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.text import recorded

NO_DEFAULT: Any = object()
"""The absence of a default; None is not used, since null can be a default."""
_EMPTY: JSONObject = {}


@dataclass(slots=True, eq=False)
class Node:
    """One place of a compiled schema.

    Attributes:
        type: ``"object"``, ``"array"``, …; empty where any type is allowed.
        format: such as ``"date-time"``, or empty.
        properties: the named members of an object.
        items: the items of a list, or None.
        additional: the other members of an object, or None if none are allowed.
        preserve: whether unknown members are kept.
        embedded: whether the object is itself a Kubernetes object.
        nullable: whether null is kept.
        default: the default value with the defaults inside it, or `NO_DEFAULT`.
        written_default: the default value as in the schema, or `NO_DEFAULT`.
        complete: returns an object of a built-in type with the defaults of its members, or None.
        defaults: the members that have defaults.
        list_type: ``atomic``, ``set`` or ``map``.
        map_keys: the members that identify an item of a list of type map.
        map_type: ``granular`` or ``atomic``.
        merge_key: the member that identifies an item in a strategic merge patch, or empty.
        required: the required members of an object.
        merge: whether a strategic merge patch merges the list instead of replacing it.
        int_or_string: whether the value is an integer or a string.
        max_size: the maximum number of characters, items or members, or None.
        name: the Go type of a built-in object, or empty.
        rules: the CEL rules of this place, as written.
        has_checks: whether this place or one below has rules, or is a list with unique items.
    """

    type: str = ""
    format: str = ""
    properties: dict[str, Node] = field(default_factory=dict)
    items: Node | None = None
    additional: Node | None = None
    preserve: bool = False
    embedded: bool = False
    nullable: bool = False
    default: Any = NO_DEFAULT
    written_default: Any = NO_DEFAULT
    complete: Callable[[JSONObject], JSONObject] | None = None
    defaults: list[tuple[str, Node]] = field(default_factory=list)
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    map_type: str = "granular"
    merge_key: str = ""
    required: tuple[str, ...] = ()
    merge: bool = False
    int_or_string: bool = False
    max_size: int | None = None
    name: str = ""
    rules: list[JSONObject] = field(default_factory=list)
    has_checks: bool = False

    def child(self, key: str) -> Node | None:
        """Return the place of a member, or None if the schema does not allow it."""
        found = self.properties.get(key)
        return self.additional if found is None else found


ANYTHING = Node(preserve=True, nullable=True)
"""A place that accepts and keeps any value."""


def compile_schema(schema: JSONObject, *, root: bool = False) -> Node:
    """Return the compiled form of a structural schema; at the root, apiVersion, kind and metadata are always known."""
    node = Node(
        str(schema.get("type") or ""),
        str(schema.get("format") or ""),
        preserve=bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(schema.get("x-kubernetes-embedded-resource")),
        nullable=bool(schema.get("nullable")),
        required=tuple(schema.get("required") or ()),
        int_or_string=bool(schema.get("x-kubernetes-int-or-string")),
        list_type=str(schema.get("x-kubernetes-list-type") or "atomic"),
        map_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        map_type=str(schema.get("x-kubernetes-map-type") or "granular"),
        rules=list(schema.get("x-kubernetes-validations") or ()),
        max_size=_max_size(schema),
    )
    for key, member in (schema.get("properties") or {}).items():
        if not (root and key == "metadata"):
            node.properties[key] = compile_schema(member)
    if isinstance(items := schema.get("items"), dict):
        node.items = compile_schema(items)
    if isinstance(additional := schema.get("additionalProperties"), dict):
        node.additional = compile_schema(additional)
    elif additional is True:
        node.additional = ANYTHING
    if root or node.embedded:
        for key in ("apiVersion", "kind", "metadata"):
            node.properties.setdefault(key, ANYTHING)
    if "default" in schema:
        node.default = node.written_default = schema["default"]
    _finish(node)
    return node


def _max_size(schema: JSONObject) -> int | None:
    if schema.get("enum"):
        return max(len(str(value)) for value in schema["enum"])
    for key in ("maxLength", "maxItems", "maxProperties"):
        if isinstance(schema.get(key), int):
            size: int = schema[key]
            return size
    return None


def _finish(node: Node) -> None:
    below = [*node.properties.values(), *(child for child in (node.items, node.additional) if child is not None)]
    node.has_checks = bool(node.rules) or node.list_type in ("set", "map") or any(child.has_checks for child in below)
    for key, child in node.properties.items():
        if child.default is not NO_DEFAULT and (child.default is not None or child.nullable):
            # Defaults inside a default are filled in once, here.
            child.default = prune_and_default(child.default, child, "", [])
            node.defaults.append((key, child))


def prune_and_default(value: Any, node: Node, path: str, unknown: list[str], before: Any = NO_DEFAULT) -> Any:
    """Return a value with its unknown members pruned and its defaults filled in; the value is never changed.

    The dotted paths of the pruned members are added to `unknown`. Parts that are the same Python object in the stored
    value are left alone.
    """
    if value is before:
        return value
    if isinstance(value, dict):
        return _prune_object(value, node, path, unknown, before)
    if isinstance(value, list) and node.items is not None:
        return _prune_list(value, node.items, path, unknown, before)
    return value


def prune(value: Any, node: Node) -> Any:
    """Return a value with its unknown members pruned; unchanged parts are shared with the argument."""
    if node is ANYTHING:
        return value
    if isinstance(value, dict):
        kept: JSONObject = {}
        changed = False
        for key, member in value.items():
            child = node.child(key)
            if child is None and not node.preserve:
                changed = True
                continue
            kept[key] = inner = member if child is None else prune(member, child)
            changed = changed or inner is not member
        return kept if changed else value
    if isinstance(value, list) and node.items is not None:
        items = [prune(item, node.items) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _prune_object(value: JSONObject, node: Node, path: str, unknown: list[str], before: Any) -> JSONObject:
    changed: JSONObject | None = None
    earlier = before if isinstance(before, dict) else _EMPTY
    prefix = f"{path}." if path else ""
    get = node.properties.get
    for key, member in value.items():
        child = get(key) or node.additional
        if child is None:
            if not node.preserve:
                unknown.append(f"{prefix}{key}")
                changed = dict(value) if changed is None else changed
                del changed[key]
            continue
        if member is None:
            if not child.nullable:
                changed = dict(value) if changed is None else changed
                del changed[key]
            continue
        if isinstance(member, (dict, list)) and child is not ANYTHING:
            pruned = prune_and_default(member, child, f"{prefix}{key}", unknown, earlier.get(key, NO_DEFAULT))
        elif node.embedded and key == "metadata" and isinstance(member, dict):
            pruned = _embedded_metadata(member, f"{prefix}{key}", unknown)
        else:
            continue
        if pruned is not member:
            changed = dict(value) if changed is None else changed
            changed[key] = pruned
    for key, child in node.defaults:
        if key not in value or (changed is not None and key not in changed):
            changed = dict(value) if changed is None else changed
            changed[key] = child.default
    return value if changed is None else changed


def _prune_list(value: list[Any], node: Node, path: str, unknown: list[str], before: Any) -> list[Any]:
    if node is ANYTHING:
        return value
    earlier = before if isinstance(before, list) else ()
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        same_place = earlier[index] if index < len(earlier) else NO_DEFAULT
        pruned = prune_and_default(item, node, f"{path}[{index}]", unknown, same_place)
        if pruned is not item:
            changed = list(value) if changed is None else changed
            changed[index] = pruned
    return value if changed is None else changed


def _embedded_metadata(metadata: JSONObject, path: str, unknown: list[str]) -> JSONObject:
    known = recorded("builtin/types.json")["types"]["meta.v1.ObjectMeta"]
    foreign = [key for key in metadata if key not in known]
    unknown.extend(f"{path}.{key}" for key in foreign)
    return {key: value for key, value in metadata.items() if key not in foreign} if foreign else metadata
