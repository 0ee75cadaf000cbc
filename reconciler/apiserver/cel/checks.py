"""Find in a CEL expression what the real server's compiler refuses and the engine's does not.

The engine knows the types of literals and of what it computes; what comes from the document is anything to it. Here
both are known, each type by its name in messages, or by nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler.apiserver.cel.engine import pattern_problem
from reconciler.apiserver.cel.syntax_tree import Expr

__all__ = ["call_problems", "literal_problems", "start_problem"]

Problems = Iterator[tuple[Expr, str]]
_SCALARS = frozenset({"bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"})
_NUMBERS = frozenset({"double", "int", "uint"})
_ORDERED = frozenset({"_<_", "_<=_", "_>_", "_>=_"})
_EQUAL = frozenset({"_==_", "_!=_"})
_COMPUTED = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_"})
_OF_TEXTS = frozenset(
    {
        "charAt",
        "contains",
        "endsWith",
        "find",
        "findAll",
        "lowerAscii",
        "matches",
        "replace",
        "split",
        "startsWith",
        "substring",
        "trim",
        "upperAscii",
    }
)
_DURATION = re.compile(r"[+-]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
_TIMES = {"duration": _DURATION, "timestamp": _TIMESTAMP}


def call_problems(call: Expr, kinds: list[str]) -> Problems:
    """Yield what is wrong with a call, and where.

    Args:
        call: the call.
        kinds: the types of what it is given.
    """
    if call.name in ("_&&_", "_||_"):
        for part, kind in zip(call.parts, kinds, strict=True):
            if kind not in ("", "bool"):
                yield part, f"expected type 'bool' but found '{kind}'"
    elif not _fit(call, kinds):
        yield call, f"found no matching overload for '{call.name}' applied to '{_shown(call, kinds)}'"
    elif call.name in _TIMES and _is_text(call.parts[0]) and not _TIMES[call.name].fullmatch(call.parts[0].text):
        yield call.parts[0], f"invalid {call.name} argument"
    elif call.name == "matches" and _is_text(call.parts[-1]) and pattern_problem(call.parts[-1].text):
        yield call.parts[-1], "invalid matches argument"


def start_problem(root: Expr) -> str:
    """Return why no program can be made of a compiled rule, or nothing: what is constant is computed then."""
    for expr in root.walk():
        if expr.kind != "call" or not expr.parts:
            continue
        if expr.name in ("find", "findAll") and len(expr.parts) > 1 and _is_text(expr.parts[1]):
            problem = pattern_problem(expr.parts[1].text)
            if problem:
                return problem
        reads = _CONVERSIONS.get(expr.name)
        if reads is not None and _is_text(expr.parts[0]) and not reads.fullmatch(expr.parts[0].text):
            return f"type conversion error from 'string' to '{expr.name}'"
    return ""


def _is_text(expr: Expr) -> bool:
    return expr.kind == "const" and expr.name == "string"


_CONVERSIONS = {
    "bool": re.compile("1|t|T|true|TRUE|True|0|f|F|false|FALSE|False"),
    "double": re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE),
    "int": re.compile(r"[+-]?[0-9]+"),
    "uint": re.compile(r"[0-9]+"),
}
"""The texts that can be read as something else."""


def literal_problems(literal: Expr, kinds: list[str]) -> Problems:
    """Yield what is wrong with a list or map that is written out, and where: its items have to be of one type."""
    if literal.kind == "list":
        yield from _differing(literal.parts, kinds)
    elif literal.kind == "struct" and not literal.name:
        keys = list(_differing(literal.parts[::2], kinds[::2]))
        yield from keys
        yield from _differing(literal.parts[1::2], kinds[1::2])


def _differing(parts: list[Expr], kinds: list[str]) -> Problems:
    for part, kind in zip(parts[1:], kinds[1:], strict=True):
        if kinds[0] and kind and kind != kinds[0]:
            yield part, f"expected type '{kinds[0]}' but found '{kind}'"


def _fit(call: Expr, kinds: list[str]) -> bool:
    """Tell whether the types of a call go together, as far as they are known."""
    receiver = kinds[0]
    if call.name in _ALONE:
        return receiver in ("", *_ALONE[call.name])
    if call.member and call.name in _OF_TEXTS:
        return receiver in ("", "string")
    if call.member and call.name == "validate":
        return receiver in ("", "kubernetes.NamedFormat")
    if call.name == "size":
        return receiver not in _WITHOUT_SIZE
    if call.name in ("_[_]", "_[?_]") and receiver == "object":
        return False
    return len(kinds) != 2 or not all(kinds) or _two_fit(call, *kinds)


_ALONE = {"!_": ("bool",), "-_": ("int", "double", "duration"), "_?_:_": ("bool",)}
"""The operators whose first side is of some types alone."""
_WITHOUT_SIZE = frozenset({"bool", "double", "duration", "int", "object", "timestamp", "uint"})


def _two_fit(call: Expr, one: str, other: str) -> bool:
    if call.name in _EQUAL or call.name in _ORDERED or call.name in _COMPUTED:
        return _pair_fits(call.name, one, other)
    if call.name == "@in":
        return _is_in(one, other)
    if call.name == "_[_]" and one.startswith("list("):
        return other in _NUMBERS
    if call.name == "_[_]" and one.startswith("map(string"):
        return other == "string"
    if call.member and call.name in ("indexOf", "lastIndexOf") and one.startswith("list("):
        return _is_in(other, one)
    return True


def _pair_fits(name: str, left: str, right: str) -> bool:
    if left == right:
        return True
    if name in _ORDERED and {left, right} <= _NUMBERS:
        return True
    if "null" in (left, right):
        return bool({left, right} & {"duration", "object", "timestamp"})
    if {left, right} & {"duration", "timestamp"} and name in _COMPUTED:
        return {left, right} <= {"duration", "timestamp"}
    return False


def _is_in(item: str, within: str) -> bool:
    kind = within.partition("(")[2].rstrip(")").partition(",")[0]
    return kind not in _SCALARS or item not in _SCALARS or kind == item


def _shown(call: Expr, kinds: list[str]) -> str:
    named = [kind or "dyn" for kind in kinds]
    return f"{named[0]}.({', '.join(named[1:])})" if call.member else f"({', '.join(named)})"
