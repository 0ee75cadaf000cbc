"""Know the types of the built-in kinds, and read documents by them as the server's typed decoders do.

The types stand in ``types.json``, which is made from the OpenAPI documents of a real API server.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import msgspec

from reconciler.apiserver.builtin.decoding import Malformed, Place, empty_scalar, read_scalar
from reconciler.apiserver.builtin.defaults import completion_of
from reconciler.apiserver.encoding.quantities import canonical_quantity
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.schema.shape import ANYTHING, Node

__all__ = ["BuiltInContents", "built_in_node", "metadata_node", "place_of", "read_at_once", "read_value", "type_name"]


_SCALARS = {
    "s": ("string", ""),
    "t": ("string", "date-time"),
    "u": ("string", "micro-time"),
    "y": ("string", "byte"),
    "i": ("integer", "int32"),
    "l": ("integer", "int64"),
    "n": ("number", ""),
    "b": ("boolean", ""),
    "q": ("", "quantity"),
    "o": ("", "int-or-string"),
}
_GO = {
    "s": "string",
    "t": "v1.Time",
    "u": "v1.MicroTime",
    "y": "[]uint8",
    "i": "int32",
    "l": "int64",
    "o": "int32",
    "n": "float64",
    "b": "bool",
}


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("reconciler.apiserver.builtin").joinpath("types.json").read_bytes()
    table: dict[str, dict[str, Any]] = msgspec.json.decode(text)
    return table


@functools.cache
def _type(name: str) -> Node:
    """Return the node of a named type; types may hold themselves."""
    node = _NODES.get(name)
    if node is None:
        node = _NODES[name] = Node("object")
        package, _, kind = name.rpartition(".")
        node.name = f"{package.rpartition('.')[2]}.{kind}"
        node.complete = completion_of(name)
        members = _table()["types"][name]
        keyed = name in ("core.v1.ContainerPort", "core.v1.ServicePort")
        node.map_type = "atomic" if members.get("|") == "atomic" else "granular"
        for key, text in members.items():
            if key != "|":
                node.properties[key] = _member(text)
            if key == "uid" and name.startswith(_WITH_UIDS):
                node.properties[key].name = "types.UID"
        if keyed:
            # The key of an item is whole even where the item is silent of it.
            node.properties["protocol"].default = "TCP"
    return node


_NODES: dict[str, Node] = {}
_WITH_UIDS = ("core.", "meta.")
"""The groups whose types have uids of objects; those of others are names of users."""


def _member(text: str) -> Node:
    """Return the node of a member from its short form."""
    form, *attributes = text.split("|")
    node = _form(form)
    for attribute in attributes:
        word, _, rest = attribute.partition(":")
        if word in ("set", "map"):
            node.list_type, node.map_keys = word, tuple(rest.split(",")) if rest else ()
        elif word == "atomic":
            node.map_type = "atomic"
        elif word == "merge":
            node.merge, node.merge_key = True, rest
    return node


def _form(form: str) -> Node:
    if form == "*":
        return ANYTHING
    if form.startswith("@"):
        return _type(form[1:])
    if form.startswith("?"):
        loose = Node("")
        named = _type(form[2:])
        loose.properties, loose.name, loose.complete = named.properties, named.name, named.complete
        return loose
    if form.startswith("["):
        node = Node("array")
        node.items = _form(form[1:-1])
        node.name = f"[]{_go(form[1:-1])}"
        return node
    if form.startswith("{"):
        node = Node("object")
        node.additional = _form(form[1:-1])
        node.name = f"map[string]{_go(form[1:-1])}"
        return node
    kind, node_format = _SCALARS[form]
    node = Node(kind)
    node.format, node.int_or_string, node.name = node_format, form == "o", _GO.get(form, "")
    return node


def _go(form: str) -> str:
    if form.startswith(("[", "{")):
        return _form(form).name
    return _type(form[1:]).name if form.startswith("@") else _GO.get(form, "interface {}")


def built_in_node(group: str, version: str, kind: str) -> Node | None:
    """Return the node of a built-in kind, or None when its type is not known."""
    name = _table()["kinds"].get(f"{group}/{version}/{kind}")
    return None if name is None else _type(name)


def type_name(group: str, version: str, kind: str) -> str | None:
    """Return the name of a built-in kind's type, or None when it is not known."""
    name: str | None = _table()["kinds"].get(f"{group}/{version}/{kind}")
    return name


def metadata_node() -> Node:
    """Return the node of `metadata`."""
    return _type("meta.v1.ObjectMeta")


def place_of(node: Node | None) -> Node:
    """Return the place of whole documents of a kind: its members, and metadata with its own."""
    place = Node("object")
    if node is not None:
        place.properties = dict(node.properties)
        place.preserve = node.preserve
    else:
        place.preserve = True
    place.properties["metadata"] = metadata_node()
    return place


class BuiltInContents:
    """Read documents of one built-in kind.

    Args:
        node: the type of the kind.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    def settle(
        self, found: dict[str, Any], before: dict[str, Any] | None, unknown: list[str], *, restored: bool = False
    ) -> dict[str, Any]:
        """Return a document without what the kind does not have; empty lists and maps are left out.

        Args:
            found: the document.
            before: the stored document on an update.
            unknown: collects the paths of what the kind does not have.
            restored: the document is restored from untyped values.

        Raises:
            Malformed: a member has the wrong type.
        """
        earlier: dict[str, Any] = before or {}
        settled = {}
        for key, value in found.items():
            child = self.node.properties.get(key)
            if child is None:
                unknown.append(key)
            elif key == "metadata" or value is earlier.get(key, _ABSENT):
                settled[key] = value
            elif value is not None:
                try:
                    kept = read_value(value, child, Place(key, key, self.node.name, restored), unknown)
                except Malformed as problem:
                    problem.member = key
                    raise
                if not _is_empty(kept, child):
                    settled[key] = kept
        return settled if self.node.complete is None else self.node.complete(settled)

    def check(
        self,
        _doc: dict[str, Any],
        _before: dict[str, Any] | None,
        _subresource: str,
        *,
        blocked: bool,  # noqa: ARG002 - there are no rules to leave aside
    ) -> list[FieldError]:
        """Find nothing wrong: values of built-in kinds are checked by their strategy."""
        return []


_ABSENT = object()


def read_value(value: Any, node: Node, place: Place, unknown: list[str]) -> Any:
    """Return a value of the type.

    Args:
        value: what a document has at the place.
        node: the type.
        place: the place.
        unknown: collects the paths of what the type does not have.

    Raises:
        Malformed: it, or something in it, is of another type.
    """
    if node is ANYTHING:
        return value
    if isinstance(value, dict) and (node.type == "object" or node.properties):
        return _read_object(value, node, place, unknown)
    if isinstance(value, list) and node.items is not None:
        return [
            read_value(_item(item, node.items), node.items, place._replace(path=f"{place.path}[{index}]"), unknown)
            for index, item in enumerate(value)
        ]
    found = read_scalar(value, node, place)
    return _canonical(found) if node.format == "quantity" else found


def _read_object(value: dict[str, Any], node: Node, place: Place, unknown: list[str]) -> dict[str, Any]:
    settled = {}
    is_map = node.additional is not None
    for key, member in value.items():
        child = node.properties.get(key) or node.additional
        path = f"{place.path}.{key}"
        if child is None:
            unknown.append(path)
        elif member is None and is_map and (empty := empty_scalar(child)) is not None:
            settled[key] = empty
        elif member is not None:
            go_path, struct = (place.go_path, place.struct) if is_map else (f"{place.go_path}.{key}", node.name)
            inner = Place(path, go_path, struct, place.restored)
            kept = read_value(member, child, inner, unknown)
            if is_map and child.format == "quantity":
                kept = canonical_quantity(kept, places=3)
            if is_map or not _is_empty(kept, child):
                settled[key] = kept
    return settled if node.complete is None else node.complete(settled)


def _canonical(text: str) -> str:
    try:
        return canonical_quantity(text)
    except ValueError as error:
        raise Malformed(str(error), at_once=True) from None


def read_at_once(value: Any, node: Node, place: Place) -> None:
    """Read what reads itself in a value; null is left aside.

    Args:
        value: what a document has at the place.
        node: the type.
        place: the place, whose path without indices ends with a dot.

    Raises:
        Malformed: it is of another type; what else is wrong with the value does not matter.
    """
    if value is None or node is ANYTHING:
        return
    if isinstance(value, dict) and (node.type == "object" or node.properties):
        is_map = node.additional is not None
        for key, member in value.items():
            child = node.child(key)
            if child is not None:
                path = place.go_path if is_map else f"{place.go_path}{key}."
                read_at_once(member, child, Place(place.path, path, place.struct if is_map else node.name))
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            read_at_once(item, node.items, place)
    elif node.format or node.int_or_string:
        try:
            read_scalar(value, node, place._replace(go_path=place.go_path[:-1]))
        except Malformed as problem:
            if problem.at_once:
                raise


def _item(item: Any, node: Node) -> Any:
    """Return an item, or what Go has in place of a null."""
    if item is None:
        return {} if node.type == "object" else empty_scalar(node)
    return item


def _is_empty(value: Any, node: Node) -> bool:
    return value in ({}, []) and (node.type == "array" or node.additional is not None)
