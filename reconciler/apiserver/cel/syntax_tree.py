"""Read the syntax tree of a compiled CEL expression.

The engine gives trees away only in serialized form (cel.expr.CheckedExpr), so this reads the protobuf wire format of
the few messages that matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.apiserver.encoding.protobuf_wire import read_fields

__all__ = ["Expr", "Tree", "read_tree"]


@dataclass(slots=True)
class Expr:
    """Hold one expression.

    Attributes:
        kind: const, ident, select, call, list, struct or comprehension.
        id: what positions are kept under.
        name: the identifier, the member selected, the function called, the variable of a comprehension, or the type of
            a constant.
        parts: the expressions below; for a comprehension range, start, condition, step and result.
        test: the selection only asks whether the member is there.
        text: the value of a constant string.
        member: the function is called on its first part.
        other: the name of a comprehension's accumulator.
        second: the name of a comprehension's second variable, or empty.
    """

    kind: str = ""
    id: int = 0
    name: str = ""
    parts: list[Expr] = field(default_factory=list)
    test: bool = False
    text: str = ""
    member: bool = False
    other: str = ""
    second: str = ""

    def walk(self) -> Iterator[Expr]:
        """Yield the expression and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass(slots=True)
class Tree:
    """Hold an expression, where its parts stand in the source, and which types the engine found for them."""

    root: Expr
    positions: dict[int, int]
    types: dict[int, str]


def read_tree(serialized: bytes) -> Tree:
    """Read what ``Expression.serialize`` returns."""
    where = _IN_PARSED if b"ParsedExpr" in _first(serialized, 1) else _IN_CHECKED
    root, positions, types = Expr(), {}, {}
    for number, value in read_fields(_first(serialized, 2)):
        if number == where.root and isinstance(value, bytes):
            root = _expr(value)
        elif number == where.source and isinstance(value, bytes):
            positions = dict(_positions(value))
        elif number == where.types and isinstance(value, bytes):
            entry = dict(read_fields(value))
            key, kind = entry.get(1, 0), entry.get(2, b"")
            if isinstance(key, int) and isinstance(kind, bytes):
                types[key] = _type(kind)
    return Tree(root, positions, types)


@dataclass(frozen=True, slots=True)
class _Where:
    """Say in which fields a message has what."""

    root: int
    source: int
    types: int


_IN_CHECKED, _IN_PARSED = _Where(4, 5, 3), _Where(2, 3, -1)
_PRIMITIVE = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {2: "timestamp", 3: "duration"}


def _type(message: bytes) -> str:
    """Return the name of a type, or nothing where it is not known."""
    for number, value in read_fields(message):
        if number == 2:
            return "null"
        if number == 3 and isinstance(value, int):
            return _PRIMITIVE.get(value, "")
        if number == 5 and isinstance(value, int):
            return _WELL_KNOWN.get(value, "")
        if number == 6 and isinstance(value, bytes):
            items = _type(_first(value, 1))
            return f"list({items})" if items else ""
        if number == 7 and isinstance(value, bytes):
            keys, values = _type(_first(value, 1)), _type(_first(value, 2))
            return f"map({keys}, {values})" if keys and values else ""
    return ""


def _first(message: bytes, number: int) -> bytes:
    for found, value in read_fields(message):
        if found == number and isinstance(value, bytes):
            return value
    return b""


def _positions(source_info: bytes) -> Iterator[tuple[int, int]]:
    for number, value in read_fields(source_info):
        if number == 4 and isinstance(value, bytes):
            entry = dict(read_fields(value))
            key, position = entry.get(1, 0), entry.get(2, 0)
            if isinstance(key, int) and isinstance(position, int):
                yield key, position


_KINDS = {3: "const", 4: "ident", 5: "select", 6: "call", 7: "list", 8: "struct", 9: "comprehension"}


def _expr(message: bytes) -> Expr:
    expr = Expr()
    for number, value in read_fields(message):
        if number == 2 and isinstance(value, int):
            expr.id = value
        elif number in _KINDS and isinstance(value, bytes):
            expr.kind = _KINDS[number]
            _READERS[expr.kind](expr, value)
    return expr


_CONSTANTS = {1: "null", 2: "bool", 3: "int", 4: "uint", 5: "double", 6: "string", 7: "bytes"}


def _const(expr: Expr, message: bytes) -> None:
    for number, value in read_fields(message):
        expr.name = _CONSTANTS.get(number, "")
        if number == 6 and isinstance(value, bytes):
            expr.text = value.decode()


def _ident(expr: Expr, message: bytes) -> None:
    expr.name = _first(message, 1).decode()


def _select(expr: Expr, message: bytes) -> None:
    for number, value in read_fields(message):
        if number == 1 and isinstance(value, bytes):
            expr.parts.append(_expr(value))
        elif number == 2 and isinstance(value, bytes):
            expr.name = value.decode()
        elif number == 3:
            expr.test = bool(value)


def _call(expr: Expr, message: bytes) -> None:
    for number, value in read_fields(message):
        if number == 2 and isinstance(value, bytes):
            expr.name = value.decode()
        elif number in (1, 3) and isinstance(value, bytes):
            expr.member = expr.member or number == 1
            expr.parts.append(_expr(value))


def _list(expr: Expr, message: bytes) -> None:
    expr.parts = [_expr(value) for number, value in read_fields(message) if number == 1 and isinstance(value, bytes)]


def _struct(expr: Expr, message: bytes) -> None:
    for number, entry in read_fields(message):
        if number == 2 and isinstance(entry, bytes):
            expr.parts += [
                _expr(value) for key, value in read_fields(entry) if key in (3, 4) and isinstance(value, bytes)
            ]


def _comprehension(expr: Expr, message: bytes) -> None:
    for number, value in read_fields(message):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            expr.name = value.decode()
        elif number == 3:
            expr.other = value.decode()
        elif number == 8:
            expr.second = value.decode()
        elif number in (2, 4, 5, 6, 7):
            expr.parts.append(_expr(value))


_READERS = {
    "const": _const,
    "ident": _ident,
    "select": _select,
    "call": _call,
    "list": _list,
    "struct": _struct,
    "comprehension": _comprehension,
}
