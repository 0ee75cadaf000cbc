"""Decoding of documents of built-in kinds by their types, with the conversions and errors of the real server.

Documents are decoded by Go's encoding/json. The result of a strategic merge patch or an apply is restored from untyped
values instead, by a library that converts where encoding/json fails and has its own error messages.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from reconciler.apiserver.encoding.quantities import NOT_A_QUANTITY, canonical_quantity
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import go_type
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.wire import JSONObject

__all__ = [
    "BuiltInContents",
    "Malformed",
    "Place",
    "read_at_once",
    "read_time",
    "read_value",
    "restoring_problem",
]


class Malformed(Exception):
    """A document that cannot be decoded.

    Args:
        problem: the message of encoding/json.
        restoring: the message of the library that restores untyped values; `problem` unless given.
        at_once: the type has its own decoder, so encoding/json stops; it reports other errors after the whole document.

    Attributes:
        member: the top-level member of the document that contains the error.
    """

    def __init__(self, problem: str, restoring: str = "", *, at_once: bool = False) -> None:
        super().__init__(problem)
        self.restoring = restoring or problem
        self.at_once = at_once
        self.member = ""


class Place(NamedTuple):
    """The place of a value in a document.

    Attributes:
        path: its dotted path with indices.
        go_path: the path without indices, as Go reports it.
        struct: the Go type that the member belongs to.
        restored: whether the value is restored from untyped values instead of decoded.
    """

    path: str
    go_path: str
    struct: str
    restored: bool = False

    def problem(self, shown: str, wanted: str) -> str:
        """Return the message of encoding/json for a value of a wrong type at this place."""
        struct = self.struct.rpartition(".")[2]
        return f"json: cannot unmarshal {shown} into Go struct field {struct}.{self.go_path} of type {wanted}"


class BuiltInContents:
    """A decoder of documents of one built-in kind.

    Args:
        node: the type of the kind.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    def decode(
        self, found: JSONObject, before: JSONObject | None, unknown: list[str], *, restored: bool = False
    ) -> JSONObject:
        """Return a document with its unknown members, empty lists and empty maps pruned and its defaults filled in.

        Args:
            found: the document.
            before: the stored document on an update.
            unknown: collects the paths of the unknown members.
            restored: the document is restored from untyped values instead of decoded.

        Raises:
            Malformed: a member has the wrong type.
        """
        earlier: JSONObject = before or {}
        decoded = {}
        for key, value in found.items():
            child = self.node.properties.get(key)
            if child is None:
                unknown.append(key)
            elif key == "metadata" or value is earlier.get(key, _ABSENT):
                decoded[key] = value
            elif value is not None:
                try:
                    kept = read_value(value, child, Place(key, key, self.node.name, restored), unknown)
                except Malformed as problem:
                    problem.member = key
                    raise
                if not _is_empty(kept, child):
                    decoded[key] = kept
        return decoded if self.node.complete is None else self.node.complete(decoded)

    def check(
        self,
        _doc: JSONObject,
        _before: JSONObject | None,
        _subresource: str,
        *,
        blocked: bool,  # noqa: ARG002 - built-in kinds have no CEL rules
    ) -> list[FieldError]:
        """Return no errors: built-in kinds are validated by their strategy."""
        return []


_ABSENT = object()


def read_value(value: Any, node: Node, place: Place, unknown: list[str]) -> Any:
    """Return a value as its type decodes it.

    Args:
        value: the value in the document.
        node: the type.
        place: the place of the value.
        unknown: collects the paths of the unknown members.

    Raises:
        Malformed: the value, or a part of it, has a wrong type.
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
    found = _read_scalar(value, node, place)
    return _canonical(found) if node.format == "quantity" else found


def _read_object(value: JSONObject, node: Node, place: Place, unknown: list[str]) -> JSONObject:
    decoded = {}
    is_map = node.additional is not None
    for key, member in value.items():
        child = node.properties.get(key) or node.additional
        path = f"{place.path}.{key}"
        if child is None:
            unknown.append(path)
        elif member is None and is_map and (empty := _zero_value(child)) is not None:
            decoded[key] = empty
        elif member is not None:
            go_path, struct = (place.go_path, place.struct) if is_map else (f"{place.go_path}.{key}", node.name)
            inner = Place(path, go_path, struct, place.restored)
            kept = read_value(member, child, inner, unknown)
            if is_map and child.format == "quantity":
                kept = canonical_quantity(kept, places=3)
            if is_map or not _is_empty(kept, child):
                decoded[key] = kept
    return decoded if node.complete is None else node.complete(decoded)


def _canonical(text: str) -> str:
    try:
        return canonical_quantity(text)
    except ValueError as error:
        raise Malformed(str(error), at_once=True) from None


def read_at_once(value: Any, node: Node, place: Place) -> None:
    """Check only the parts of a value whose types have their own decoders; null is ignored.

    Args:
        value: the value in the document.
        node: the type.
        place: the place of the value; its path without indices ends with a dot.

    Raises:
        Malformed: such a part has a wrong type; other errors in the value are ignored.
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
            _read_scalar(value, node, place._replace(go_path=place.go_path[:-1]))
        except Malformed as problem:
            if problem.at_once:
                raise


def _item(item: Any, node: Node) -> Any:
    """Return an item of a list, or Go's zero value for a null."""
    if item is None:
        return {} if node.type == "object" else _zero_value(node)
    return item


def _is_empty(value: Any, node: Node) -> bool:
    return value in ({}, []) and (node.type == "array" or node.additional is not None)


# Scalars.


def _read_scalar(value: Any, node: Node, place: Place) -> Any:
    """Return a scalar as its type decodes it.

    Raises:
        Malformed: the value has a wrong type.
    """
    found = _decoded(value, node, place)
    if found is not None:
        return found
    wanted = "string" if node.format in _TIMES else node.name or "string"
    at_once = node.int_or_string or node.format in _TIMES
    raise Malformed(place.problem(_shown(value, node), wanted), restoring_problem(value, node), at_once=at_once)


def _decoded(value: Any, node: Node, place: Place) -> Any:
    """Return a scalar as its type decodes it, or None if it has a wrong type."""
    if node.format == "quantity":
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise Malformed(NOT_A_QUANTITY, at_once=True)
        return str(value)
    if node.int_or_string:
        return value if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if not node.type:
        return value
    if node.format == "byte" and isinstance(value, list):
        return _bytes_of(value, place)
    if place.restored and node.format == "int32" and isinstance(value, int) and not isinstance(value, bool):
        return (value + 2**31) % 2**32 - 2**31  # Go truncates silently
    return _formatted(value, node.format) if _fits(value, node) else None


_TIMES = ("date-time", "micro-time")


def _zero_value(node: Node) -> Any:
    """Return the value of a map entry that is null, or None if the entry is dropped."""
    if node.format == "quantity":
        return "0"
    return "" if node.type == "string" and node.format in ("", "byte") else None


def _bytes_of(items: Sequence[Any], place: Place) -> str:
    """Return the base64 of a list of bytes; a null is zero."""
    found = bytearray()
    for item in items:
        number = 0 if item is None else item
        if isinstance(number, bool) or not isinstance(number, int) or not (place.restored or 0 <= number < _BYTE):
            raise Malformed(place.problem(_shown(number, _OCTET), "uint8"), restoring_problem(number, _OCTET))
        found.append(number % _BYTE)
    return base64.b64encode(found).decode()


_BYTE = 256
_OCTET = Node("integer")
_OCTET.format = "uint8"
_REFLECTED = {str: "string", bool: "bool", int: "int64", float: "float64", list: "slice", dict: "map"}
_NUMBERS = frozenset({"int64", "float64"})


def restoring_problem(value: Any, node: Node) -> str:
    """Return the error for a value that cannot be restored, or an empty string."""
    found = _REFLECTED.get(type(value), "nil")
    if node.format in _TIMES or node.int_or_string:
        # These types have their own JSON decoders.
        wanted = node.name if node.int_or_string else "string"
        return f"json: cannot unmarshal {_shown(value, node)} into Go value of type {wanted}"
    if node.type == "array" or node.format == "byte":
        return f"cannot restore slice from {found}"
    if node.type == "object":
        return f"cannot restore map from {found}" if node.additional else f"cannot restore struct from: {found}"
    wanted = {"string": "string", "boolean": "bool", "number": "float64", "integer": node.format}.get(node.type, "")
    if not wanted:
        return ""
    # Go converts between numbers, and an integer to the string of that code point.
    convertible = found in _NUMBERS if wanted not in ("string", "bool") else (found, wanted) == ("int64", "string")
    return f"cannot convert {found} to {node.name or wanted}" if convertible else f"unrecognized type: {wanted}"


def _formatted(value: Any, form: str) -> Any:
    if form in _TIMES:
        return read_time(value, form)
    if form == "byte":
        return _read_base64(value)
    return value


def _shown(value: Any, node: Node) -> str:
    kind = go_type(value)
    # The message shows a number that is out of range or not an integer.
    counts = node.int_or_string or node.type in ("integer", "number")
    return f"number {value}" if kind == "number" and counts else kind


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


def _read_base64(text: str) -> str:
    """Return base64 as Go writes it: without line breaks, which its decoder ignores."""
    try:
        return base64.b64encode(base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)).decode()
    except (binascii.Error, ValueError):
        at = next((index for index, letter in enumerate(text) if letter not in _BASE64), len(text) // 4 * 4)
        problem = f"illegal base64 data at input byte {at}"
        raise Malformed(problem, f"error decoding from json: {problem}") from None


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n")
_FRACTION = re.compile(r"\.(\d+)")


def read_time(text: str, form: str) -> str:
    """Return a time as metav1 writes it: in UTC, with seconds or microseconds.

    Raises:
        Malformed: the text is not a time.
    """
    micro = form == "micro-time"
    fraction = _FRACTION.search(text)
    short = _FRACTION.sub(lambda match: f".{match.group(1)[:6]:0<6}", text)
    try:
        moment = datetime.fromisoformat(short)
    except ValueError:
        layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
        problem = f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"'
        raise Malformed(problem, at_once=True) from None
    if micro and (fraction is None or len(fraction.group(1)) != 6):
        rest = text[fraction.start() :] if fraction else text[19:]
        layout = "2006-01-02T15:04:05.000000Z07:00"
        problem = f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as ".000000"'
        raise Malformed(problem, at_once=True)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
