"""Compilation of single CEL expressions, with the errors of kube-apiserver: about a place, or about any documents."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.apiserver.cel.checker import check_expression, instantiation_problem
from reconciler.apiserver.cel.functions import (
    cel_type,
    checking_environment,
    functions,
    named_types,
    require_engine,
    running_environment,
)
from reconciler.apiserver.cel.syntax_tree import Changes, Expr, Tree, read_tree, runnable, type_of
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.schema import Node

_EXISTS_ONE = re.compile(r"\bexists_one\b")
_MISMATCH = re.compile(r"(<input>:(\d+):(\d+): found no matching overload for '([\w.]+)' applied to ')\((.*)\)'")
_ERROR_LINE = re.compile(r"ERROR: <input>:(\d+):(\d+): ")
_UNDECLARED = re.compile(
    r"<input>:(\d+):(\d+): undeclared reference to '(\w+)\.[\w.]+' \(in container ''\)\n \| (.*)\n \| \.*\^"
)
_Fields = Mapping[str, "_Fields | None"]


class CompileError(Exception):
    """An expression that does not compile."""


class Expression(NamedTuple):
    """A compiled expression: ready to run, the type of its result, ``dyn`` if it is unknown, and its syntax tree."""

    program: Any
    result: str
    tree: Tree
    uses_old: bool


def compile_expression(source: str, node: Node, *, optional_old: bool) -> Expression:
    """Compile an expression about a place.

    With `optional_old`, ``oldSelf`` is an optional, which has a value if ``hadOldSelf`` is true.

    Raises:
        CompileError: it does not compile.
    """
    of_object = "map(string, dyn)"
    known = type_of(node).replace("object", of_object)
    kind = cel_type(known or (of_object if node.type == "object" else "dyn"))
    variables = {"self": kind, "oldSelf": cel_type("dyn") if optional_old else kind}
    expression = _compiled(source, checking_environment(variables))
    tree = read_tree(expression.serialize())
    checked = check_expression(tree, node, optional_old=optional_old)
    _check_tree(source, tree, checked.problems)
    program = running_environment().deserialize(
        runnable(tree, Changes(_runs_as(), checked.conversions, checked.unordered, optional_old))
    )
    return Expression(program, checked.result or expression.return_type().name().lower(), tree, checked.uses_old)


def _compiled(source: str, environment: Any) -> Any:
    compiled = _with_one_spelling(source, environment)
    try:
        return environment.compile(compiled)
    except RuntimeError as error:
        raise CompileError(f"compilation failed: {_as_real_server(str(error), compiled, source)}") from None


def _check_tree(source: str, tree: Tree, problems: Sequence[tuple[int, str]]) -> None:
    if problems:
        raise CompileError(_with_source_lines(source, problems))
    if problem := instantiation_problem(tree.root):
        raise CompileError(f"program instantiation failed: {problem}")


@functools.cache
def _runs_as() -> Mapping[str, str]:
    return {function.runs_as: function.runs_as for function in functions() if function.runs_as}


def _with_one_spelling(source: str, environment: Any) -> str:
    """Return an expression with ``exists_one`` with two variables spelled ``existsOne``, as the engine spells it."""
    if "exists_one" not in source:
        return source
    try:
        tree = read_tree(environment.compile(source, disable_check=True).serialize())
    except RuntimeError:
        return source
    for expr in tree.root.walk():
        if expr.kind == "call" and expr.name == "exists_one" and len(expr.parts) == 4:
            at = [match.start() for match in _EXISTS_ONE.finditer(source, 0, tree.positions.get(expr.id, 0))]
            if at:
                source = f"{source[: at[-1]]}existsOne {source[at[-1] + len('exists_one') :]}"
    return source


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

    return _MISMATCH.sub(receiver_first, named_types(_in_order(text)))


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


# Expressions about documents of any type.


def check_condition(source: str, documents: Sequence[str]) -> Any:
    """Return the program of a condition about some documents of any type.

    Raises:
        CompileError: it does not compile, or its result is not a boolean.
        MissingExtra: the CEL engine is not installed.
    """
    require_engine()
    environment = checking_environment(dict.fromkeys(documents, cel_type("dyn")))
    try:
        expression = _compiled(source, environment)
    except CompileError as error:
        raise CompileError(_first_names(str(error))) from None
    found = expression.return_type()
    name = "null_type" if found.name() == "NULL" else str(found.name()).lower()
    if name != "bool":
        raise CompileError(f"must evaluate to bool but got {name}")
    tree = read_tree(expression.serialize())
    undefined = [(tree.positions.get(place, 0), f"undefined field '{field}'") for place, field in _unknown_fields(tree)]
    _check_tree(source, tree, undefined)
    return running_environment().deserialize(runnable(tree, Changes(_runs_as(), {}, {}, False)))


def _first_names(text: str) -> str:
    """Return an error message of the engine that points at the unknown name itself, not at a member of it."""

    def first(found: re.Match[str]) -> str:
        line, column, name, shown = found.groups()
        at = max(shown.rfind(name, 0, int(column)), 0)
        reference = f"<input>:{line}:{at + 1}: undeclared reference to '{name}' (in container '')"
        return f"{reference}\n | {shown}\n | {'.' * at}^"

    return _UNDECLARED.sub(first, text)


# The fields of ``request``, the document of conditions whose type is known, are in ``documents.json``.


def _unknown_fields(tree: Tree) -> Iterator[tuple[int, str]]:
    every = list(tree.root.walk())
    loops = {name for each in every if each.kind == "loop" for name in (each.name, each.second)}
    for each in every:
        if each.kind == "select":
            fields = _fields_of(each.parts[0], loops)
            if fields is not None and each.name not in fields:
                yield each.id, each.name


def _fields_of(expr: Expr, loops: set[str]) -> _Fields | None:
    if expr.kind == "ident":
        return None if expr.name in loops else recorded("cel/documents.json").get(expr.name)
    if expr.kind != "select":
        return None
    fields = _fields_of(expr.parts[0], loops)
    return None if fields is None else fields.get(expr.name)
