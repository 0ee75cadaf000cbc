"""Read the syntax tree of a compiled CEL expression.

The engine gives trees away only in serialized form (cel.expr.CheckedExpr), so this reads the protobuf wire format of
the few messages that matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.apiserver._wire import read_fields

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
        other: the name of a comprehension's accumulator.
    """

    kind: str = ""
    id: int = 0
    name: str = ""
    parts: list[Expr] = field(default_factory=list)
    test: bool = False
    text: str = ""
    other: str = ""

    def walk(self) -> Iterator[Expr]:
        """Yield the expression and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass(slots=True)
class Tree:
    """Hold an expression and where its parts stand in the source."""

    root: Expr
    positions: dict[int, int]


def read_tree(serialized: bytes) -> Tree:
    """Read what ``Expression.serialize`` returns."""
    checked = _first(serialized, 2)
    root, positions = Expr(), {}
    for number, value in read_fields(checked):
        if number == 4 and isinstance(value, bytes):
            root = _expr(value)
        elif number == 5 and isinstance(value, bytes):
            positions = dict(_positions(value))
    return Tree(root, positions)


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


_CONSTANTS = {2: "bool", 3: "int", 4: "uint", 5: "double", 6: "string", 7: "bytes"}


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
