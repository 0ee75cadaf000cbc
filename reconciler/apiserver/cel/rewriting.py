"""Rewriting of compiled CEL expressions into ones that the engine can run, and the functions that they then call.

The engine compiles some functions that it cannot run, and external functions cannot return optionals. So calls of the
former are renamed, and calls of the latter are wrapped: an empty result becomes ``optional.none()``. Strings of the
document that stand for times, durations or bytes are wrapped in conversions. Lists of type set or map are compared and
added by functions that ignore order.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.apiserver.cel.engine import Function
from reconciler.apiserver.cel.model import FORMAT_TYPES
from reconciler.apiserver.cel.syntax_tree import Fields, Tree, change_expressions, write_message

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
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ns|us|µs|ms|s|m|h|d|w|[a-z]{3,})")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


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


def runnable(tree: Tree, changes: Changes) -> bytes:
    """Return a compiled expression that the engine can run."""
    message: Fields = {**tree.message, "expr": _Rewriter(changes, tree.message).expression(tree.message["expr"])}
    return write_message({"type_url": _CHECKED, "value": write_message(message, "Checked")}, "Any")


def _constant(value: Fields) -> Fields:
    return {"const": write_message(value, "Constant")}


class _Rewriter:
    def __init__(self, changes: Changes, checked: Fields) -> None:
        self._changes = changes
        resolved = ((each.get("key", 0), each["value"].get("overloads", ())) for each in checked.get("references", ()))
        self._names = {call: changes.names.get(*overloads) for call, overloads in resolved if len(overloads) == 1}

    def expression(self, message: Fields) -> Fields:
        """Return an expression with all changes made to it and to the expressions below it."""
        identity: int = message.get("id", 0)
        done = change_expressions(message, "Expr", self.expression)
        if "call" in done:
            done["call"] = self._call(done["call"], identity)
            if message["call"]["function"] in _OPTIONAL:
                return _wrapped(done, "optional.ofNonZeroValue", identity)
        if self._changes.optional_old and done.get("ident") == {"name": "oldSelf"}:
            return _old_as_optional(done, identity)
        form = self._changes.conversions.get(identity)
        return _wrapped(done, _FORMAT_FUNCTIONS.get(form, f"@{form}"), identity) if form else done

    def _call(self, call: Fields, identity: int) -> Fields:
        function, keys = call["function"], self._changes.unordered.get(identity)
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
    items = [
        {"id": identity + index * _NEW_IDS, **_constant({"string": text})} for index, text in enumerate(strings, 1)
    ]
    return {"id": identity + (len(strings) + 1) * _NEW_IDS, "list": {"elements": items}}


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


_SECONDS |= {"nan": 1e-9, "mic": 1e-6, "mil": 1e-3, "sec": 1, "min": 60, "hou": 3600, "day": 86400, "wee": 604800}
"""The seconds of units; of a long one, by its first three letters."""


def _duration(text: str) -> timedelta:
    seconds = 0.0
    for number, unit in _DURATION_PART.findall(text.lstrip("+-")):
        seconds += float(number) * _SECONDS[unit[:3]]
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


_CONVERSIONS: Mapping[str, Callable[[str], Any]] = {
    "byte": base64.b64decode,
    "date": lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC),
    "date-time": lambda text: datetime.fromisoformat(text.upper()),
    "duration": _duration,
}
