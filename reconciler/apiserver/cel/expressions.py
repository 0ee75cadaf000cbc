"""Compilation of CEL expressions about a place of a schema, or about the documents of a webhook's request.

To the engine, objects are maps of any values: it knows the types of literals and computed values, but not those of
values from the document. A `Checker` uses the schema as well, and finds the errors that the real server's compiler
reports: unknown members, and types that do not match. A type is represented by its name in messages, an unknown type by
an empty string.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from reconciler.apiserver.cel import functions
from reconciler.apiserver.cel.syntax_tree import Expr, Rewriter, Tree, member_of, read_tree, type_of
from reconciler.apiserver.encoding.formats import pattern_problem
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.schema import ANYTHING, NO_DEFAULT, Node

_OPTIONAL = {"format.named": "optional_type(kubernetes.NamedFormat)", "validate": "optional_type(list(string))"}
"""The functions whose results are optionals, which the engine's compiler cannot express, with their types."""
_RETURN_OPTIONALS = frozenset({"_?._", "_[?_]", "optional.of", "or"})
_READ_VALUES = frozenset({"_[_]", "orValue", "value"})
"""The functions whose results are values of the document, possibly taken out of an optional."""
Scope = Mapping[str, Node | None]
_INDEX, _KEY = Node("integer"), Node("string")
_TEXT = Node("string")
_NAMES = Node("object", properties={"generateName": _TEXT, "name": _TEXT})
_OBJECT_MEMBERS = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": _NAMES}
"""The places that rules see in every whole object, besides the members in its schema."""
Problems = Iterator[tuple[Expr, str]]
_SCALARS = frozenset({"bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"})
_NUMBERS = frozenset({"double", "int", "uint"})
_ORDERED = frozenset({"_<_", "_<=_", "_>_", "_>=_"})
_EQUAL = frozenset({"_==_", "_!=_"})
_COMPUTED = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_"})
_STRING_METHOD = re.compile(
    "charAt|contains|endsWith|find|findAll|lowerAscii|matches|replace|split|startsWith|substring|trim|upperAscii"
)
_DURATION = re.compile(r"[+-]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.,][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
_TIME_LITERALS = {"duration": _DURATION, "timestamp": _TIMESTAMP}
_CONVERSIONS = {
    "bool": re.compile("1|t|T|true|TRUE|True|0|f|F|false|FALSE|False"),
    "double": re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE),
    "int": re.compile(r"[+-]?[0-9]+"),
    "uint": re.compile(r"[0-9]+"),
}
"""The strings that can be converted to another type."""
_FIRST_OPERAND = {"!_": ("bool",), "-_": ("int", "double", "duration"), "_?_:_": ("bool",)}
"""The operators whose first operand must be of certain types."""
_WITHOUT_SIZE = frozenset({"bool", "double", "duration", "int", "object", "timestamp", "uint"})


class Checker:
    """The checks of an expression: a walk that finds the place of each part.

    The real server does not convert the value in an optional ``oldSelf``: times are strings, and the items of lists
    have an order.

    Args:
        tree: the expression.
        scope: the places of its variables; None for a variable of any type.
        optional_old: whether ``oldSelf`` is an optional.

    Attributes:
        problems: the errors that the real server would report, with their positions, in order.
        result: the type of its result, or empty if it is unknown.
        places: the places that parts of it take their values from, by the id of the part.
        conversions: the formats of strings that stand for something else, by the id of the part.
        unordered: the keys of lists of type set or map that are compared or added, by the id of the call; a set has no
            keys.
    """

    def __init__(self, tree: Tree, scope: Scope, *, optional_old: bool = False) -> None:
        self._tree = tree
        self._format_arguments: set[int] = set()
        self._as_they_are: set[int] = set()
        if optional_old:
            kept = (ANYTHING, NO_DEFAULT)
            copies: dict[int, Any] = {id(each): each for each in kept}
            scope = {**scope, "oldSelf": copy.deepcopy(scope["oldSelf"], copies)}
            self._as_they_are = {id(each) for each in copies.values()} - {id(each) for each in kept}
        self.problems: list[tuple[int, str]] = []
        self.places: dict[int, Node] = {}
        self.conversions: dict[int, str] = {}
        self.unordered: dict[int, tuple[str, ...]] = {}
        self.result = self.infer(tree.root, self.place(tree.root, scope))
        self.problems.sort(key=lambda problem: problem[0])

    def infer(self, expr: Expr, place: Node | None) -> str:
        """Return the type of an expression, or an empty string if it is unknown."""
        if expr.kind == "const":
            return expr.name
        if expr.test:
            return "bool"
        if expr.kind == "call" and expr.name in _OPTIONAL:
            return _OPTIONAL[expr.name]
        if expr.kind == "call" and expr.name in _RETURN_OPTIONALS:
            return ""
        return type_of(place) if place is not None else functions.named_types(self._tree.types.get(expr.id, ""))

    def place(self, expr: Expr, scope: Scope) -> Node | None:
        """Return the place that an expression takes its value from, or None if it is unknown."""
        place = self._place(expr, scope)
        if expr.test or place is None:
            return None
        self.places[expr.id] = place
        form = place.format if place.type == "string" else ""
        read = expr.kind in ("ident", "select") or expr.name in _READ_VALUES
        if form in functions.FORMAT_TYPES and read and id(place) not in self._as_they_are:
            self.conversions[expr.id] = form
        return place

    def _place(self, expr: Expr, scope: Scope) -> Node | None:
        if expr.kind == "ident":
            return scope.get(expr.name)
        if expr.kind == "select":
            return self._select(expr, scope)
        if expr.kind == "loop":
            return self._comprehension(expr, scope)
        if expr.name == "format" and len(expr.parts) == 2:
            self._format_arguments.add(expr.parts[1].id)
        places = [self.place(part, scope) for part in expr.parts]
        types = [self.infer(part, place) for part, place in zip(expr.parts, places, strict=True)]
        if expr.kind == "call" and places:
            return self._call(expr, places, types)
        if expr.id not in self._format_arguments:
            for part, problem in _literal_problems(expr, types):
                self._report(part, problem)
        return None

    def _report(self, expr: Expr, problem: str) -> None:
        self.problems.append((self._tree.positions.get(expr.id, 0), problem))

    def _select(self, expr: Expr, scope: Scope) -> Node | None:
        owner = self.place(expr.parts[0], scope)
        inferred = self.infer(expr.parts[0], owner)
        if inferred and inferred != "object" and not inferred.startswith("map("):
            self._report(expr, f"type '{inferred}' does not support field selection")
            return None
        return self._member(expr, owner, expr.name)

    def _member(self, expr: Expr, owner: Node | None, name: str) -> Node | None:
        if owner is None or owner is ANYTHING or owner.type != "object":
            return None
        child = _OBJECT_MEMBERS.get(name) if owner.embedded else None
        if child is None:
            child = member_of(owner, name)
        if child is None:
            self._report(expr, f"undefined field '{name}'")
        return child

    def _comprehension(self, expr: Expr, scope: Scope) -> Node | None:
        if len(expr.parts) != 5:
            return None
        over = self.place(expr.parts[0], scope)
        inferred = self.infer(expr.parts[0], over)
        if inferred and not inferred.startswith(("list(", "map(")):
            why = "cannot be range of a comprehension (must be list, map, or dynamic)"
            self._report(expr.parts[0], f"expression of type '{inferred}' {why}")
            return None
        # A macro that binds a value to a name is a loop over nothing whose initial value is that value.
        inner = {**scope, expr.other: self.place(expr.parts[1], scope), **_variables(expr, over)}
        places = [self.place(part, inner) for part in expr.parts[2:]]
        return places[-1]

    def _call(self, expr: Expr, places: list[Node | None], types: list[str]) -> Node | None:
        first = places[0]
        for part, problem in _call_problems(expr, types):
            self._report(part, problem)
        if expr.name in ("_[_]", "_[?_]") and first is not None:
            return first.items or first.additional
        if expr.name == "_?._":
            return self._member(expr, first, expr.parts[1].text)
        unordered = first is not None and first.list_type in ("set", "map") and id(first) not in self._as_they_are
        if first is not None and unordered and expr.name in ("_==_", "_!=_", "_+_"):
            self.unordered[expr.id] = first.map_keys if first.list_type == "map" else ()
            return first if expr.name == "_+_" else None
        if expr.name == "_?_:_":
            return places[1]
        return first if expr.name in ("optional.of", "or", "orValue", "value") else None


def _variables(expr: Expr, over: Node | None) -> dict[str, Node | None]:
    """Return the places of a comprehension's variables: an item or a key, or with two variables both of them."""
    if over is None:
        return {expr.name: None, expr.second: None}
    if expr.second:
        return {expr.name: _KEY if over.items is None else _INDEX, expr.second: over.items or over.additional}
    return {expr.name: over.items if over.items is not None else _KEY if over.additional is not None else None}


# The checks of single expressions.


def _call_problems(call: Expr, types: list[str]) -> Problems:
    if call.name in ("_&&_", "_||_"):
        for part, inferred in zip(call.parts, types, strict=True):
            if inferred not in ("", "bool"):
                yield part, f"expected type 'bool' but found '{inferred}'"
    elif not _fits(call, types):
        yield call, f"found no matching overload for '{call.name}' applied to '{_shown(call, types)}'"
    elif call.name in _TIME_LITERALS and _is_string(call.parts[0]):
        if not _TIME_LITERALS[call.name].fullmatch(call.parts[0].text):
            yield call.parts[0], f"invalid {call.name} argument"
    elif call.name == "matches" and _is_string(call.parts[-1]) and pattern_problem(call.parts[-1].text):
        yield call.parts[-1], "invalid matches argument"


def instantiation_problem(root: Expr) -> str:
    """Return why the real server cannot instantiate a rule, or an empty string; it evaluates constants at that time."""
    for expr in root.walk():
        if expr.kind != "call" or not expr.parts:
            continue
        if expr.name in ("find", "findAll") and len(expr.parts) > 1 and _is_string(expr.parts[1]):
            problem = pattern_problem(expr.parts[1].text)
            if problem:
                return problem
        reads = _CONVERSIONS.get(expr.name)
        if reads is not None and _is_string(expr.parts[0]) and not reads.fullmatch(expr.parts[0].text):
            return f"type conversion error from 'string' to '{expr.name}'"
    return ""


def _is_string(expr: Expr) -> bool:
    return expr.kind == "const" and expr.name == "string"


def _literal_problems(literal: Expr, types: list[str]) -> Problems:
    """Yield the errors of a list or map literal, whose items must be of one type."""
    if literal.kind == "list":
        yield from _differing(literal.parts, types)
    elif literal.kind == "struct":
        keys = list(_differing(literal.parts[::2], types[::2]))
        yield from keys
        yield from _differing(literal.parts[1::2], types[1::2])


def _differing(parts: list[Expr], types: list[str]) -> Problems:
    for part, inferred in zip(parts[1:], types[1:], strict=True):
        if types[0] and inferred and inferred != types[0]:
            yield part, f"expected type '{types[0]}' but found '{inferred}'"


def _fits(call: Expr, types: list[str]) -> bool:
    """Return whether the types of a call's arguments match the function, as far as they are known."""
    receiver = types[0]
    if call.name in _FIRST_OPERAND:
        return receiver in ("", *_FIRST_OPERAND[call.name])
    if call.member and _STRING_METHOD.fullmatch(call.name):
        return receiver in ("", "string")
    if call.member and call.name == "validate":
        return receiver in ("", "kubernetes.NamedFormat")
    if call.name == "size":
        return receiver not in _WITHOUT_SIZE
    if call.name in ("_[_]", "_[?_]") and receiver == "object":
        return False
    return len(types) != 2 or not all(types) or _both_fit(call, *types)


def _both_fit(call: Expr, one: str, other: str) -> bool:
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
    inferred = within.partition("(")[2].rstrip(")").partition(",")[0]
    return inferred not in _SCALARS or item not in _SCALARS or inferred == item


def _shown(call: Expr, types: list[str]) -> str:
    named = [inferred or "dyn" for inferred in types]
    return f"{named[0]}.({', '.join(named[1:])})" if call.member else f"({', '.join(named)})"


# The compilation.

_EXISTS_ONE = re.compile(r"\bexists_one(?=\s*\(\s*\w+\s*,\s*\w+\s*,)")
"""The macro with two variables, which the engine spells ``existsOne``."""
_MISMATCH = re.compile(r"(<input>:(\d+):(\d+): found no matching overload for '([\w.]+)' applied to ')\((.*)\)'")
_ERROR_LINE = re.compile(r"ERROR: <input>:(\d+):(\d+): ")


class CompileError(Exception):
    """An expression that does not compile."""


class Expression(NamedTuple):
    """A compiled expression.

    Attributes:
        program: it, ready to run.
        result: the type of its result, ``dyn`` if it is unknown.
        uses_old: whether it uses ``oldSelf``.
        root: its syntax tree.
        places: the places that parts of it take their values from, by the id of the part.
    """

    program: Any
    result: str
    uses_old: bool
    root: Expr
    places: Mapping[int, Node]


def compile_expression(source: str, node: Node, *, optional_old: bool) -> Expression:
    """Compile an expression about a place.

    With `optional_old`, ``oldSelf`` is an optional, which has a value if ``hadOldSelf`` is true.

    Raises:
        CompileError: it does not compile.
    """
    functions.require_engine()
    known = "object" if node.type == "object" else "dyn"
    kind = functions.cel_type((type_of(node) or known).replace("object", "map(string, dyn)"))
    variables = {"self": kind, "oldSelf": functions.cel_type("dyn") if optional_old else kind}
    expression = _compiled(source, functions.checking_environment(variables))
    tree = read_tree(expression.serialize())
    checked = Checker(tree, {"self": node, "oldSelf": node}, optional_old=optional_old)
    result = checked.result or expression.return_type().name().lower()
    uses_old = any(each.kind == "ident" and each.name == "oldSelf" for each in tree.root.walk())
    program = _program(source, tree, checked, optional_old=optional_old)
    return Expression(program, result, uses_old, tree.root, checked.places)


def _program(source: str, tree: Tree, checked: Checker, *, optional_old: bool = False) -> Any:
    """Return the program of a checked expression; raise `CompileError` if the real server refuses it."""
    if checked.problems:
        raise CompileError(_with_source_lines(source, checked.problems))
    if problem := instantiation_problem(tree.root):
        raise CompileError(f"program instantiation failed: {problem}")
    rewritten = Rewriter(tree, checked.conversions, checked.unordered, optional_old=optional_old)
    return functions.running_environment().deserialize(rewritten.run())


def _compiled(source: str, environment: Any) -> Any:
    compiled = _EXISTS_ONE.sub("existsOne ", source)
    try:
        return environment.compile(compiled)
    except RuntimeError as error:
        raise CompileError(f"compilation failed: {_as_real_server(str(error), compiled, source)}") from None


def _as_real_server(text: str, compiled: str, source: str) -> str:
    """Return an error message of the engine as the real server words it, with the receiver of a call apart."""
    text = text.removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
    for changed, line in zip(compiled.split("\n"), source.split("\n"), strict=True):
        text = text.replace(f" | {changed}", f" | {line}")
    lines = source.split("\n")

    def receiver_first(found: re.Match[str]) -> str:
        before = lines[int(found[2]) - 1][: int(found[3]) - 1].rstrip()
        if not before.endswith(f".{found[4]}"):
            return found[0]
        first, rest = _split_first(found[5])
        return f"{found[1]}{first}.({rest})'"

    return _MISMATCH.sub(receiver_first, functions.named_types(_in_order(text)))


def _in_order(text: str) -> str:

    def position(error: str) -> tuple[int, int]:
        found = _ERROR_LINE.match(error)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    return "\n".join(sorted(re.split(r"\n(?=ERROR: )", text), key=position))


def _split_first(types: str) -> tuple[str, str]:
    depth = 0
    for at, letter in enumerate(types):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            return types[:at], types[at + 1 :].lstrip()
    return types, ""


def _with_source_lines(source: str, problems: Iterable[tuple[int, str]]) -> str:
    lines = []
    for position, problem in problems:
        before = source[:position]
        line, column = before.count("\n"), position - (before.rfind("\n") + 1)
        shown = source.split("\n")[line]
        lines.append(f"ERROR: <input>:{line + 1}:{column + 1}: {problem}\n | {shown}\n | {'.' * column}^")
    return "compilation failed: " + "\n".join(lines)


# Conditions of webhooks. The fields of ``request``, the document whose type is known, are in ``documents.json``.


@functools.lru_cache(maxsize=256)
def check_condition(source: str) -> Any:
    """Return the program of a match condition of a webhook, which is about the documents of its request.

    Raises:
        CompileError: it does not compile, or its result is not a boolean.
        MissingExtra: the CEL engine is not installed.
    """
    functions.require_engine()
    documents = recorded("cel/documents.json")
    expression = _compiled(source, functions.checking_environment(dict.fromkeys(documents, functions.cel_type("dyn"))))
    found = expression.return_type()
    name = "null_type" if found.name() == "NULL" else str(found.name()).lower()
    if name != "bool":
        raise CompileError(f"must evaluate to bool but got {name}")
    tree = read_tree(expression.serialize())
    return _program(source, tree, Checker(tree, {each: _document(below) for each, below in documents.items()}))


def _document(fields: Any) -> Node:
    """Return the place of a document with some fields, or of a value of any type for None."""
    return Node() if fields is None else Node("object", properties={key: _document(fields[key]) for key in fields})
