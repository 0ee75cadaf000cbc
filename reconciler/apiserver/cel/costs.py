"""Estimate what CEL rules cost at most, to refuse those that the real server refuses as too dear.

The model is that of the server's library in outline: a step costs one, a text costs a tenth of its length, and what is
done for each item of a list costs as often as the list may have items. It errs on the cheap side: sizes that the schema
does not tell of values that are computed count as nothing. So a rule that is refused here is refused there, while one
that exceeds the budget by little may pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.apiserver.cel.checker import member_of
from reconciler.apiserver.cel.syntax_tree import Expr
from reconciler.apiserver.schema.shape import ANYTHING, NO_DEFAULT, Node

__all__ = ["MOST_OF_ALL", "MOST_OF_A_RULE", "cost_of", "factor", "how_often", "most_items", "times_more"]

MOST_OF_A_RULE = 10_000_000
"""What one rule may cost; apiextensions' ``StaticEstimatedCostLimit``."""

MOST_OF_ALL = 100_000_000
"""What all rules of a schema may cost; apiextensions' ``StaticEstimatedCRDCostLimit``."""

_LARGEST_REQUEST = 3 * 1024 * 1024
_SHORT = {"date": 10, "date-time": 35, "datetime": 35, "duration": 32, "uuid": 36, "ipv4": 15, "ipv6": 45}
_LEAST = {"date": 12, "date-time": 22, "duration": 4}
_TEXTS = frozenset({"contains", "matches", "find", "split", "replace", "lowerAscii", "upperAscii"})


def most_items(node: Node) -> int:
    """Return how many letters, items or members a value may have: as the schema says, or as fit into a request."""
    if node.most is not None:
        return node.most
    if node.type == "string":
        return _SHORT.get(node.format, _LARGEST_REQUEST)
    if node.type == "array":
        return _LARGEST_REQUEST // (_least_bytes(node.items) + 1)
    if node.type == "object" and node.additional is not None:
        return _LARGEST_REQUEST // (_least_bytes(node.additional) + 4)
    return 1


def times_more(times: int | None, node: Node) -> int | None:
    """Return how often what is below a list or map may stand in a document; None where no bound is given."""
    return None if times is None or node.most is None else times * node.most


def how_often(node: Node, times: int | None) -> int:
    """Return how often a place may stand in a document: as bounds say, or as a request has room for it."""
    return _LARGEST_REQUEST // (_least_bytes(node) + 1) if times is None else times


def _least_bytes(node: Node | None) -> int:
    """Return the length of the shortest JSON of a value."""
    if node is None or node.type in ("integer", "number"):
        return 1
    if node.type == "boolean":
        return 4
    if node.type == "string":
        return _LEAST.get(node.format, 2)
    needed = ((key, node.properties[key]) for key in node.required if key in node.properties)
    return 2 + sum(len(key) + 4 + _least_bytes(child) for key, child in needed if child.default is NO_DEFAULT)


def cost_of(expr: Expr, node: Node) -> int:
    """Return what one evaluation of a rule costs at most.

    Args:
        expr: the compiled rule.
        node: the place that it stands at.
    """
    return _Estimate().cost(expr, {"self": node, "oldSelf": node})[0]


def factor(cost: int, most: int) -> str:
    """Return by how much a cost exceeds what is allowed, as messages say it."""
    times = cost / most
    return "more than 100x" if times > 100 else f"{times:.6f}".rstrip("0").rstrip(".") + "x"


Scope = Mapping[str, Node | None]


class _Estimate:
    def cost(self, expr: Expr, scope: Scope) -> tuple[int, Node | None]:
        """Return the cost of an expression, and its place where it is one of the schema's."""
        if expr.kind == "ident":
            return 1, scope.get(expr.name)
        if expr.kind == "select":
            cost, owner = self.cost(expr.parts[0], scope)
            if expr.test:
                return cost, None
            known = owner is not None and owner is not ANYTHING
            return cost + 1, member_of(owner, expr.name) if known and owner is not None else None
        if expr.kind == "comprehension" and len(expr.parts) == 5:
            return self._loop(expr, scope), None
        return self._call(expr, [self.cost(part, scope) for part in expr.parts]), None

    def _call(self, expr: Expr, parts: list[tuple[int, Node | None]]) -> int:
        costs = [cost for cost, _ in parts]
        if expr.kind != "call" or expr.name in ("_&&_", "_||_"):
            return sum(costs)
        if expr.name == "_?_:_":
            return costs[0] + max(costs[1:])
        return sum(costs) + 1 + self._sizes(expr, [place for _, place in parts])

    def _loop(self, expr: Expr, scope: Scope) -> int:
        over, place = self.cost(expr.parts[0], scope)
        item = None if place is None else place.items
        inner = {**scope, expr.name: item, expr.other: None}
        if expr.second:
            inner |= {expr.name: None, expr.second: None if place is None else place.items or place.additional}
        first, condition, step, result = (self.cost(part, inner)[0] for part in expr.parts[1:])
        rounds = 0 if place is None else most_items(place)
        return over + first + rounds * (condition + step) + result

    def _sizes(self, expr: Expr, places: list[Node | None]) -> int:
        """Return what a function costs for the sizes of what it is given."""
        known = [place for place in places if place is not None and place.type]
        if expr.name in ("endsWith", "startsWith"):
            asked = places[-1]
            return len(expr.parts[-1].text) // 10 if asked is None else most_items(asked) // 10
        if expr.name in _TEXTS and known and places[0] is not None:
            searched = max(1, len(expr.parts[1].text)) if len(expr.parts) > 1 and expr.parts[1].text else 1
            return (
                most_items(places[0])
                // 10
                * (max(1, searched // 4) if expr.name == "matches" else max(1, searched // 10))
            )
        if expr.name in ("_==_", "_!=_") and len(known) == 2:
            return min(map(most_items, known)) // 10
        if expr.name == "@in" and places[-1] is not None:
            return most_items(places[-1])
        return 0
