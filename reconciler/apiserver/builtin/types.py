"""The types of the built-in kinds, as compiled schemas.

They are read from ``types.json``, which is generated from the OpenAPI documents of a real API server.
"""

from __future__ import annotations

import copy
import functools
import re

from reconciler.apiserver.builtin.defaults import completion_of
from reconciler.apiserver.encoding.data_files import recorded
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.wire import JSONObject

__all__ = ["built_in_node", "member_types", "metadata_node", "place_of", "type_name", "type_node"]


_SCALARS = {
    "s": ("string", "", "string"),
    "t": ("string", "date-time", "v1.Time"),
    "u": ("string", "micro-time", "v1.MicroTime"),
    "y": ("string", "byte", "[]uint8"),
    "i": ("integer", "int32", "int32"),
    "l": ("integer", "int64", "int64"),
    "n": ("number", "", "float64"),
    "b": ("boolean", "", "bool"),
    "q": ("", "quantity", ""),
    "o": ("", "int-or-string", "int32"),
}
"""The type, the format and the Go type of scalars, by their short form."""


def _table() -> dict[str, JSONObject]:
    table: dict[str, JSONObject] = recorded("builtin/types.json")
    return table


@functools.cache
def type_node(name: str) -> Node:
    """Return the node of a named type, such as ``core.v1.Pod``; types may be recursive."""
    node = _NODES.get(name)
    if node is None:
        package, _, kind = name.rpartition(".")
        go_name = f"{package.rpartition('.')[2]}.{kind}"
        node = _NODES[name] = Node("object", name=go_name, complete=completion_of(name))
        members = _table()["types"][name]
        keyed = name in ("core.v1.ContainerPort", "core.v1.ServicePort")
        node.map_type = "atomic" if members.get("|") == "atomic" else "granular"
        for key, text in members.items():
            if key != "|":
                node.properties[key] = _member(text)
            if key == "uid" and name.startswith(_WITH_UIDS):
                node.properties[key].name = "types.UID"
            elif key == "propagationPolicy":
                node.properties[key].name = "v1.DeletionPropagation"
        if keyed:
            # The protocol is part of an item's key even if the item does not set it.
            node.properties["protocol"].default = "TCP"
    return node


_NODES: dict[str, Node] = {}
_WITH_UIDS = ("core.", "meta.")
"""The groups in which ``uid`` is the uid of an object; elsewhere it is that of a user."""


def _member(text: str) -> Node:
    """Return the node of a member from its short form in ``types.json``."""
    form, *attributes = text.split("|")
    node = _form(form)
    for attribute in attributes:
        word, _, rest = attribute.partition(":")
        if word in ("set", "map"):
            node.list_type, node.map_keys = word, tuple(rest.split(",")) if rest else ()
        elif word in ("atomic", "granular"):
            # Only this member of a type that others share is merged so.
            node = copy.copy(node)
            node.map_type = word
        elif word == "merge":
            node.merge, node.merge_key = True, rest
    return node


def _form(form: str) -> Node:
    if form == "*":
        return ANYTHING
    if form.startswith("@"):
        return type_node(form[1:])
    if form.startswith("?"):
        named = type_node(form[2:])
        return Node(properties=named.properties, name=named.name, complete=named.complete)
    if form.startswith("["):
        items = _form(form[1:-1])
        return Node("array", items=items, name=f"[]{items.name or 'interface {}'}")
    if form.startswith("{"):
        values = _form(form[1:-1])
        return Node("object", additional=values, name=f"map[string]{values.name or 'interface {}'}")
    kind, node_format, go_type = _SCALARS[form]
    return Node(kind, node_format, int_or_string=form == "o", name=go_type)


def built_in_node(group: str, version: str, kind: str) -> Node | None:
    """Return the node of a built-in kind, or None if its type is unknown."""
    name = type_name(group, version, kind)
    return None if name is None else type_node(name)


def type_name(group: str, version: str, kind: str) -> str | None:
    """Return the name of a built-in kind's type, or None if it is unknown."""
    name: str | None = _table()["kinds"].get(f"{group}/{version}/{kind}")
    return name


@functools.cache
def member_types(name: str) -> dict[str, str]:
    """Return the members of a type that are objects, or lists of them, with the names of their types."""
    found = ((key, _OBJECTS.match(text)) for key, text in _table()["types"].get(name, {}).items())
    return {key: match[1] for key, match in found if match is not None}


_OBJECTS = re.compile(r"\[?@([\w.]+)")


def metadata_node() -> Node:
    """Return the node of ``metadata``."""
    return type_node("meta.v1.ObjectMeta")


def place_of(node: Node | None) -> Node:
    """Return the node of whole documents of a kind: its members, and those of metadata."""
    node = node or ANYTHING
    return Node("object", properties={**node.properties, "metadata": metadata_node()}, preserve=node.preserve)
