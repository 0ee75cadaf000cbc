"""Decoding of documents of built-in kinds by their types, with the conversions and errors of the real server.

Documents are decoded by Go's encoding/json. The result of a strategic merge patch or an apply is restored from untyped
values instead, by a library that converts where encoding/json fails and has its own error messages.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.formats import INTEGER_RANGES
from reconciler.apiserver.encoding.json_documents import as_interface
from reconciler.apiserver.encoding.text import NOT_A_QUANTITY, canonical_quantity, go_type
from reconciler.apiserver.schema import ANYTHING, Node

_ABSENT = object()
_PYTHON_TYPES: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}
_TIMES = ("date-time", "micro-time")
_BYTE = 256
_OCTET = Node("integer", "uint8")
_REFLECTED = {str: "string", bool: "bool", int: "int64", float: "float64", list: "slice", dict: "map"}
_NUMBERS = frozenset({"int64", "float64"})
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n")
_FRACTION = re.compile(r"\.(\d+)")


class Malformed(Exception):
    """A document that cannot be decoded.

    Args:
        problem: the message of encoding/json.
        restoring: the message of the library that restores untyped values; `problem` unless given.
        at_once: the type has its own decoder, so encoding/json stops; it reports other errors after the whole document.
        member: the top-level member of the document that contains the error.
    """

    def __init__(self, problem: str, restoring: str = "", *, at_once: bool = False, member: str = "") -> None:
        super().__init__(problem)
        self.restoring = restoring or problem
        self.at_once = at_once
        self.member = member


@dataclass(slots=True)
class Decoding:
    """The way in which a document is decoded, and what is found in it.

    Attributes:
        restored: whether values are restored from untyped values instead of decoded.
        unknown: the paths of the unknown members.
        problems: the errors, in the order of the document.
    """

    restored: bool = False
    unknown: list[str] = field(default_factory=list)
    problems: list[Malformed] = field(default_factory=list)


def first_error(problems: list[Malformed], order: list[str] | None) -> str:
    """Return the message of the one error that a decoder reports.

    The order is that of the members for encoding/json. Without one, the document is restored from untyped values, which
    starts with metadata.
    """
    if order is None:
        return min(problems, key=lambda each: each.member != "metadata").restoring
    ordered = sorted(problems, key=lambda each: order.index(each.member))
    return str(next((each for each in ordered if each.at_once), ordered[0]))


class Place(NamedTuple):
    """The place of a value in a document.

    Attributes:
        decoding: how the document is decoded.
        path: its dotted path with indices.
        go_path: the path without indices, as Go reports it.
        struct: the Go type that the member belongs to.
    """

    decoding: Decoding
    path: str
    go_path: str
    struct: str

    def problem(self, shown: str, wanted: str) -> str:
        """Return the message of encoding/json for a value of a wrong type at this place."""
        struct = self.struct.rpartition(".")[2]
        return f"json: cannot unmarshal {shown} into Go struct field {struct}.{self.go_path} of type {wanted}"


@dataclass(frozen=True, slots=True)
class BuiltInContents:
    """A decoder of documents of one built-in kind."""

    node: Node

    def decode(self, found: JSONObject, before: JSONObject | None, decoding: Decoding) -> JSONObject:
        """Return a document with its unknown members, empty lists and empty maps pruned and its defaults filled in."""
        earlier: JSONObject = before or {}
        decoded = {}
        for key, value in found.items():
            child = self.node.properties.get(key)
            if child is None:
                decoding.unknown.append(key)
            elif key == "metadata" or value is earlier.get(key, _ABSENT):
                decoded[key] = value
            elif value is not None:
                kept = read_value(value, child, Place(decoding, key, key, self.node.name))
                if not _is_empty(kept, child):
                    decoded[key] = kept
        return decoded if self.node.complete is None or decoding.problems else self.node.complete(decoded)


def read_value(value: Any, node: Node, place: Place) -> Any:
    """Return a value as its type decodes it, and record what is unknown or has a wrong type."""
    if type(value) is str and node.type == "string" and not node.format:
        return value
    if node is ANYTHING:
        return as_interface(value)
    if isinstance(value, dict) and (node.type == "object" or node.properties):
        return _read_object(value, node, place)
    if isinstance(value, list) and node.items is not None:
        zero = _zero_value(node.items)
        return [
            read_value(zero if item is None else item, node.items, place._replace(path=f"{place.path}[{index}]"))
            for index, item in enumerate(value)
        ]
    try:
        return _read_scalar(value, node, place)
    except Malformed as problem:
        problem.member = re.split(r"[.\[]", place.path, maxsplit=1)[0]
        place.decoding.problems.append(problem)
        return None


def _read_object(value: JSONObject, node: Node, place: Place) -> JSONObject:
    decoded = {}
    is_map = node.additional is not None
    for key, member in value.items():
        child = node.properties.get(key) or node.additional
        path = f"{place.path}.{key}"
        if child is None:
            place.decoding.unknown.append(path)
        elif member is None and is_map and (empty := _zero_value(child)) is not None:
            decoded[key] = empty
        elif member is not None:
            go_path, struct = (place.go_path, place.struct) if is_map else (f"{place.go_path}.{key}", node.name)
            kept = read_value(member, child, Place(place.decoding, path, go_path, struct))
            if is_map and child.format == "quantity" and kept is not None:
                kept = canonical_quantity(kept, places=3)
            if is_map or not _is_empty(kept, child):
                decoded[key] = kept
    return decoded if node.complete is None or place.decoding.problems else node.complete(decoded)


def _is_empty(value: Any, node: Node) -> bool:
    return value in ({}, []) and (node.type == "array" or node.additional is not None)


# Scalars.


def _read_scalar(value: Any, node: Node, place: Place) -> Any:
    """Return a scalar as its type decodes it; raise `Malformed` if it has a wrong type."""
    found = _decoded(value, node, place)
    if found is None:
        wanted = "string" if node.format in _TIMES else node.name or "string"
        at_once = node.int_or_string or node.format in _TIMES
        raise Malformed(place.problem(_shown(value, node), wanted), restoring_problem(value, node), at_once=at_once)
    try:
        return canonical_quantity(found) if node.format == "quantity" else found
    except ValueError as error:
        raise Malformed(str(error), at_once=True) from None


def _decoded(value: Any, node: Node, place: Place) -> Any:
    """Return a scalar as its type decodes it, or None if it has a wrong type."""
    if node.format == "quantity":
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise Malformed(NOT_A_QUANTITY, at_once=True)
        return str(value)
    if node.int_or_string:
        return value if isinstance(value, str) or (type(value) is int and _fits(value, "int32")) else None
    if not node.type:
        return value
    if node.format == "byte" and isinstance(value, list):
        return _bytes_of(value, place)
    if place.decoding.restored and node.format == "int32" and isinstance(value, int) and not isinstance(value, bool):
        return (value + 2**31) % 2**32 - 2**31  # Go truncates silently
    return _typed(value, node)


def _typed(value: Any, node: Node) -> Any:
    is_bool = type(value) is bool
    if not isinstance(value, _PYTHON_TYPES.get(node.type, ())) or is_bool is not (node.type == "boolean"):
        return None
    if node.format in INTEGER_RANGES and not _fits(value, node.format):
        return None
    if node.format in _TIMES:
        return read_time(value, node.format)
    return _read_base64(value) if node.format == "byte" else as_interface(value)


def _fits(value: int, form: str) -> bool:
    low, high = INTEGER_RANGES[form]
    return low <= value <= high


def _zero_value(node: Node) -> Any:
    """Return the value of a map entry or an item that is null, or None if the entry is dropped."""
    if node.format == "quantity":
        return "0"
    if node.type == "object":
        return {}
    return "" if node.type == "string" and node.format in ("", "byte") else None


def _bytes_of(items: Sequence[Any], place: Place) -> str:
    """Return the base64 of a list of bytes; a null is zero."""
    found = bytearray()
    for item in items:
        number = 0 if item is None else item
        fits = isinstance(number, int) and (place.decoding.restored or 0 <= number < _BYTE)
        if isinstance(number, bool) or not fits:
            raise Malformed(place.problem(_shown(number, _OCTET), "uint8"), restoring_problem(number, _OCTET))
        found.append(number % _BYTE)
    return base64.b64encode(found).decode()


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


def _shown(value: Any, node: Node) -> str:
    kind = go_type(value)
    # The message shows a number that is out of range or not an integer.
    counts = node.int_or_string or node.type in ("integer", "number")
    return f"number {value}" if kind == "number" and counts else kind


def _read_base64(text: str) -> str:
    """Return base64 as Go writes it: without line breaks, which its decoder ignores."""
    try:
        return base64.b64encode(base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)).decode()
    except ValueError:
        at = next((index for index, letter in enumerate(text) if letter not in _BASE64), len(text) // 4 * 4)
        problem = f"illegal base64 data at input byte {at}"
        raise Malformed(problem, f"error decoding from json: {problem}") from None


def read_time(text: str, form: str) -> str:
    """Return a time as metav1 writes it, in UTC with seconds or microseconds; raise `Malformed` if it is not a time."""
    micro = form == "micro-time"
    fraction = _FRACTION.search(text)
    short = _FRACTION.sub(lambda match: f".{match.group(1)[:6]:0<6}", text)
    wrong = f'parsing time "{text}" as "2006-01-02T15:04:05{".000000" if micro else ""}Z07:00": cannot parse'
    try:
        moment = datetime.fromisoformat(short)
    except ValueError:
        raise Malformed(f'{wrong} "{text}" as "2006"', at_once=True) from None
    if micro and (fraction is None or len(fraction.group(1)) != 6):
        rest = text[fraction.start() :] if fraction else text[19:]
        raise Malformed(f'{wrong} "{rest}" as ".000000"', at_once=True)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
