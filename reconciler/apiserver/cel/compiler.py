"""Compile CEL expressions about places of a schema."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.apiserver.cel.checker import Places, find_places, kind_of
from reconciler.apiserver.cel.checks import start_problem
from reconciler.apiserver.cel.engine import cel_type, checking_environment, named_types, running_environment
from reconciler.apiserver.cel.functions import functions
from reconciler.apiserver.cel.rewriting import Changes, runnable
from reconciler.apiserver.cel.syntax_tree import Tree, read_tree
from reconciler.apiserver.schema.shape import Node

__all__ = ["Compiled", "Refused", "compile_source"]


class Refused(Exception):
    """Say why a rule does not compile."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """Hold a compiled expression.

    Attributes:
        program: the expression, ready to run.
        result: the type of its result, such as ``bool``; ``dyn`` where it is not known.
        tree: its syntax tree, with macros expanded.
        uses_old: whether it compares with the value before.
    """

    program: Any
    result: str
    tree: Tree
    uses_old: bool


def compile_source(source: str, node: Node, *, optional_old: bool = False) -> Compiled:
    """Return an expression about a place, compiled.

    Args:
        source: the expression.
        node: the place.
        optional_old: ``oldSelf`` is an optional, which has a value if ``hadOldSelf`` is true.

    Raises:
        Refused: it does not compile.
    """
    environment = _environment(node, optional_old)
    asked = _with_one_spelling(source, environment)
    try:
        checked = environment.compile(asked)
    except RuntimeError as error:
        raise Refused(f"compilation failed: {_refusal(str(error), asked, source)}") from None
    serialized = checked.serialize()
    tree = read_tree(serialized)
    places = find_places(tree, node, optional_old=optional_old)
    if places.problems:
        raise Refused(_pointed(source, places))
    problem = start_problem(tree.root)
    if problem:
        raise Refused(f"program instantiation failed: {problem}")
    program = running_environment(functions).deserialize(
        runnable(serialized, Changes(_runs_as(), places.conversions, places.unordered, optional_old))
    )
    return Compiled(program, places.result or checked.return_type().name().lower(), tree, places.uses_old)


@functools.cache
def _runs_as() -> Mapping[str, str]:
    return {function.runs_as: function.runs_as for function in functions() if function.runs_as}


_EXISTS_ONE = re.compile(r"\bexists_one\b")


def _with_one_spelling(source: str, environment: Any) -> str:
    """Return a rule in which ``exists_one`` with two variables is called ``existsOne``, as the engine calls it."""
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


_MISMATCH = re.compile(r"(<input>:(\d+):(\d+): found no matching overload for '([\w.]+)' applied to ')\((.*)\)'")


def _refusal(text: str, asked: str, source: str) -> str:
    """Return a complaint of the engine in the words of the real server, which shows the receiver of a call apart."""
    text = text.removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
    for changed, line in zip(asked.split("\n"), source.split("\n"), strict=True):
        text = text.replace(f" | {changed}", f" | {line}")
    lines = source.split("\n")

    def receiver_first(found: re.Match[str]) -> str:
        before = lines[int(found[2]) - 1][: int(found[3]) - 1].rstrip()
        if not before.endswith(f".{found[4]}"):
            return found[0]
        first, rest = _split_first(found[5])
        return f"{found[1]}{first}.({rest})'"

    return _MISMATCH.sub(receiver_first, named_types(_in_order(text)))


_COMPLAINT = re.compile(r"ERROR: <input>:(\d+):(\d+): ")


def _in_order(text: str) -> str:
    """Return complaints in the order of their places."""

    def place(complaint: str) -> tuple[int, int]:
        found = _COMPLAINT.match(complaint)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    return "\n".join(sorted(re.split(r"\n(?=ERROR: )", text), key=place))


def _split_first(types: str) -> tuple[str, str]:
    """Return the first of several types, and the others."""
    depth = 0
    for at, letter in enumerate(types):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            return types[:at], types[at + 1 :].lstrip()
    return types, ""


def _pointed(source: str, places: Places) -> str:
    """Return complaints with the lines that they are about."""
    lines = []
    for position, problem in places.problems:
        before = source[:position]
        line, column = before.count("\n"), position - (before.rfind("\n") + 1)
        shown = source.split("\n")[line]
        lines.append(f"ERROR: <input>:{line + 1}:{column + 1}: {problem}\n | {shown}\n | {'.' * column}^")
    return "compilation failed: " + "\n".join(lines)


def _environment(node: Node, optional_old: bool) -> Any:
    kind = cel_type(_type_name(node))
    return checking_environment({"self": kind, "oldSelf": cel_type("dyn") if optional_old else kind}, functions)


def _type_name(node: Node) -> str:
    if node.type == "object" and not kind_of(node):
        return "map(string, dyn)"
    return kind_of(node).replace("object", "map(string, dyn)") or "dyn"
