"""Rewriting of compiled CEL expressions into ones that the engine can run, and the functions that they then call.

The engine compiles some functions that it cannot run, and external functions cannot return optionals. So calls of the
former are renamed, and calls of the latter are wrapped: an empty result becomes ``optional.none()``. Strings of the
document that stand for times, durations or bytes are wrapped in conversions. Lists of type set or map are compared and
added by functions that ignore order.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.apiserver.cel.engine import Function
from reconciler.apiserver.cel.model import FORMAT_TYPES
from reconciler.apiserver.cel.protobuf import (
    CheckedExpr,
    Comprehension,
    Constant,
    Envelope,
    Expr,
    FunctionCall,
    Ident,
    ListExpr,
    MapEntry,
    Reference,
    Select,
    StructEntry,
    StructExpr,
)
from reconciler.apiserver.encoding.protobuf_wire import Message, read_fields, write_field

__all__ = ["Changes", "runnable", "runtime_functions"]

_RENAMED = {"cel.@mapInsert": "@mapInsert"}
_OPTIONAL = frozenset({"format.named", "validate"})
"""The functions whose results are wrapped in optionals."""

_NEW_IDS = 1_000_000
"""The distance between the ids of added expressions and those that the engine assigned, which are small."""

_FORMAT_FUNCTIONS = {"date-time": "timestamp"}
"""The conversions that are functions of the engine, by format; it leaves timestamps unchanged."""

_UNORDERED = {"_!=_": "@differ", "_+_": "@join", "_==_": "@same"}
"""The functions for lists of type set or map, by the operator that they replace."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes to make to an expression.

    Attributes:
        names: the names of functions to call instead of an overload, by the overload's id.
        conversions: the formats of strings to convert, by the id of the expression.
        unordered: the keys of lists to compare or add regardless of order, by the id of the call.
        optional_old: ``oldSelf`` is an optional, which has a value if ``hadOldSelf`` is true.
    """

    names: Mapping[str, str]
    conversions: Mapping[int, str]
    unordered: Mapping[int, tuple[str, ...]]
    optional_old: bool


def runnable(serialized: bytes, changes: Changes, bound: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """Return a compiled expression that the engine can run.

    Args:
        serialized: the result of ``Expression.serialize``.
        changes: the changes to make.
        bound: names that stand for other compiled expressions, each after those that it uses. The engine evaluates
            them when they are first used.
    """

    def checked(message: bytes) -> bytes:
        changed = _with_field(message, CheckedExpr.EXPR, _Rewriter(changes, Message(message)).expression)
        if not bound:
            return changed
        # References and types are by id, and the ids of the bound expressions are not unique.
        inner = _field(changed, CheckedExpr.EXPR)
        for name, other in reversed(bound):
            inner = _let(name, _field(_field(runnable(other, changes), Envelope.VALUE), CheckedExpr.EXPR), inner)
        return write_field(CheckedExpr.EXPR, inner)

    return _with_field(serialized, Envelope.VALUE, checked)


def _field(message: bytes, wanted: int) -> bytes:
    return next(value for number, value in read_fields(message) if number == wanted and isinstance(value, bytes))


def _let(name: str, value: bytes, result: bytes) -> bytes:
    """Return ``cel.bind(name, value, result)``, with its macro expanded."""
    ident = write_field(Expr.IDENT, write_field(Ident.NAME, name.encode()))
    loop = (
        (Comprehension.ITER_VAR, b"#unused"),
        (Comprehension.ITER_RANGE, write_field(Expr.LIST, b"")),
        (Comprehension.ACCU_VAR, name.encode()),
        (Comprehension.ACCU_INIT, value),
        (Comprehension.LOOP_CONDITION, write_field(Expr.CONST, write_field(Constant.BOOL, 0))),
        (Comprehension.LOOP_STEP, ident),
        (Comprehension.RESULT, result),
    )
    return write_field(Expr.COMPREHENSION, b"".join(write_field(number, part) for number, part in loop))


def referenced_names(serialized: bytes) -> set[str]:
    """Return the names of the variables that a compiled expression uses, qualified ones as a whole."""
    entries = Message(serialized).message(Envelope.VALUE).messages(CheckedExpr.REFERENCE_MAP)
    return {entry.message(MapEntry.VALUE).text(Reference.NAME) for entry in entries}


def _with_field(message: bytes, number: int, change: Callable[[bytes], bytes]) -> bytes:
    """Return a message with one of its fields changed; the order of the fields stays."""
    return b"".join(
        write_field(found, change(value) if found == number and isinstance(value, bytes) else value)
        for found, value in read_fields(message)
    )


class _Rewriter:
    """A rewriter of expressions.

    Args:
        changes: the changes to make.
        checked: the message around the expression.
    """

    def __init__(self, changes: Changes, checked: Message) -> None:
        self._changes = changes
        self._names = {
            call: changes.names[overload] for call, overload in _overloads(checked) if overload in changes.names
        }

    def expression(self, message: bytes) -> bytes:
        """Return an expression with all changes made to it and to the expressions below it."""
        identity, optional, done = 0, False, b""
        for number, value in read_fields(message):
            if number == Expr.ID and isinstance(value, int):
                identity = value
            elif number == Expr.CALL and isinstance(value, bytes):
                optional = _function(value) in _OPTIONAL
            done += write_field(number, self._part(number, value, identity) if isinstance(value, bytes) else value)
        if optional:
            return _wrapped(done, "optional.ofNonZeroValue", identity)
        if self._changes.optional_old and done.endswith(_OLD_SELF):
            return _old_as_optional(done, identity)
        form = self._changes.conversions.get(identity)
        return _wrapped(done, _FORMAT_FUNCTIONS.get(form, f"@{form}"), identity) if form else done

    def _part(self, number: int, value: bytes, identity: int) -> bytes:
        if number == Expr.STRUCT:
            return _with_field(value, StructExpr.ENTRIES, self._entry)
        if number not in _SUBEXPRESSIONS:
            return value
        changed = self._children(value, _SUBEXPRESSIONS[number])
        return self._call(changed, identity) if number == Expr.CALL else changed

    def _children(self, message: bytes, fields: frozenset[int]) -> bytes:
        return b"".join(
            write_field(number, self.expression(value) if number in fields and isinstance(value, bytes) else value)
            for number, value in read_fields(message)
        )

    def _entry(self, entry: bytes) -> bytes:
        return self._children(entry, frozenset({StructEntry.MAP_KEY, StructEntry.VALUE}))

    def _call(self, call: bytes, identity: int) -> bytes:
        function = _function(call)
        keys = self._changes.unordered.get(identity)
        if keys is not None:
            return _renamed(call, _UNORDERED[function]) + write_field(FunctionCall.ARGS, _strings(keys, identity))
        return _renamed(call, self._names.get(identity) or _RENAMED.get(function, function))


_SUBEXPRESSIONS: Mapping[int, frozenset[int]] = {
    Expr.SELECT: frozenset({Select.OPERAND}),
    Expr.CALL: frozenset({FunctionCall.TARGET, FunctionCall.ARGS}),
    Expr.LIST: frozenset({ListExpr.ELEMENTS}),
    Expr.COMPREHENSION: frozenset(
        {
            Comprehension.ITER_RANGE,
            Comprehension.ACCU_INIT,
            Comprehension.LOOP_CONDITION,
            Comprehension.LOOP_STEP,
            Comprehension.RESULT,
        }
    ),
}
"""The fields that hold expressions, by the kind of expression around them."""


def _overloads(checked: Message) -> Iterator[tuple[int, str]]:
    """Yield the id of each call that was resolved to a single overload, and the id of the overload."""
    for entry in checked.messages(CheckedExpr.REFERENCE_MAP):
        overloads = entry.message(MapEntry.VALUE).texts(Reference.OVERLOAD_ID)
        if len(overloads) == 1:
            yield entry.number(MapEntry.KEY), overloads[0]


_OLD_SELF = write_field(Expr.IDENT, write_field(Ident.NAME, b"oldSelf"))


def _old_as_optional(old: bytes, identity: int) -> bytes:
    """Return the expression ``hadOldSelf ? optional.of(oldSelf) : optional.none()``."""

    def numbered(step: int, expression: bytes) -> bytes:
        return write_field(Expr.ID, identity + step * _NEW_IDS) + expression

    had = numbered(2, write_field(Expr.IDENT, write_field(Ident.NAME, b"hadOldSelf")))
    none = numbered(3, write_field(Expr.CALL, write_field(FunctionCall.FUNCTION, b"optional.none")))
    either = write_field(FunctionCall.FUNCTION, b"_?_:_") + b"".join(
        write_field(FunctionCall.ARGS, part) for part in (had, _wrapped(old, "optional.of", identity), none)
    )
    return numbered(4, write_field(Expr.CALL, either))


def _function(call: bytes) -> str:
    return Message(call).text(FunctionCall.FUNCTION)


def _renamed(call: bytes, name: str) -> bytes:
    return _with_field(call, FunctionCall.FUNCTION, lambda _: name.encode())


def _wrapped(expression: bytes, function: str, identity: int) -> bytes:
    """Return a call of a function with an expression as its argument."""
    call = write_field(FunctionCall.FUNCTION, function.encode()) + write_field(FunctionCall.ARGS, expression)
    return write_field(Expr.ID, identity + _NEW_IDS) + write_field(Expr.CALL, call)


def _strings(strings: tuple[str, ...], identity: int) -> bytes:
    """Return the expression of a list of strings."""
    items = b""
    for index, text in enumerate(strings, 1):
        constant = write_field(Expr.CONST, write_field(Constant.STRING, text.encode()))
        items += write_field(ListExpr.ELEMENTS, write_field(Expr.ID, identity + index * _NEW_IDS) + constant)
    return write_field(Expr.ID, identity + (len(strings) + 1) * _NEW_IDS) + write_field(Expr.LIST, items)


# The functions that rewritten expressions call.


def runtime_functions() -> list[Function]:
    """Return the functions that no rule names: those of rewritten calls, and the conversions of strings."""
    entries = ("map(dyn, dyn)", "map(dyn, dyn)")
    pair = ("map(dyn, dyn)", "dyn", "dyn")
    lists = ("list(dyn)", "list(dyn)", "list(dyn)")
    return [
        Function("@mapInsert", "map(dyn, dyn)", pair, lambda into, key, value: _inserted(into, {key: value}), False),
        Function("@mapInsert", "map(dyn, dyn)", entries, _inserted, False),
        Function("@same", "bool", lists, _same, False),
        Function("@differ", "bool", lists, lambda one, other, keys: not _same(one, other, keys), False),
        Function("@join", "list(dyn)", lists, _joined, False),
        *(
            Function(f"@{form}", kind, ("dyn",), _if_string(_CONVERSIONS[form]), False)
            for form, kind in FORMAT_TYPES.items()
        ),
    ]


def _inserted(into: dict[Any, Any], more: dict[Any, Any]) -> dict[Any, Any]:
    for key in more:
        if key in into:
            raise ValueError(f"insert failed: key {key} already exists")
    return {**into, **more}


def _same(one: list[Any], other: list[Any], keys: list[str]) -> bool:
    """Return whether two lists have equal items in any order; items of a list with keys are identified by them."""
    if len(one) != len(other):
        return False
    if keys:
        known = {_key(item, keys): item for item in other}
        return all(_key(item, keys) in known and known[_key(item, keys)] == item for item in one)
    return all(item in other for item in one)


def _joined(one: list[Any], other: list[Any], keys: list[str]) -> list[Any]:
    """Return the union of two lists; of two items with the same key, the second list's is kept."""
    if not keys:
        return one + [item for item in other if item not in one]
    found = {_key(item, keys): item for item in one}
    return list({**found, **{_key(item, keys): item for item in other}}.values())


def _key(item: dict[str, Any], keys: list[str]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def _if_string(convert: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a conversion that leaves alone what was already converted."""
    return lambda value: convert(value) if isinstance(value, str) else value


def _date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _date_time(text: str) -> datetime:
    return datetime.fromisoformat(text.upper())


_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ns|us|µs|ms|s|m|h|d|w|[a-z]{3,})")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONG_UNITS: Mapping[str, str] = {
    "nan": "ns",
    "mic": "us",
    "mil": "ms",
    "sec": "s",
    "min": "m",
    "hou": "h",
    "day": "d",
    "wee": "w",
}
"""The short units, by the first three letters of the long ones."""


def _duration(text: str) -> timedelta:
    seconds = 0.0
    for number, unit in _DURATION_PART.findall(text.lstrip("+-")):
        seconds += float(number) * _SECONDS[_LONG_UNITS.get(unit[:3], unit)]
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


_CONVERSIONS: Mapping[str, Callable[[str], Any]] = {
    "byte": base64.b64decode,
    "date": _date,
    "date-time": _date_time,
    "duration": _duration,
}
