"""Cost estimates for CEL rules, to reject the rules that the real server rejects as too expensive.

The model follows the outline of the server's library: a step costs one, a string costs a tenth of its length, and the
body of a loop costs as often as the list may have items. Estimates are low rather than high: the unknown sizes of
computed values count as zero, except that of ``string(…)``, which has no limit in a concatenation. So every rule that
is rejected here is rejected by the real server, but a rule that exceeds the budget slightly may be accepted.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.apiserver.cel.model import member_of
from reconciler.apiserver.cel.syntax_tree import Expr
from reconciler.apiserver.schema.shape import ANYTHING, NO_DEFAULT, Node

RULE_COST_LIMIT = 10_000_000
"""The budget of one rule; apiextensions' ``StaticEstimatedCostLimit``."""

TOTAL_COST_LIMIT = 100_000_000
"""The budget of all rules of a schema; apiextensions' ``StaticEstimatedCRDCostLimit``."""

_UNLIMITED = 2**64
_LARGEST_REQUEST = 3 * 1024 * 1024
_MAX_LENGTHS = {"date": 10, "date-time": 35, "datetime": 35, "duration": 32, "uuid": 36, "ipv4": 15, "ipv6": 45}
_MIN_LENGTHS = {"date": 12, "date-time": 22, "duration": 4}
_STRING_FUNCTIONS = frozenset({"contains", "matches", "find", "split", "replace", "lowerAscii", "upperAscii"})
Scope = Mapping[str, Node | None]


def _max_size(node: Node) -> int:
    """Return the maximum number of characters, items or members: the schema's limit, or what fits into a request."""
    if node.max_size is not None:
        return node.max_size
    if node.type == "string":
        return _MAX_LENGTHS.get(node.format, _LARGEST_REQUEST)
    if node.type == "array":
        return _LARGEST_REQUEST // (_min_bytes(node.items) + 1)
    if node.type == "object" and node.additional is not None:
        return _LARGEST_REQUEST // (_min_bytes(node.additional) + 4)
    return 1


def occurrences_below(times: int | None, node: Node) -> int | None:
    """Return how often a place below a list or map may occur in a document; None if there is no limit."""
    return None if times is None or node.max_size is None else times * node.max_size


def occurrences(node: Node, times: int | None) -> int:
    """Return how often a place may occur in a document: the limit, or what fits into a request."""
    return _LARGEST_REQUEST // (_min_bytes(node) + 1) if times is None else times


def _min_bytes(node: Node | None) -> int:
    """Return the length of the shortest valid JSON of a value."""
    if node is None or node.type in ("integer", "number"):
        return 1
    if node.type == "boolean":
        return 4
    if node.type == "string":
        return _MIN_LENGTHS.get(node.format, 2)
    needed = ((key, node.properties[key]) for key in node.required if key in node.properties)
    return 2 + sum(len(key) + 4 + _min_bytes(child) for key, child in needed if child.default is NO_DEFAULT)


def cost_of(expr: Expr, node: Node) -> int:
    """Return the maximum cost of one evaluation of a rule at a place."""
    return _cost(expr, {"self": node, "oldSelf": node})[0]


def excess_factor(cost: int, most: int) -> str:
    """Return the factor by which a cost exceeds its limit, as messages show it."""
    times = cost / most
    return "more than 100x" if times > 100 else f"{times:.6f}".rstrip("0").rstrip(".") + "x"


def _cost(expr: Expr, scope: Scope) -> tuple[int, Node | None]:
    """Return the cost of an expression, and its place in the schema if it has one."""
    if expr.kind == "ident":
        return 1, scope.get(expr.name)
    if expr.kind == "select":
        cost, owner = _cost(expr.parts[0], scope)
        if expr.test:
            return cost, None
        known = owner is not None and owner is not ANYTHING
        return cost + 1, member_of(owner, expr.name) if known and owner is not None else None
    if expr.kind == "loop" and len(expr.parts) == 5:
        return _loop(expr, scope), None
    return _call(expr, [_cost(part, scope) for part in expr.parts]), None


def _call(expr: Expr, parts: list[tuple[int, Node | None]]) -> int:
    costs = [cost for cost, _ in parts]
    if expr.kind != "call" or expr.name in ("_&&_", "_||_"):
        return sum(costs)
    if expr.name == "_?_:_":
        return costs[0] + max(costs[1:])
    return sum(costs) + 1 + _sizes(expr, [place for _, place in parts])


def _loop(expr: Expr, scope: Scope) -> int:
    over, place = _cost(expr.parts[0], scope)
    item = None if place is None else place.items
    inner = {**scope, expr.name: item, expr.other: None}
    if expr.second:
        inner |= {expr.name: None, expr.second: None if place is None else place.items or place.additional}
    first, condition, step, result = (_cost(part, inner)[0] for part in expr.parts[1:])
    rounds = 0 if place is None else _max_size(place)
    return over + first + rounds * (condition + step) + result


def _sizes(expr: Expr, places: list[Node | None]) -> int:
    """Return the part of a function's cost that depends on the sizes of its arguments."""
    if expr.name == "_+_" and any(part.kind == "call" and part.name == "string" for part in expr.parts):
        return _UNLIMITED
    known = [place for place in places if place is not None and place.type]
    if expr.name in ("endsWith", "startsWith"):
        asked = places[-1]
        return len(expr.parts[-1].text) // 10 if asked is None else _max_size(asked) // 10
    if expr.name in _STRING_FUNCTIONS and known and places[0] is not None:
        searched = max(1, len(expr.parts[1].text)) if len(expr.parts) > 1 and expr.parts[1].text else 1
        return (
            _max_size(places[0]) // 10 * (max(1, searched // 4) if expr.name == "matches" else max(1, searched // 10))
        )
    if expr.name in ("_==_", "_!=_") and len(known) == 2:
        return min(map(_max_size, known)) // 10
    if expr.name == "@in" and places[-1] is not None:
        return _max_size(places[-1])
    return 0
