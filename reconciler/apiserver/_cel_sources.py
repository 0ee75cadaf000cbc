"""Compile CEL expressions about places of a schema, and turn values into what they see."""

from __future__ import annotations

from typing import Any

from reconciler.apiserver._cel_engine import CelType, cel_types, new_environment
from reconciler.apiserver._cel_functions import functions
from reconciler.apiserver._cel_places import Places, cel_name, find_places, with_conversions
from reconciler.apiserver._cel_tree import read_tree
from reconciler.apiserver._schema import ANYTHING, Node

__all__ = ["Refused", "compile_source", "to_cel"]


class Refused(Exception):
    """Say why a rule does not compile."""


def compile_source(source: str, node: Node) -> tuple[Any, Places]:
    """Return an expression about a place, compiled, and what it names.

    Raises:
        Refused: it does not compile.
    """
    environment = _environment(node)
    try:
        program = environment.compile(source)
        places = find_places(read_tree(program.serialize()), source, node)
        if places.undefined:
            raise Refused(_undefined(source, places))
        if places.mismatched:
            raise Refused(_mismatched(source, places))
        if places.conversions:
            program = environment.compile(with_conversions(source, places))
    except RuntimeError as error:
        text = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
        raise Refused(f"compilation failed: {text}") from None
    return program, places


def _undefined(source: str, places: Places) -> str:
    return _pointed(source, [(position, f"undefined field '{name}'") for position, name in places.undefined])


def _mismatched(source: str, places: Places) -> str:
    says = "found no matching overload for '{}' applied to '{}'"
    return _pointed(source, [(position, says.format(name, kinds)) for position, name, kinds in places.mismatched])


def _pointed(source: str, problems: list[tuple[int, str]]) -> str:
    """Return complaints with the lines that they are about."""
    lines = []
    for position, problem in problems:
        before = source[:position]
        line, column = before.count("\n"), position - (before.rfind("\n") + 1)
        shown = source.split("\n")[line]
        lines.append(f"ERROR: <input>:{line + 1}:{column + 1}: {problem}\n | {shown}\n | {'.' * column}^")
    return "compilation failed: " + "\n".join(lines)


def _environment(node: Node) -> Any:
    kind = _cel_type(node)
    return new_environment({"self": kind, "oldSelf": kind, "hadOldSelf": cel_types().BOOL}, functions)


def _cel_type(node: Node) -> CelType:
    kind = cel_types()
    if node.int_or_string or (node.type == "string" and node.format in ("date-time", "date", "duration", "byte")):
        return kind.DYN
    if node.type == "array":
        return kind.List(_cel_type(node.items) if node.items is not None else kind.DYN)
    if node.type == "object":
        return kind.Map(kind.STRING, kind.DYN)
    scalars = {"string": kind.STRING, "integer": kind.INT, "number": kind.DOUBLE, "boolean": kind.BOOL}
    return scalars.get(node.type, kind.DYN)


def to_cel(value: Any, node: Node | None) -> Any:
    """Return a value as rules see it.

    What the schema calls a number is a double, and members stand under their CEL names.
    """
    if node is None or node is ANYTHING:
        return value
    if isinstance(value, dict):
        named = {}
        for key, member in value.items():
            child = node.properties.get(key)
            if child is not None:
                name = cel_name(key)
                if name is not None:
                    named[name] = to_cel(member, child)
            elif node.additional is not None:
                named[key] = to_cel(member, node.additional)
            elif node.preserve:
                named[key] = member
        return named
    if isinstance(value, list):
        return [to_cel(item, node.items) for item in value]
    if node.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
