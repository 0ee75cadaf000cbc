"""Know the types of the built-in kinds, and read documents by them as the server's typed decoders do.

The types stand in ``built_in.json``, which is made from the OpenAPI documents of a real API server.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from datetime import UTC, datetime
from importlib import resources
from typing import Any, NamedTuple

import msgspec

from reconciler.apiserver._defaults import completion_of
from reconciler.apiserver._schema import ANYTHING, Node
from reconciler.apiserver._status import FieldError
from reconciler.apiserver._text import go_type

__all__ = ["BuiltInContents", "Malformed", "built_in_node", "metadata_node", "place_of", "read_time", "type_name"]


class Malformed(Exception):
    """Say in encoding/json's words why a document cannot be read.

    Args:
        problem: the words.
        restoring: the words of the library by which strategic merge patches are read; the same unless given.

    Attributes:
        member: the member of the document that is to blame.
    """

    def __init__(self, problem: str, restoring: str = "") -> None:
        super().__init__(problem)
        self.restoring = restoring or problem
        self.member = ""


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
    "n": "float64",
    "b": "bool",
}


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("reconciler.apiserver").joinpath("built_in.json").read_bytes()
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
        if keyed:
            # The key of an item is whole even where the item is silent of it.
            node.properties["protocol"].default = "TCP"
    return node


_NODES: dict[str, Node] = {}


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

    def settle(self, found: dict[str, Any], before: dict[str, Any] | None, unknown: list[str]) -> dict[str, Any]:
        """Return a document without what the kind does not have; empty lists and maps are left out.

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
                    kept = _read(value, child, _Place(key, key, self.node.name), unknown)
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


class _Place(NamedTuple):
    """Name a place: with indices, as Go does without them, and the Go type that the member belongs to."""

    path: str
    go_path: str
    struct: str


def _read(value: Any, node: Node, place: _Place, unknown: list[str]) -> Any:
    """Return a value of the type."""
    if node is ANYTHING:
        return value
    if isinstance(value, dict) and (node.type == "object" or node.properties):
        return _read_object(value, node, place, unknown)
    if isinstance(value, list) and node.items is not None:
        return [
            _read(item, node.items, place._replace(path=f"{place.path}[{index}]"), unknown)
            for index, item in enumerate(value)
        ]
    return _read_scalar(value, node, place)


def _read_object(value: dict[str, Any], node: Node, place: _Place, unknown: list[str]) -> dict[str, Any]:
    settled = {}
    is_map = node.additional is not None
    for key, member in value.items():
        child = node.properties.get(key) or node.additional
        path = f"{place.path}.{key}"
        if child is None:
            unknown.append(path)
        elif member is None and is_map and child.type == "string" and not child.format:
            settled[key] = ""
        elif member is not None:
            inner = place._replace(path=path) if is_map else _Place(path, f"{place.go_path}.{key}", node.name)
            kept = _read(member, child, inner, unknown)
            if is_map or not _is_empty(kept, child):
                settled[key] = kept
    return settled if node.complete is None else node.complete(settled)


def _is_empty(value: Any, node: Node) -> bool:
    return value in ({}, []) and (node.type == "array" or node.additional is not None)


def _read_scalar(value: Any, node: Node, place: _Place) -> Any:
    if node.format == "quantity":
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
    elif node.int_or_string:
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return value
    elif not node.type:
        return value
    elif _fits(value, node):
        return _formatted(value, node.format)
    struct, wanted = place.struct.rpartition(".")[2], node.name or "string"
    raise Malformed(
        f"json: cannot unmarshal {_shown(value, node)} into Go struct field {struct}.{place.go_path} of type {wanted}",
        _restoring(value, node),
    )


_REFLECTED = {str: "string", bool: "bool", int: "int64", float: "float64", list: "slice", dict: "map"}


def _restoring(value: Any, node: Node) -> str:
    found = _REFLECTED.get(type(value), "nil")
    if node.type == "array" or (node.format == "byte" and not isinstance(value, str)):
        return f"cannot restore slice from {found}"
    if node.type == "object":
        return f"cannot restore map from {found}" if node.additional else f"cannot restore struct from: {found}"
    wanted = {"string": "string", "boolean": "bool", "number": "float64", "integer": node.format}.get(node.type, "")
    if wanted and isinstance(value, str):
        return f"unrecognized type: {wanted}"
    if wanted and not node.format.endswith("time") and isinstance(value, (int, float)):
        return f"cannot convert {found} to {wanted}"
    return ""


def _formatted(value: Any, form: str) -> Any:
    if form in ("date-time", "micro-time"):
        return read_time(value, form)
    if form == "byte":
        _check_base64(value)
    return value


def _shown(value: Any, node: Node) -> str:
    kind = go_type(value)
    # A number of the right kind that does not fit is shown.
    fits = isinstance(value, float) or (kind == "number" and node.type == "integer")
    return f"number {value}" if fits else kind


def _fits(value: Any, node: Node) -> bool:
    kind = node.type
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int) and (node.format != "int32" or -(2**31) <= value < 2**31)
    return kind == "number" and isinstance(value, (int, float))


def _check_base64(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        at = next((index for index, letter in enumerate(text) if letter not in _BASE64), len(text) // 4 * 4)
        problem = f"illegal base64 data at input byte {at}"
        raise Malformed(problem, f"error decoding from json: {problem}") from None


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
_FRACTION = re.compile(r"\.(\d+)")


def read_time(text: str, form: str) -> str:
    """Return a time as metav1 writes it: in UTC, in whole seconds or in microseconds."""
    micro = form == "micro-time"
    fraction = _FRACTION.search(text)
    short = _FRACTION.sub(lambda match: f".{match.group(1)[:6]:0<6}", text)
    try:
        moment = datetime.fromisoformat(short)
    except ValueError:
        layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
        raise Malformed(f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"') from None
    if micro and (fraction is None or len(fraction.group(1)) != 6):
        rest = text[fraction.start() :] if fraction else text[19:]
        layout = "2006-01-02T15:04:05.000000Z07:00"
        raise Malformed(f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as ".000000"')
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
