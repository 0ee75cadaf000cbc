"""Follow a CEL expression through a schema: which members it names, and of which types they are.

The engine sees objects as maps of anything. This finds what the API server's typed compiler would: members that the
schema does not have, and types that do not go together.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.apiserver.cel.checks import call_problems, literal_problems
from reconciler.apiserver.cel.engine import named_types
from reconciler.apiserver.cel.syntax_tree import Expr, Tree
from reconciler.apiserver.schema.shape import ANYTHING, Node

__all__ = ["Places", "cel_name", "cel_names", "find_places", "kind_of", "member_of"]

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


def cel_names(key: str) -> tuple[str, ...]:
    """Return all names by which a rule may call a member: reserved words that can be selected are no less good."""
    name = cel_name(key)
    return () if name is None else (name, key) if key in _RESERVED else (name,)


@dataclass(slots=True)
class Places:
    """Hold what was found.

    Attributes:
        problems: what the real server would refuse, each with its position, in order.
        uses_old: whether the rule compares with the value before.
        result: the type of the whole where it is known, or empty.
        conversions: which expressions are texts that stand for something else, with their format.
        unordered: which calls compare or add lists of type set or map, with the keys of the latter.
    """

    problems: list[tuple[int, str]] = field(default_factory=list)
    uses_old: bool = False
    result: str = ""
    conversions: dict[int, str] = field(default_factory=dict)
    unordered: dict[int, tuple[str, ...]] = field(default_factory=dict)


def find_places(tree: Tree, node: Node, *, optional_old: bool) -> Places:
    """Follow a rule whose ``self`` is a place of a schema.

    Args:
        tree: the rule.
        node: the place.
        optional_old: ``oldSelf`` is an optional. The real server gives the value in it as it stands in the document:
            times are texts, and lists have an order.
    """
    raw: dict[int, Node] = {}
    walker = _Walker(tree, raw)
    root = walker.place(tree.root, {"self": node, "oldSelf": _copied(node, raw) if optional_old else node})
    walker.found.result = walker.kind(tree.root, root)
    walker.found.uses_old = any(expr.kind == "ident" and expr.name == "oldSelf" for expr in tree.root.walk())
    walker.found.problems.sort(key=lambda problem: problem[0])
    return walker.found


_OPTIONAL = {"format.named": "optional_type(kubernetes.NamedFormat)", "validate": "optional_type(list(string))"}
"""The functions whose results are optionals, which the engine's compiler does not know."""

_GIVING_OPTIONALS = frozenset({"_?._", "_[?_]", "optional.of", "or"})
_READING = frozenset({"_[_]", "orValue", "value"})
"""The functions whose results are values of the document, be it out of an optional."""

Scope = Mapping[str, Node | None]


class _Walker:
    def __init__(self, tree: Tree, raw: Mapping[int, Node]) -> None:
        self._raw = raw
        self._positions = tree.positions
        self._types = tree.types
        self._mixed: set[int] = set()
        self.found = Places()

    def kind(self, expr: Expr, place: Node | None) -> str:
        """Return the type of an expression, or nothing where it is not known."""
        if expr.kind == "const":
            return expr.name
        if expr.test:
            return "bool"
        if expr.kind == "call" and expr.name in _OPTIONAL:
            return _OPTIONAL[expr.name]
        if expr.kind == "call" and expr.name in _GIVING_OPTIONALS:
            return ""
        return kind_of(place) if place is not None else named_types(self._types.get(expr.id, ""))

    def place(self, expr: Expr, scope: Scope) -> Node | None:
        """Return the place whose value an expression is, or None where that is not known."""
        place = self._place(expr, scope)
        if expr.test:
            return None
        form = place.format if place is not None and place.type == "string" else ""
        read = expr.kind in ("ident", "select") or expr.name in _READING
        if form in _FORMATTED and read and id(place) not in self._raw:
            self.found.conversions[expr.id] = form
        return place

    def _place(self, expr: Expr, scope: Scope) -> Node | None:
        if expr.kind == "ident":
            return scope.get(expr.name)
        if expr.kind == "select":
            return self._select(expr, scope)
        if expr.kind == "comprehension":
            return self._comprehension(expr, scope)
        if expr.name == "format" and len(expr.parts) == 2:
            self._mixed.add(expr.parts[1].id)
        places = [self.place(part, scope) for part in expr.parts]
        kinds = [self.kind(part, place) for part, place in zip(expr.parts, places, strict=True)]
        if expr.kind == "call" and places:
            return self._call(expr, places, kinds)
        if expr.id not in self._mixed:
            for part, problem in literal_problems(expr, kinds):
                self._refuse(part, problem)
        return None

    def _refuse(self, expr: Expr, problem: str) -> None:
        self.found.problems.append((self._positions.get(expr.id, 0), problem))

    def _select(self, expr: Expr, scope: Scope) -> Node | None:
        owner = self.place(expr.parts[0], scope)
        kind = self.kind(expr.parts[0], owner)
        if kind and kind != "object" and not kind.startswith("map("):
            self._refuse(expr, f"type '{kind}' does not support field selection")
            return None
        return self._member(expr, owner, expr.name)

    def _member(self, expr: Expr, owner: Node | None, name: str) -> Node | None:
        if owner is None or owner is ANYTHING or owner.type != "object":
            return None
        child = _OF_OBJECTS.get(name) if owner.embedded else None
        if child is None:
            child = member_of(owner, name)
        if child is None:
            self._refuse(expr, f"undefined field '{name}'")
        return child

    def _comprehension(self, expr: Expr, scope: Scope) -> Node | None:
        if len(expr.parts) != 5:
            return None
        over = self.place(expr.parts[0], scope)
        kind = self.kind(expr.parts[0], over)
        if kind and not kind.startswith(("list(", "map(")):
            said = "cannot be range of a comprehension (must be list, map, or dynamic)"
            self._refuse(expr.parts[0], f"expression of type '{kind}' {said}")
            return None
        # A macro that gives a value a name is a loop over nothing that begins with the value.
        inner = {**scope, expr.other: self.place(expr.parts[1], scope), **_variables(expr, over)}
        places = [self.place(part, inner) for part in expr.parts[2:]]
        return places[-1]

    def _call(self, expr: Expr, places: list[Node | None], kinds: list[str]) -> Node | None:
        first = places[0]
        for part, problem in call_problems(expr, kinds):
            self._refuse(part, problem)
        if expr.name in ("_[_]", "_[?_]") and first is not None:
            return first.items or first.additional
        if expr.name == "_?._":
            return self._member(expr, first, expr.parts[1].text)
        unordered = first is not None and first.list_type in ("set", "map") and id(first) not in self._raw
        if first is not None and unordered and expr.name in ("_==_", "_!=_", "_+_"):
            self.found.unordered[expr.id] = first.map_keys if first.list_type == "map" else ()
            return first if expr.name == "_+_" else None
        if expr.name == "_?_:_":
            return places[1]
        return first if expr.name in ("optional.of", "or", "orValue", "value") else None


_INDEX, _KEY = Node("integer"), Node("string")


def _variables(expr: Expr, over: Node | None) -> dict[str, Node | None]:
    """Return the places of a comprehension's variables: an item or a key, or where something stands and what it is."""
    if over is None:
        return {expr.name: None, expr.second: None}
    if expr.second:
        return {expr.name: _KEY if over.items is None else _INDEX, expr.second: over.items or over.additional}
    return {expr.name: over.items if over.items is not None else _KEY if over.additional is not None else None}


def _objects() -> dict[str, Node]:
    """Return the places of what rules see of whole objects beside their own members."""
    text, metadata = Node("string"), Node("object")
    metadata.properties = {"generateName": text, "name": text}
    return {"apiVersion": text, "kind": text, "metadata": metadata}


_OF_OBJECTS = _objects()


def _copied(node: Node, copies: dict[int, Node]) -> Node:
    """Return a copy of a place and all below it, and note them."""
    if node is ANYTHING:
        return node
    found = copy.copy(node)
    copies[id(found)] = found
    found.properties = {key: _copied(child, copies) for key, child in node.properties.items()}
    for part in ("items", "additional"):
        child = getattr(node, part)
        if child is not None:
            setattr(found, part, _copied(child, copies))
    return found


_FORMATTED = {"byte": "bytes", "date": "timestamp", "date-time": "timestamp", "duration": "duration"}
_SCALARS = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}


def kind_of(place: Node | None) -> str:
    """Return the name of a place's type, or nothing where it is not known."""
    if place is None or place is ANYTHING or place.int_or_string:
        return ""
    if place.type == "array":
        items = kind_of(place.items)
        return f"list({items})" if items else ""
    if place.type == "object" and place.additional is not None and not place.properties:
        values = kind_of(place.additional)
        return f"map(string, {values})" if values else ""
    if place.type == "object":
        return "object"
    if place.type == "string" and place.format in _FORMATTED:
        return _FORMATTED[place.format]
    return _SCALARS.get(place.type, "")


def member_of(owner: Node, name: str) -> Node | None:
    """Return the place of the member that a rule calls by a name, or None."""
    found = owner.properties.get(name)
    if found is not None and name in cel_names(name):
        return found
    for key, child in owner.properties.items():
        if cel_name(key) == name:
            return child
    return owner.additional
