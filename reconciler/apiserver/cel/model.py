"""Turn the values of a document into what CEL rules see."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.apiserver.cel.checker import cel_names
from reconciler.apiserver.schema.shape import ANYTHING, Node

__all__ = ["CONVERSIONS", "to_cel"]


def to_cel(value: Any, node: Node | None) -> Any:
    """Return a value as rules see it.

    What the schema calls a number is a double, members stand under their CEL names, and those that are null are absent.
    Texts that stand for times, durations or bytes stay texts, which `CONVERSIONS` read where a rule uses them: the
    engine takes nothing else.
    """
    if node is None or node is ANYTHING:
        return value
    if isinstance(value, dict):
        return _members(value, node)
    if isinstance(value, list):
        return [to_cel(item, node.items) for item in value]
    if node.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _members(value: Mapping[str, Any], node: Node) -> dict[str, Any]:
    named = {}
    for key, member in value.items():
        child = node.properties.get(key)
        if child is not None:
            if member is not None:
                named.update(dict.fromkeys(cel_names(key), to_cel(member, child)))
        elif node.additional is not None:
            named[key] = to_cel(member, node.additional)
        elif node.preserve:
            named[key] = member
    return named


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.upper())


def _date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ns|us|µs|ms|s|m|h|d|w|[a-z]{3,})")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONG: Mapping[str, str] = {
    "nan": "ns",
    "mic": "us",
    "mil": "ms",
    "sec": "s",
    "min": "m",
    "hou": "h",
    "day": "d",
    "wee": "w",
}


def _duration(text: str) -> timedelta:
    bare = text.lstrip("+-")
    seconds = 0.0
    for part in _PART.finditer(bare):
        seconds += float(part[1]) * _SECONDS[_LONG.get(part[2][:3], part[2])]
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


CONVERSIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "byte": ("bytes", base64.b64decode),
    "date": ("timestamp", _date),
    "date-time": ("timestamp", _time),
    "duration": ("duration", _duration),
}
"""What texts of a format stand for, and how they are read."""
