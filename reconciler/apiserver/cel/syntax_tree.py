"""The syntax tree of a compiled CEL expression, and its rewriting into one that the engine can run.

The engine gives trees away only as serialized protobuf messages, which are read and written as dicts, because it offers
no classes for them. ``syntax.txt`` has the fields that are read or written here, of the messages of
``cel/expr/syntax.proto`` and ``cel/expr/checked.proto``: their number, name and type, with a star for a repeated field.
Other fields keep their number as their name, and their value on the wire.

In rules, members have escaped names, and numbers of type ``number`` are doubles. The engine compiles some functions
that it cannot run, and external functions cannot return optionals. So calls of the former are renamed, and calls of the
latter are wrapped: an empty result becomes ``optional.none()``. Strings of the document that stand for times, durations
or bytes are wrapped in conversions. Lists of type set or map are compared and added by functions that ignore order.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cel.functions import FORMAT_TYPES, functions
from reconciler.apiserver.encoding.protobuf import read_fields, write_field
from reconciler.apiserver.encoding.text import data_file
from reconciler.apiserver.schema import ANYTHING, Node

Fields = dict[str | int, Any]
_PRIMITIVE = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {2: "timestamp", 3: "duration"}
_KINDS = ("const", "ident", "select", "call", "list", "struct", "loop")
_NAMES = {"ident": "name", "select": "field", "call": "function", "loop": "name"}
_PARTS = ("operand", "target", "args", "elements", "range", "first", "condition", "step", "result")


def _parsed(line: str) -> dict[str, tuple[int, str, bool]]:
    fields = (field.split() for field in line.partition(": ")[2].split(", "))
    return {name.rstrip("*"): (int(number), form, name.endswith("*")) for number, name, form in fields}


_MESSAGES = {line.partition(":")[0]: _parsed(line) for line in data_file("cel/syntax.txt").decode().splitlines()}
_FIELD_NAMES = {kind: {number: name for name, (number, _, _) in fields.items()} for kind, fields in _MESSAGES.items()}


def read_message(encoded: bytes, kind: str) -> Fields:
    """Return a message of a kind; fields that are not set are missing."""
    found: Fields = {}
    for number, value in read_fields(encoded):
        name = _FIELD_NAMES[kind].get(number)
        if name is None:
            found.setdefault(number, []).append(value)
            continue
        _, form, repeated = _MESSAGES[kind][name]
        read: Any = value
        if isinstance(value, bytes) and form != "bytes":
            read = value.decode() if form == "text" else read_message(value, form)
        if repeated:
            found.setdefault(name, []).append(read)
        else:
            found[name] = read
    return found


def write_message(message: Fields, kind: str) -> bytes:
    """Return a message of a kind on the wire."""
    written = b""
    for name, value in message.items():
        number, form, repeated = _MESSAGES[kind][name] if isinstance(name, str) else (name, "bytes", True)
        for each in value if repeated else [value]:
            encoded = each.encode() if form == "text" else write_message(each, form) if form in _MESSAGES else each
            written += write_field(number, encoded)
    return written


def change_expressions(message: Fields, kind: str, change: Callable[[Fields], Fields]) -> Fields:
    """Return a message with the expressions in it changed, but not those inside of them."""

    def changed(value: Fields, form: str) -> Fields:
        return change(value) if form == "Expr" else change_expressions(value, form, change)

    found = dict(message)
    for name, (_, form, repeated) in _MESSAGES[kind].items():
        if name in message and form in _MESSAGES:
            value = message[name]
            found[name] = [changed(each, form) for each in value] if repeated else changed(value, form)
    return found


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


def _type(message: Fields) -> str:
    if "null" in message:
        return "null"
    if "list" in message:
        items = _type(message["list"].get("items", {}))
        return f"list({items})" if items else ""
    if "map" in message:
        keys, values = (_type(message["map"].get(part, {})) for part in ("keys", "values"))
        return f"map({keys}, {values})" if keys and values else ""
    return _PRIMITIVE.get(message.get("primitive", 0)) or _WELL_KNOWN.get(message.get("well_known", 0), "")


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


RESERVED_WORD = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|var|void|while"
)
"""The words that are not identifiers."""
_SCALARS = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}


def _cel_name(key: str) -> str | None:
    """Return the name of a member in rules, or None if rules cannot name it."""
    if RESERVED_WORD.fullmatch(key):
        return f"__{key}__"
    escaped = (
        key.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )
    return escaped if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", escaped) else None


def _cel_names(key: str) -> tuple[str, ...]:
    """Return all names of a member in rules: a reserved word can also be selected as it is."""
    name = _cel_name(key)
    return () if name is None else (name, key) if name == f"__{key}__" else (name,)


def type_of(place: Node | None) -> str:
    """Return the name of a place's type, or an empty string if it is unknown."""
    if place is None or place is ANYTHING or place.int_or_string:
        return ""
    if place.type == "array":
        items = type_of(place.items)
        return f"list({items})" if items else ""
    if place.type == "object" and place.additional is not None and not place.properties:
        values = type_of(place.additional)
        return f"map(string, {values})" if values else ""
    if place.type == "object":
        return "object"
    if place.type == "string" and place.format in FORMAT_TYPES:
        return FORMAT_TYPES[place.format]
    return _SCALARS.get(place.type, "")


def member_of(owner: Node, name: str) -> Node | None:
    """Return the place of the member with a name in rules, or None."""
    found = owner.properties.get(name)
    if found is not None and name in _cel_names(name):
        return found
    for key, child in owner.properties.items():
        if _cel_name(key) == name:
            return child
    return owner.additional


def to_cel(value: Any, node: Node | None) -> Any:
    """Return a value as rules see it.

    Numbers of type ``number`` are doubles, members have their CEL names, and members that are null are absent. Strings
    that stand for times, durations or bytes stay strings, which is all that the engine accepts; the rewritten
    expressions convert them.
    """
    if node is None or node is ANYTHING:
        return value
    if isinstance(value, dict):
        return _members(value, node)
    if isinstance(value, list):
        return [to_cel(item, node.items) for item in value]
    if node.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _members(value: JSONObject, node: Node) -> dict[str, Any]:
    named = {}
    for key, member in value.items():
        child = node.properties.get(key)
        if child is not None:
            if member is not None:
                named.update(dict.fromkeys(_cel_names(key), to_cel(member, child)))
        elif node.additional is not None:
            named[key] = to_cel(member, node.additional)
        elif node.preserve:
            named[key] = member
    return named


_RENAMED = {"cel.@mapInsert": "@mapInsert"}
_OPTIONAL = frozenset({"format.named", "validate"})
"""The functions whose results are wrapped in optionals."""

_NEW_IDS = 1_000_000
"""The distance between the ids of added expressions and those that the engine assigned, which are small."""

_FORMAT_FUNCTIONS = {"date-time": "timestamp"}
"""The conversions that are functions of the engine, by format; it leaves timestamps unchanged."""

_UNORDERED = {"_!=_": "@differ", "_+_": "@join", "_==_": "@same"}
"""The functions for lists of type set or map, by the operator that they replace."""
_CHECKED = "type.googleapis.com/cel.expr.CheckedExpr"


@functools.cache
def _own_names() -> frozenset[str]:
    """Return the ids of the overloads that have an implementation of their own, which is called by the same name."""
    return frozenset(function.runs_as for function in functions())


@dataclass(slots=True)
class Rewriter:
    """Rewrites a compiled expression into one that the engine can run.

    Attributes:
        tree: the expression.
        conversions: the formats of strings to convert, by the id of the expression.
        unordered: the keys of lists to compare or add regardless of order, by the id of the call.
        optional_old: ``oldSelf`` is an optional, which has a value if ``hadOldSelf`` is true.
    """

    tree: Tree
    conversions: Mapping[int, str]
    unordered: Mapping[int, tuple[str, ...]]
    _: KW_ONLY
    optional_old: bool
    _names: dict[int, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for each in self.tree.message.get("references", ()):
            found = each["value"].get("overloads", ())
            if len(found) == 1 and found[0] in _own_names():
                self._names[each.get("key", 0)] = found[0]

    def run(self) -> bytes:
        """Return the rewritten expression, serialized."""
        message: Fields = {**self.tree.message, "expr": self._expression(self.tree.message["expr"])}
        return write_message({"type_url": _CHECKED, "value": write_message(message, "Checked")}, "Any")

    def _expression(self, message: Fields) -> Fields:
        """Return an expression with all changes made to it and to the expressions below it."""
        identity: int = message.get("id", 0)
        done = change_expressions(message, "Expr", self._expression)
        if "call" in done:
            done["call"] = self._call(done["call"], identity)
            if message["call"]["function"] in _OPTIONAL:
                return _wrapped(done, "optional.ofNonZeroValue", identity)
        if self.optional_old and done.get("ident") == {"name": "oldSelf"}:
            return _old_as_optional(done, identity)
        form = self.conversions.get(identity)
        return _wrapped(done, _FORMAT_FUNCTIONS.get(form, f"@{form}"), identity) if form else done

    def _call(self, call: Fields, identity: int) -> Fields:
        function, keys = call["function"], self.unordered.get(identity)
        if keys is not None:
            return {**call, "function": _UNORDERED[function], "args": [*call["args"], _strings(keys, identity)]}
        return {**call, "function": self._names.get(identity) or _RENAMED.get(function, function)}


def _old_as_optional(old: Fields, identity: int) -> Fields:
    """Return the expression ``hadOldSelf ? optional.of(oldSelf) : optional.none()``."""
    had: Fields = {"id": identity + 2 * _NEW_IDS, "ident": {"name": "hadOldSelf"}}
    none: Fields = {"id": identity + 3 * _NEW_IDS, "call": {"function": "optional.none"}}
    parts = [had, _wrapped(old, "optional.of", identity), none]
    return {"id": identity + 4 * _NEW_IDS, "call": {"function": "_?_:_", "args": parts}}


def _wrapped(expression: Fields, function: str, identity: int) -> Fields:
    return {"id": identity + _NEW_IDS, "call": {"function": function, "args": [expression]}}


def _strings(strings: tuple[str, ...], identity: int) -> Fields:
    items: list[Fields] = [
        {"id": identity + index * _NEW_IDS, "const": write_message({"string": text}, "Constant")}
        for index, text in enumerate(strings, 1)
    ]
    return {"id": identity + (len(strings) + 1) * _NEW_IDS, "list": {"elements": items}}
