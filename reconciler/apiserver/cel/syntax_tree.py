"""The syntax tree of a compiled CEL expression, with the positions and types of its parts.

The engine gives trees away only as serialized protobuf messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.apiserver.cel.messages import Fields, read_message

__all__ = ["Expr", "Tree", "read_tree"]


@dataclass(slots=True)
class Expr:
    """An expression.

    Attributes:
        kind: ``const``, ``ident``, ``select``, ``call``, ``list``, ``struct`` or ``loop``, to which macros such as
            ``all`` and ``map`` are expanded.
        id: the number under which its position and type are listed.
        name: the identifier, the selected member, the called function, the variable of a loop, or the type of a
            constant.
        parts: the expressions below; those of a loop are range, initial value, condition, step and result.
        test: the selection only tests whether the member is present.
        text: the value of a string constant.
        member: the function is called as a method of its first part.
        other: the name of a loop's accumulator.
        second: the name of a loop's second variable, or empty.
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
    """An expression with the positions of its parts in the source and the types that the engine inferred, by id.

    Attributes:
        message: the message that it was read from.
    """

    root: Expr
    positions: dict[int, int]
    types: dict[int, str]
    message: Fields


def read_tree(serialized: bytes) -> Tree:
    """Decode the result of ``Expression.serialize``."""
    envelope = read_message(serialized, "Any")
    found = read_message(envelope["value"], "Parsed" if "ParsedExpr" in envelope["type_url"] else "Checked")
    positions = {each.get("key", 0): each.get("value", 0) for each in found.get("source", {}).get("positions", ())}
    types = {each.get("key", 0): _type(each["value"]) for each in found.get("types", ())}
    return Tree(_expr(found["expr"]), positions, types, found)


_PRIMITIVE = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {2: "timestamp", 3: "duration"}


def _type(message: Fields) -> str:
    """Return the name of a type, or an empty string for an unknown one."""
    if "null" in message:
        return "null"
    if "list" in message:
        items = _type(message["list"].get("items", {}))
        return f"list({items})" if items else ""
    if "map" in message:
        keys, values = (_type(message["map"].get(part, {})) for part in ("keys", "values"))
        return f"map({keys}, {values})" if keys and values else ""
    return _PRIMITIVE.get(message.get("primitive", 0)) or _WELL_KNOWN.get(message.get("well_known", 0), "")


_KINDS = ("const", "ident", "select", "call", "list", "struct", "loop")
_NAMES = {"ident": "name", "select": "field", "call": "function", "loop": "name"}
_PARTS = ("operand", "target", "args", "elements", "range", "first", "condition", "step", "result")


def _expr(message: Fields) -> Expr:
    kind = next((each for each in _KINDS if each in message), "")
    expr = Expr(kind, message.get("id", 0))
    if kind == "const":
        constant = read_message(message[kind], "Constant")
        expr.name, expr.text = next((str(name) for name in constant), ""), constant.get("string", "")
        return expr
    fields: Fields = message.get(kind, {})
    expr.name = fields.get(_NAMES.get(kind, ""), "")
    expr.test, expr.member = bool(fields.get("test")), "target" in fields
    expr.other, expr.second = fields.get("other", ""), fields.get("second", "")
    below = [fields[part] for part in _PARTS if part in fields]
    below += [[each[part] for part in ("key", "value") if part in each] for each in fields.get("entries", ())]
    expr.parts = [_expr(each) for part in below for each in (part if isinstance(part, list) else [part])]
    return expr
