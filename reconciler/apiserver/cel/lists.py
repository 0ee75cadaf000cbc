"""Bring the functions of lists that Kubernetes adds to CEL, and those that rules need without naming them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from reconciler.apiserver.cel.engine import Function
from reconciler.apiserver.cel.model import CONVERSIONS

__all__ = ["hidden_functions", "list_functions"]

_ORDERED = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")


def list_functions() -> list[Function]:
    """Return the functions of lists for the engine."""
    found = []
    for kind in _ORDERED:
        items = (f"list({kind})",)
        found.append(Function("isSorted", "bool", items, _is_sorted))
        for name, choose in (("min", min), ("max", max)):
            apart = f"{name}_{kind}" if kind in ("duration", "timestamp") else ""
            found.append(Function(name, kind, items, _extreme(choose, name), runs_as=apart))
    found += [Function("sum", kind, (f"list({kind})",), _sum(0)) for kind in ("int", "uint", "double")]
    found.append(Function("sum", "duration", ("list(duration)",), _sum(timedelta()), runs_as="sum_duration"))
    found.append(Function("indexOf", "int", ("list(dyn)", "dyn"), _index))
    found.append(Function("lastIndexOf", "int", ("list(dyn)", "dyn"), _last_index))
    return found


def _is_sorted(items: list[Any]) -> bool:
    return all(one <= other for one, other in itertools.pairwise(items))


def _sum(start: Any) -> Callable[[list[Any]], Any]:
    return lambda items: sum(items, start)


def _extreme(choose: Callable[[list[Any]], Any], name: str) -> Callable[[list[Any]], Any]:
    def of(items: list[Any]) -> Any:
        if not items:
            raise ValueError(f"{name} called on empty list")
        return choose(items)

    return of


def _index(items: list[Any], item: Any) -> int:
    return items.index(item) if item in items else -1


def _last_index(items: list[Any], item: Any) -> int:
    return len(items) - 1 - items[::-1].index(item) if item in items else -1


def hidden_functions() -> list[Function]:
    """Return what no rule names: what macros of the engine need that it does not carry out, and conversions."""
    entries = ("map(dyn, dyn)", "map(dyn, dyn)")
    pair = ("map(dyn, dyn)", "dyn", "dyn")
    return [
        Function("@mapInsert", "map(dyn, dyn)", pair, lambda into, key, value: _inserted(into, {key: value}), False),
        Function("@mapInsert", "map(dyn, dyn)", entries, _inserted, False),
        Function("@same", "bool", _THREE, _same, False),
        Function("@differ", "bool", _THREE, lambda one, other, keys: not _same(one, other, keys), False),
        Function("@join", "list(dyn)", _THREE, _joined, False),
        *(Function(f"@{form}", kind, ("dyn",), _once(read), False) for form, (kind, read) in CONVERSIONS.items()),
    ]


def _once(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Make a conversion leave alone what was converted already."""
    return lambda value: read(value) if isinstance(value, str) else value


_THREE = ("list(dyn)", "list(dyn)", "list(dyn)")


def _same(one: list[Any], other: list[Any], keys: list[str]) -> bool:
    """Tell whether two lists hold the same in any order; those that have keys hold one item of each."""
    if len(one) != len(other):
        return False
    if keys:
        known = {_key(item, keys): item for item in other}
        return all(_key(item, keys) in known and known[_key(item, keys)] == item for item in one)
    return all(item in other for item in one)


def _joined(one: list[Any], other: list[Any], keys: list[str]) -> list[Any]:
    """Return what two lists hold together; of items of one key the second list's stays."""
    if not keys:
        return one + [item for item in other if item not in one]
    found = {_key(item, keys): item for item in one}
    return list({**found, **{_key(item, keys): item for item in other}}.values())


def _key(item: dict[str, Any], keys: list[str]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def _inserted(into: dict[Any, Any], more: dict[Any, Any]) -> dict[Any, Any]:
    for key in more:
        if key in into:
            raise ValueError(f"insert failed: key {key} already exists")
    return {**into, **more}
