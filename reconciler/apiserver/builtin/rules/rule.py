"""A rule of ``rules.txt``: the paths that it is about, when it applies, and how its errors look."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import go_json, quoted, read_quantity
from reconciler.wire import JSONObject

__all__ = ["Check", "Place", "Rule", "amount", "condition", "getter", "named", "old_value", "read_rule"]

_PATH = re.compile(r"(/|\^*)(@?)(.*)")
_PART = re.compile(r"\[[\w|]*\]|\{\}|<[^>]+>|[^.\[{<]+")
_RULE = re.compile(
    r"(?P<paths>\S+) (?P<check>[\w-]+)(?P<strict>[!?]?)(?P<arguments>.*?)(?: if (?P<when>.+?))?(?:: (?P<say>.+))?"
)
_CONDITION = re.compile(r"(!?)((?:[^=!<>]|<[^>]*[a-z]>)*)(?:(!?=|<|>)(.*))?")


class Place(NamedTuple):
    """An object that is checked, the stored one on an update, its path, and the object around it."""

    value: JSONObject
    before: JSONObject | None
    path: str
    parent: Place | None = None


Check = Callable[["Rule", Place, Any, str], Findings]


def _walk(value: Any, parts: list[str], path: str) -> Iterator[tuple[Any, str]]:
    """Yield the values at a path below a value, and the paths that errors name; None for a missing one."""
    for at, part in enumerate(parts):
        if part == "[]":
            for index, item in enumerate(value or ()):
                yield from _walk(item, parts[at + 1 :], f"{path}[{index}]")
            return
        if part == "{}":
            yield from ((key, f"{path}[{key}]") for key in value or ())
            return
        if part[0] == "[":
            value, path = _item(value or (), part[1:-1]), f"{path}{part}"
        else:
            key = part.strip("<>")
            value = value.get(key) if isinstance(value, dict) else None
            path = f"{path}[{key}]" if part[0] == "<" else f"{path}.{key}" if path else key
    yield value, path


def _item(values: Sequence[Any], which: str) -> Any:
    """Return the item with an index, or the true condition of one of several types; None if there is none."""
    if which.isdecimal():
        return values[int(which)] if int(which) < len(values) else None
    return next(
        (item for item in values if item.get("type") in which.split("|") and item.get("status") == "True"), None
    )


@functools.lru_cache(maxsize=4096)
def getter(path: str) -> Callable[[Place], Any]:
    """Return the function that returns the value at a path; a list of values if the path has ``[]`` or ``{}``."""
    base, old, rest = _PATH.fullmatch(path).groups()  # type: ignore[union-attr]
    parts = _PART.findall(rest)
    if parts == [path] and path[0] not in "[{<":
        return lambda place: place.value.get(path)  # most paths: faster than what follows

    def get(place: Place) -> Any:
        place = _base(place, base)
        found = (value for value, _ in _walk(place.before if old else place.value, parts, ""))
        return list(found) if {"[]", "{}"} & {*parts} else next(found)

    return get


def _base(place: Place, base: str) -> Place:
    """Return the place that the beginning of a path leads to."""
    while place.parent is not None and base:
        place, base = place.parent, base if base == "/" else base[1:]
    return place


def named(place: Place, path: str, at: str | None) -> str:
    """Return the path that an error names; ``[#]`` in `at` stands for the last index in `path`."""
    if at is None:
        return path
    base, _, rest = _PATH.fullmatch(at).groups()  # type: ignore[union-attr]
    rest = rest.strip(".")
    if "#" in rest:
        rest = rest.replace("#", re.findall(r"\[(\d+)\]", path)[-1])
    start = "" if base == "/" else _base(place, base).path
    return f"{start}.{rest}" if start and rest else start + rest


def old_value(place: Place, path: str) -> Any:
    """Return the stored value at the path of an error."""
    return getter("@" + path.removeprefix(place.path).removeprefix("."))(place)


def amount(place: Place, text: str) -> Any:
    """Return a number, or the one at a path; 0 if there is none."""
    return int(text) if text.lstrip("-").isdecimal() else _number(getter(text)(place))


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value or 0
    try:
        return read_quantity(value)
    except ValueError:
        return 0


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _member(path: str) -> str:
    return re.split(r"[.\[]", re.sub(r"\[\d+\]$", "", path))[-1]


def condition(text: str) -> Callable[[Place], bool]:
    """Return the function that returns whether an object meets a condition."""
    negated, path, operator, wanted = _CONDITION.fullmatch(text).groups()  # type: ignore[union-attr]
    if path[0] == "~":
        return lambda place: (_member(place.path) == path[1:]) is not bool(negated)
    get = getter(path)
    if not operator:
        return lambda place: (get(place) in (None, "", [], False)) is bool(negated)
    if operator == "<":
        return lambda place: bool(_number(get(place)) < amount(place, wanted))
    if operator == ">":
        return lambda place: bool(_number(get(place)) > amount(place, wanted))
    if wanted.startswith("."):
        other = getter(wanted[1:])
        return lambda place: ((get(place) or None) == (other(place) or None)) is (operator == "=")
    words = wanted.split("|")
    return lambda place: (_text(get(place)) in words) is (operator == "=")


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of ``rules.txt``; a lazy one has nothing to check where a value is missing."""

    check: Check
    strict: str
    lazy: bool
    paths: tuple[list[str], ...]
    arguments: tuple[str, ...]
    conditions: tuple[Callable[[Place], bool], ...]
    at: str | None
    show: str | None
    say: str

    def __call__(self, place: Place, errors: list[FieldError]) -> None:
        """Add the errors of an object."""
        paths = self.paths
        if self.lazy:
            paths = tuple(parts for parts in paths if place.value.get(parts[0]) is not None)
        if paths and all(applies(place) for applies in self.conditions):
            for parts in paths:
                for value, path in _walk(place.value, parts, place.path):
                    errors.extend(self.check(self, place, value, named(place, path, self.at)))

    def concerns(self, value: Any) -> bool:
        """Return whether the rule is about a value: one that is set, with ``?`` an empty text, too, with ``!`` any."""
        return bool(value) or self.strict == "!" or (self.strict == "?" and value is not None)

    def message(self, place: Place, default: str = "") -> str:
        """Return the message; paths in braces stand for values."""
        if "{" not in self.say:
            return self.say or default
        return re.sub(r"\{([^}]+)\}", lambda found: _text(getter(found[1])(place)), self.say)

    def shown(self, place: Place, value: Any) -> str:
        """Return the text of the value in an error."""
        if self.show is None:
            return quoted(value)
        if self.show[0] == "{":
            # The members of a Go struct, in its order, with the values that the object has.
            return go_json(
                _struct(json.loads(self.show), value if isinstance(value, dict) else place.value), sort=False
            )
        if self.show == "[]":
            return quoted([value])
        if self.show == "bytes":
            return quoted(f"{len(base64.b64decode(value))} bytes")
        literal = self.show in ('""', "null", "false")
        return quoted(json.loads(self.show) if literal else getter(self.show)(place))

    def invalid(self, place: Place, value: Any, path: str, problem: str = "") -> FieldError:
        """Return the error for an invalid value."""
        parts = ("" if self.show == "none" else self.shown(place, value), self.message(place, problem))
        return FieldError(path, ": ".join(("Invalid value", *filter(None, parts))))


def _struct(template: Any, value: Any) -> Any:
    if isinstance(template, list):
        return [_struct(template[0], item) for item in value]
    if not isinstance(template, dict):
        return value
    members = {key.lower(): member for key, member in value.items()}
    return {
        key: _struct(empty, members[key.lower()]) if key.lower() in members else empty
        for key, empty in template.items()
    }


def read_rule(line: str, checks: dict[str, Check], eager: Container[str]) -> Rule:
    """Return the rule of a line; `eager` are the checks that are about missing values, too."""
    found = _RULE.fullmatch(line)
    assert found, line  # noqa: S101 - the tests read every rule
    words = re.findall(r'"[^"]*"|\S+', found["arguments"])
    options = dict(word.split("=", 1) for word in words if word.startswith(("at=", "show=")))
    paths = tuple(_PART.findall(path) for path in found["paths"].split(","))
    # A bound at a path is one for missing values, too: they count as 0.
    bound = found["check"] in ("max", "min", "more-than") and not words[0].lstrip("-").isdecimal()
    return Rule(
        checks[found["check"]],
        found["strict"],
        not (found["strict"] == "!" or found["check"] in eager or bound) and all(paths),
        paths,
        tuple(word.strip('"') for word in words if not word.startswith(("at=", "show="))),
        tuple(condition(each) for each in (found["when"] or "").split(" and ") if each),
        options.get("at"),
        options.get("show"),
        found["say"] or "",
    )
