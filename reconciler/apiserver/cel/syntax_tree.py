"""The syntax tree of a compiled CEL expression, with the positions and types of its parts.

The engine gives trees away only as serialized protobuf messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.apiserver.cel import protobuf
from reconciler.apiserver.encoding.protobuf_wire import Message

__all__ = ["Expr", "Tree", "read_tree"]


@dataclass(slots=True)
class Expr:
    """An expression.

    Attributes:
        kind: ``const``, ``ident``, ``select``, ``call``, ``list``, ``struct`` or ``comprehension``.
        id: the number under which its position and type are listed.
        name: the identifier, the selected member, the called function, the variable of a comprehension, or the type of
            a constant.
        parts: the expressions below; those of a comprehension are range, initial value, condition, step and result.
        test: the selection only tests whether the member is present.
        text: the value of a string constant.
        member: the function is called as a method of its first part.
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
        """Yield the expression and all expressions below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass(slots=True)
class Tree:
    """An expression with the positions of its parts in the source and the types that the engine inferred, by id."""

    root: Expr
    positions: dict[int, int]
    types: dict[int, str]


def read_tree(serialized: bytes) -> Tree:
    """Decode the result of ``Expression.serialize``."""
    envelope = Message(serialized)
    message = envelope.message(protobuf.Envelope.VALUE)
    if "ParsedExpr" in envelope.text(protobuf.Envelope.TYPE_URL):
        positions = _positions(message.message(protobuf.ParsedExpr.SOURCE_INFO))
        return Tree(_expr(message.message(protobuf.ParsedExpr.EXPR)), positions, {})
    positions = _positions(message.message(protobuf.CheckedExpr.SOURCE_INFO))
    types = {
        entry.number(protobuf.MapEntry.KEY): _type(entry.message(protobuf.MapEntry.VALUE))
        for entry in message.messages(protobuf.CheckedExpr.TYPE_MAP)
    }
    return Tree(_expr(message.message(protobuf.CheckedExpr.EXPR)), positions, types)


def _positions(source: Message) -> dict[int, int]:
    entries = source.messages(protobuf.SourceInfo.POSITIONS)
    return {entry.number(protobuf.MapEntry.KEY): entry.number(protobuf.MapEntry.VALUE) for entry in entries}


_PRIMITIVE = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {2: "timestamp", 3: "duration"}


def _type(message: Message) -> str:
    """Return the name of a type, or an empty string for an unknown one."""
    if protobuf.Type.NULL in message:
        return "null"
    if protobuf.Type.PRIMITIVE in message:
        return _PRIMITIVE.get(message.number(protobuf.Type.PRIMITIVE), "")
    if protobuf.Type.WELL_KNOWN in message:
        return _WELL_KNOWN.get(message.number(protobuf.Type.WELL_KNOWN), "")
    if protobuf.Type.LIST_TYPE in message:
        items = _type(message.message(protobuf.Type.LIST_TYPE).message(protobuf.ListType.ELEM_TYPE))
        return f"list({items})" if items else ""
    if protobuf.Type.MAP_TYPE in message:
        entry = message.message(protobuf.Type.MAP_TYPE)
        keys, values = (
            _type(entry.message(protobuf.MapType.KEY_TYPE)),
            _type(entry.message(protobuf.MapType.VALUE_TYPE)),
        )
        return f"map({keys}, {values})" if keys and values else ""
    return ""


def _expr(message: Message) -> Expr:
    expr = Expr(id=message.number(protobuf.Expr.ID))
    for number, (kind, read) in _KINDS.items():
        if number in message:
            expr.kind = kind
            read(expr, message.message(number))
    return expr


_CONSTANTS = {
    protobuf.Constant.NULL: "null",
    protobuf.Constant.BOOL: "bool",
    protobuf.Constant.INT64: "int",
    protobuf.Constant.UINT64: "uint",
    protobuf.Constant.DOUBLE: "double",
    protobuf.Constant.STRING: "string",
    protobuf.Constant.BYTES: "bytes",
}


def _constant(expr: Expr, constant: Message) -> None:
    expr.name = next((name for number, name in _CONSTANTS.items() if number in constant), "")
    expr.text = constant.text(protobuf.Constant.STRING)


def _ident(expr: Expr, ident: Message) -> None:
    expr.name = ident.text(protobuf.Ident.NAME)


def _select(expr: Expr, select: Message) -> None:
    expr.name = select.text(protobuf.Select.FIELD)
    expr.test = bool(select.number(protobuf.Select.TEST_ONLY))
    expr.parts = [_expr(operand) for operand in select.messages(protobuf.Select.OPERAND)]


def _call(expr: Expr, call: Message) -> None:
    expr.name = call.text(protobuf.FunctionCall.FUNCTION)
    expr.member = protobuf.FunctionCall.TARGET in call
    parts = call.messages(protobuf.FunctionCall.TARGET) + call.messages(protobuf.FunctionCall.ARGS)
    expr.parts = [_expr(part) for part in parts]


def _list(expr: Expr, literal: Message) -> None:
    expr.parts = [_expr(element) for element in literal.messages(protobuf.ListExpr.ELEMENTS)]


def _struct(expr: Expr, literal: Message) -> None:
    for entry in literal.messages(protobuf.StructExpr.ENTRIES):
        for number in (protobuf.StructEntry.MAP_KEY, protobuf.StructEntry.VALUE):
            expr.parts += [_expr(part) for part in entry.messages(number)]


_LOOP_PARTS = (
    protobuf.Comprehension.ITER_RANGE,
    protobuf.Comprehension.ACCU_INIT,
    protobuf.Comprehension.LOOP_CONDITION,
    protobuf.Comprehension.LOOP_STEP,
    protobuf.Comprehension.RESULT,
)


def _comprehension(expr: Expr, loop: Message) -> None:
    expr.name = loop.text(protobuf.Comprehension.ITER_VAR)
    expr.second = loop.text(protobuf.Comprehension.ITER_VAR2)
    expr.other = loop.text(protobuf.Comprehension.ACCU_VAR)
    expr.parts = [_expr(part) for number in _LOOP_PARTS for part in loop.messages(number)]


_KINDS: Mapping[int, tuple[str, Callable[[Expr, Message], None]]] = {
    protobuf.Expr.CONST: ("const", _constant),
    protobuf.Expr.IDENT: ("ident", _ident),
    protobuf.Expr.SELECT: ("select", _select),
    protobuf.Expr.CALL: ("call", _call),
    protobuf.Expr.LIST: ("list", _list),
    protobuf.Expr.STRUCT: ("struct", _struct),
    protobuf.Expr.COMPREHENSION: ("comprehension", _comprehension),
}
