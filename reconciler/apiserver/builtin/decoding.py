"""Read scalars of built-in kinds as Go does, and say in its words why one cannot be read.

Documents come through encoding/json. What a strategic merge patch or an apply made is restored from untyped values
instead, by a library that converts where encoding/json refuses, and has words of its own.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from reconciler.apiserver.encoding.text import go_type
from reconciler.apiserver.schema.shape import Node

__all__ = ["Malformed", "Place", "empty_scalar", "read_scalar", "read_time", "restoring_problem"]


class Malformed(Exception):
    """Say in encoding/json's words why a document cannot be read.

    Args:
        problem: the words.
        restoring: the words of the library that restores untyped values; the same unless given.
        at_once: the type reads itself, so that encoding/json gives up; of others it tells when it has read all.

    Attributes:
        member: the member of the document that is to blame.
    """

    def __init__(self, problem: str, restoring: str = "", *, at_once: bool = False) -> None:
        super().__init__(problem)
        self.restoring = restoring or problem
        self.at_once = at_once
        self.member = ""


class Place(NamedTuple):
    """Name a place.

    Attributes:
        path: its dotted path with indices.
        go_path: the path without indices, as Go has it.
        struct: the Go type that the member belongs to.
        restored: whether the value is restored from untyped ones rather than decoded.
    """

    path: str
    go_path: str
    struct: str
    restored: bool = False

    def problem(self, shown: str, wanted: str) -> str:
        """Return encoding/json's complaint about a value here."""
        struct = self.struct.rpartition(".")[2]
        return f"json: cannot unmarshal {shown} into Go struct field {struct}.{self.go_path} of type {wanted}"


def read_scalar(value: Any, node: Node, place: Place) -> Any:
    """Return a value of the type.

    Raises:
        Malformed: it is of another type.
    """
    found = _read_plainly(value, node, place)
    if found is not None:
        return found
    wanted = "string" if node.format in _TIMES else node.name or "string"
    at_once = node.int_or_string or node.format in _TIMES
    raise Malformed(place.problem(_shown(value, node), wanted), restoring_problem(value, node), at_once=at_once)


def _read_plainly(value: Any, node: Node, place: Place) -> Any:
    """Return a value of the type, or None for what is of another."""
    if node.format == "quantity":
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise Malformed(_NO_QUANTITY, at_once=True)
        return str(value)
    if node.int_or_string:
        return value if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if not node.type:
        return value
    if node.format == "byte" and isinstance(value, list):
        return _bytes_of(value, place)
    if place.restored and node.format == "int32" and isinstance(value, int) and not isinstance(value, bool):
        return (value + 2**31) % 2**32 - 2**31  # Go converts without a word
    return _formatted(value, node.format) if _fits(value, node) else None


_NO_QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_TIMES = ("date-time", "micro-time")


def empty_scalar(node: Node) -> Any:
    """Return what null becomes as the value of a map; None when it is left out."""
    if node.format == "quantity":
        return "0"
    return "" if node.type == "string" and node.format in ("", "byte") else None


def _bytes_of(items: Sequence[Any], place: Place) -> str:
    """Return the bytes that a list of numbers names; null is zero."""
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
    """Return why a value cannot be restored."""
    found = _REFLECTED.get(type(value), "nil")
    if node.format in _TIMES or node.int_or_string:
        # Their types read themselves from JSON.
        wanted = node.name if node.int_or_string else "string"
        return f"json: cannot unmarshal {_shown(value, node)} into Go value of type {wanted}"
    if node.type == "array" or node.format == "byte":
        return f"cannot restore slice from {found}"
    if node.type == "object":
        return f"cannot restore map from {found}" if node.additional else f"cannot restore struct from: {found}"
    wanted = {"string": "string", "boolean": "bool", "number": "float64", "integer": node.format}.get(node.type, "")
    if not wanted:
        return ""
    # Go converts among numbers, and an integer to the letter that it counts.
    convertible = found in _NUMBERS if wanted not in ("string", "bool") else (found, wanted) == ("int64", "string")
    return f"cannot convert {found} to {node.name or wanted}" if convertible else f"unrecognized type: {wanted}"


def _formatted(value: Any, form: str) -> Any:
    if form in _TIMES:
        return read_time(value, form)
    if form == "byte":
        _check_base64(value)
    return value


def _shown(value: Any, node: Node) -> str:
    kind = go_type(value)
    # A number that does not fit where one is wanted is shown.
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
        problem = f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"'
        raise Malformed(problem, at_once=True) from None
    if micro and (fraction is None or len(fraction.group(1)) != 6):
        rest = text[fraction.start() :] if fraction else text[19:]
        layout = "2006-01-02T15:04:05.000000Z07:00"
        problem = f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as ".000000"'
        raise Malformed(problem, at_once=True)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
