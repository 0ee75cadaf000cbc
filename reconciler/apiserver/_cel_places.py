"""Follow a CEL expression through a schema: which members it names, and which of them are times or bytes.

The engine sees objects as maps of anything. This finds what the API server's typed compiler would: members that the
schema does not have, and members whose strings stand for timestamps, durations or bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.apiserver._cel_tree import Expr, Tree
from reconciler.apiserver._schema import ANYTHING, Node

__all__ = ["Places", "cel_name", "find_places", "member_of", "with_conversions", "with_optional_old"]

_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)


def cel_name(key: str) -> str | None:
    """Return the name by which a rule calls a member; None for a member that rules cannot name."""
    if key in _RESERVED:
        return f"__{key}__"
    escaped = (
        key.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )
    return escaped if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", escaped) else None


@dataclass(slots=True)
class Places:
    """Hold what was found.

    Attributes:
        undefined: members that the schema does not have, with the position of each.
        conversions: spans of the source that stand for more than strings, with the format.
        uses_old: whether the rule compares with the value before.
        mismatched: operators between types that do not go together, with the position and the types of each.
        result: the type of the whole where a member of the schema is it, or empty.
    """

    undefined: list[tuple[int, str]] = field(default_factory=list)
    conversions: list[tuple[int, int, str]] = field(default_factory=list)
    uses_old: bool = False
    mismatched: list[tuple[int, str, str]] = field(default_factory=list)
    result: str = ""


def find_places(tree: Tree, source: str, node: Node) -> Places:
    """Follow a rule whose ``self`` is a place of a schema."""
    walker = _Walker(tree, source)
    walker.found.result = _cel_kind(tree.root, walker.place(tree.root, {"self": node, "oldSelf": node}))
    walker.found.uses_old = any(expr.kind == "ident" and expr.name == "oldSelf" for expr in tree.root.walk())
    return walker.found


class _Walker:
    def __init__(self, tree: Tree, source: str) -> None:
        self._positions = tree.positions
        self._source = source
        self.found = Places()

    def place(self, expr: Expr, scope: Mapping[str, Node | None]) -> Node | None:
        """Return the place whose value an expression is, or None where that is not known."""
        if expr.kind == "ident":
            return scope.get(expr.name)
        if expr.kind == "select":
            return self._select(expr, scope)
        if expr.kind == "comprehension":
            return self._comprehension(expr, scope)
        places = [self.place(part, scope) for part in expr.parts]
        if expr.kind == "call" and places:
            return self._call(expr, places)
        return None

    def _select(self, expr: Expr, scope: Mapping[str, Node | None]) -> Node | None:
        owner = self.place(expr.parts[0], scope)
        if owner is None or owner is ANYTHING or not (owner.properties or owner.additional):
            return None
        child = member_of(owner, expr.name)
        if child is None and not owner.preserve:
            self.found.undefined.append((self._positions.get(expr.id, 0), expr.name))
        if child is not None and child.type == "string" and child.format in _CONVERTED and not expr.test:
            dot = self._positions.get(expr.id, 0)
            end = self._source.find(expr.name, dot) + len(expr.name)
            start = min(self._positions.get(part.id, dot) for part in expr.walk())
            self.found.conversions.append((start, end, child.format))
        return child

    def _comprehension(self, expr: Expr, scope: Mapping[str, Node | None]) -> Node | None:
        if len(expr.parts) != 5:
            return None
        over = self.place(expr.parts[0], scope)
        inner = {**scope, expr.name: over.items if over is not None else None, expr.other: None}
        for part in expr.parts[1:]:
            self.place(part, inner)
        return None

    def _call(self, expr: Expr, places: list[Node | None]) -> Node | None:
        first = places[0]
        if expr.name in _ALIKE and len(places) == 2:
            self._compare(expr, *(_cel_kind(part, place) for part, place in zip(expr.parts, places, strict=True)))
        if expr.name == "_[_]" and first is not None:
            return first.items or first.additional
        if expr.name == "_?._" and first is not None and first.properties:
            return member_of(first, expr.parts[1].text)
        if expr.name == "_?_:_":
            return places[1]
        return None

    def _compare(self, expr: Expr, left: str, right: str) -> None:
        ordered = expr.name in _ORDERED and {left, right} <= {"int", "uint", "double"}
        if left and right and left != right and not ordered:
            self.found.mismatched.append((self._positions.get(expr.id, 0), expr.name, f"({left}, {right})"))


_ORDERED = frozenset({"_<_", "_<=_", "_>_", "_>=_"})
_ALIKE = _ORDERED | {"_==_", "_!=_", "_+_", "_-_", "_*_", "_/_", "_%_"}
"""The operators whose sides have to be of one type; numbers of different types can be ordered."""


def _cel_kind(expr: Expr, place: Node | None) -> str:
    """Return the scalar type of an expression, or empty where it is none or not known."""
    if expr.kind == "const":
        return expr.name
    if place is None or place.int_or_string or place.format in _CONVERTED or expr.test:
        return ""
    return {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}.get(place.type, "")


def member_of(owner: Node, name: str) -> Node | None:
    """Return the place of the member that a rule calls by a name, or None."""
    found = owner.properties.get(name)
    if found is not None and cel_name(name) == name:
        return found
    for key, child in owner.properties.items():
        if cel_name(key) == name:
            return child
    return owner.additional


_CONVERTED = {
    "date-time": "timestamp({})",
    "datetime": "timestamp({})",
    "date": "timestamp({} + 'T00:00:00Z')",
    "duration": "duration({})",
    "byte": "base64.decode({})",
}


def with_conversions(source: str, places: Places) -> str:
    """Return a rule in which strings that stand for times, durations or bytes are read as such."""
    for start, end, form in sorted(places.conversions, reverse=True):
        source = source[:start] + _CONVERTED[form].format(source[start:end]) + source[end:]
    return source


_OLD = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\boldSelf\b""")


def with_optional_old(source: str) -> str:
    """Return a rule in which ``oldSelf`` is an optional; the engine takes no optionals from outside."""
    return _OLD.sub(lambda match: match.group(1) or "(hadOldSelf ? optional.of(oldSelf) : optional.none())", source)
