"""Match labels and simple field selectors against objects that are at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.meta import Request

__all__ = ["LabelSelector", "format_labels", "matches_fields", "parse_fields"]

_SPLIT = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"(?P<key>[^\s=!<>(),]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARISON = re.compile(r"(?P<key>[^\s=!<>]+)\s*(?P<operator>==|!=|=|<|>)\s*(?P<value>[^\s=!<>]*)")
_EXISTENCE = re.compile(r"(?P<not>!?)\s*(?P<key>[^\s=!<>(),]+)")
_FIELD = re.compile(r"(?P<path>[^=!]+)(?P<operator>==|!=|=)(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class _Requirement:
    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "exists":
            return value is not None
        if self.operator == "absent":
            return value is None
        if self.operator == "in":
            return value in self.values
        if self.operator == "notin":
            return value not in self.values
        return value is not None and _compares(value, self.operator, next(iter(self.values)))


class LabelSelector:
    """Match labels as the API server does: ``a=b``, ``a!=b``, ``a in (b,c)``, ``a notin (b)``, ``a``, ``!a``, ``a>1``.

    Args:
        text: requirements joined by commas, all of which have to hold. ``""`` matches everything.

    Raises:
        ValueError: a requirement cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._requirements = tuple(_requirement(part.strip()) for part in _SPLIT.split(text)) if text.strip() else ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether an object with these labels is selected."""
        return all(requirement.matches(labels) for requirement in self._requirements)


def format_labels(selector: str | Mapping[str, str] | None) -> str | None:
    """Return a label selector as text; None when it selects everything. A mapping means equality of each label."""
    if isinstance(selector, Mapping):
        selector = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    return selector or None


def parse_fields(text: str) -> tuple[tuple[str, str, str], ...]:
    """Return the requirements of a field selector as path, ``=`` or ``!=``, and value.

    Raises:
        ValueError: a requirement cannot be read.
    """
    return tuple(_field(part.strip()) for part in text.split(",") if part.strip())


def matches_fields(fields: tuple[tuple[str, str, str], ...], request: Request) -> bool | None:
    """Say whether an object's name and namespace fulfil a field selector; None when it asks for other fields."""
    held = {"metadata.name": request.name, "metadata.namespace": request.namespace or ""}
    if any(path not in held for path, _, _ in fields):
        return None
    return all((held[path] == value) is (operator == "=") for path, operator, value in fields)


def _field(part: str) -> tuple[str, str, str]:
    match = _FIELD.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is no field requirement: write path=value or path!=value")
    return match["path"], "!=" if match["operator"] == "!=" else "=", match["value"]


def _requirement(part: str) -> _Requirement:
    if match := _SET.fullmatch(part):
        values = frozenset(value.strip() for value in match["values"].split(","))
        return _Requirement(match["key"], match["operator"], values)
    if match := _COMPARISON.fullmatch(part):
        operator = {"=": "in", "==": "in", "!=": "notin"}.get(match["operator"], match["operator"])
        return _Requirement(match["key"], operator, frozenset({match["value"]}))
    if match := _EXISTENCE.fullmatch(part):
        return _Requirement(match["key"], "absent" if match["not"] else "exists")
    raise ValueError(f"{part!r} is no label requirement: write key=value, key!=value, key in (a,b), key or !key")


def _compares(value: str, operator: str, bound: str) -> bool:
    try:
        left, right = int(value), int(bound)
    except ValueError:
        return False
    return left > right if operator == ">" else left < right
