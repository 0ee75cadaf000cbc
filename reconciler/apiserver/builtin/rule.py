"""A rule of ``rules.txt``: the paths that it is about, when it applies, and how its errors look."""

from __future__ import annotations

import base64
import functools
import ipaddress
import json
import re
import zoneinfo
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cel.syntax_tree import RESERVED_WORD
from reconciler.apiserver.encoding import formats
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import go_json, quoted, read_quantity, recorded

_PATH = re.compile(r"(/|\^*)(@?)(.*)")
_PART = re.compile(r"\[[\w|]*\]|\{\}|<[^>]+>|[^.\[{<]+")
_RULE = re.compile(
    r"(?P<paths>\S+) (?P<check>[\w-]+)(?P<strict>[!?]?)(?P<arguments>.*?)(?: if (?P<when>.+?))?(?:: (?P<say>.+))?"
)
_CONDITION = re.compile(r"(!?)((?:[^=!<>]|<[^>]*[a-z]>)*)(?:(!?=|<|>)(.*))?")


class ValuePlace(NamedTuple):
    """An object that is checked, the stored one on an update, its path, and the object around it."""

    value: JSONObject
    before: JSONObject | None
    path: str
    parent: ValuePlace | None = None


Check = Callable[["FieldRule", ValuePlace, Any, str], Findings]


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
def getter(path: str) -> Callable[[ValuePlace], Any]:
    """Return the function that returns the value at a path; a list of values if the path has ``[]`` or ``{}``."""
    base, old, rest = _PATH.fullmatch(path).groups()  # type: ignore[union-attr]
    parts = _PART.findall(rest)
    if parts == [path] and path[0] not in "[{<":
        return lambda place: place.value.get(path)  # most paths: faster than what follows

    def get(place: ValuePlace) -> Any:
        place = _base(place, base)
        found = (value for value, _ in _walk(place.before if old else place.value, parts, ""))
        return list(found) if {"[]", "{}"} & {*parts} else next(found)

    return get


def _base(place: ValuePlace, base: str) -> ValuePlace:
    """Return the place that the beginning of a path leads to."""
    while place.parent is not None and base:
        place, base = place.parent, base if base == "/" else base[1:]
    return place


def named(place: ValuePlace, path: str, at: str | None) -> str:
    """Return the path that an error names; ``[#]`` in `at` stands for the last index in `path`."""
    if at is None:
        return path
    base, _, rest = _PATH.fullmatch(at).groups()  # type: ignore[union-attr]
    rest = rest.strip(".")
    if "#" in rest:
        rest = rest.replace("#", re.findall(r"\[(\d+)\]", path)[-1])
    start = "" if base == "/" else _base(place, base).path
    return f"{start}.{rest}" if start and rest else start + rest


def old_value(place: ValuePlace, path: str) -> Any:
    """Return the stored value at the path of an error."""
    return getter("@" + path.removeprefix(place.path).removeprefix("."))(place)


def amount(place: ValuePlace, text: str) -> Any:
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


def condition(text: str) -> Callable[[ValuePlace], bool]:
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
class FieldRule:
    """A line of ``rules.txt``; a lazy one has nothing to check where a value is missing."""

    check: Check
    strict: str
    lazy: bool
    paths: tuple[list[str], ...]
    arguments: tuple[str, ...]
    conditions: tuple[Callable[[ValuePlace], bool], ...]
    at: str | None
    show: str | None
    say: str

    def __call__(self, place: ValuePlace, errors: list[FieldError]) -> None:
        """Add the errors of an object."""
        paths: Sequence[list[str]] = self.paths
        if self.lazy:
            paths = [parts for parts in paths if place.value.get(parts[0]) is not None]
        if paths and all(applies(place) for applies in self.conditions):
            for parts in paths:
                for value, path in _walk(place.value, parts, place.path):
                    errors.extend(self.check(self, place, value, named(place, path, self.at)))

    def concerns(self, value: Any) -> bool:
        """Return whether the rule is about a value: one that is set, with ``?`` an empty text, too, with ``!`` any."""
        return bool(value) or self.strict == "!" or (self.strict == "?" and value is not None)

    def message(self, place: ValuePlace, default: str = "") -> str:
        """Return the message; paths in braces stand for values."""
        if "{" not in self.say:
            return self.say or default
        return re.sub(r"\{([^}]+)\}", lambda found: _text(getter(found[1])(place)), self.say)

    def shown(self, place: ValuePlace, value: Any) -> str:
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

    def invalid(self, place: ValuePlace, value: Any, path: str, problem: str = "") -> FieldError:
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


def read_rule(line: str, checks: dict[str, Check], eager: Container[str]) -> FieldRule:
    """Return the rule of a line; `eager` are the checks that are about missing values, too."""
    found = _RULE.fullmatch(line)
    assert found, line  # noqa: S101 - the tests read every rule
    words = re.findall(r'"[^"]*"|\S+', found["arguments"])
    options = dict(word.split("=", 1) for word in words if word.startswith(("at=", "show=")))
    paths = tuple(_PART.findall(path) for path in found["paths"].split(","))
    # A bound at a path is one for missing values, too: they count as 0.
    bound = found["check"] in ("max", "min", "more-than") and not words[0].lstrip("-").isdecimal()
    return FieldRule(
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


_SCHEMA_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_NOT_ENDPOINTS = {
    "unspecified": "may not be unspecified ({})",
    "loopback": "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    "link_local": "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
}
_MACROS = ("@annually", "@daily", "@every", "@hourly", "@midnight", "@monthly", "@weekly", "@yearly")
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def parsed_address(text: str) -> Any:
    """Return an IP address or network, or None."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


_IP_PROBLEMS = formats.unless(
    formats.accepts(ipaddress.ip_address), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
)


def _endpoint(text: str) -> list[str]:
    """Return why the address of an endpoint is not allowed; what is not an address is found elsewhere."""
    found = parsed_address(text)
    return [message.format(text) for kind, message in _NOT_ENDPOINTS.items() if getattr(found, f"is_{kind}", False)]


def _endpoint_or_name(text: str) -> list[str]:
    return [problem.partition(",")[0] for problem in _IP_PROBLEMS(text)] + _endpoint(text)


def _domain_path(text: str) -> Iterator[str]:
    domain, _, path = text.partition("/")
    if not domain or not path:
        yield 'must be a domain-prefixed path (such as "acme.io/foo")'
        return
    yield from formats.form_problems("subdomain", domain)
    if not re.fullmatch(_SCHEMA_PATH, path):
        yield f"Invalid path (regex used for validation is '{_SCHEMA_PATH}')"


def _host(text: str) -> Iterable[str]:
    if parsed_address(text) is not None:
        return ("must be a DNS name, not an IP address",)
    return formats.form_problems("wildcard" if "*" in text else "subdomain", text)


def _time_zone(text: str) -> Iterator[str]:
    if text.lower() == "local":
        yield "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    elif text not in zoneinfo.available_timezones():
        yield f"unknown time zone {text}"


def _regular_expression(text: str) -> Iterator[str]:
    if text and (problem := formats.pattern_problem(text)):
        yield f"must be a valid regular expression, but isn't: {problem}"


def _schedule(text: str) -> Iterator[str]:
    """Yield why a schedule is not a macro such as ``@daily``, or five fields with numbers in their ranges."""
    fields = text.split()
    if "TZ" in text:
        yield "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    elif text.startswith("@"):
        if fields[0] not in _MACROS:
            yield f"unrecognized descriptor: {text}"
    elif len(fields) != 5:
        yield f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    else:
        for field, (low, high) in zip(fields, _FIELDS, strict=True):
            for number in map(int, re.findall(r"(?<![/\w])\d+", field)):
                if not low <= number <= high:
                    end, bound = (
                        ("end", f"above maximum ({high})") if number > high else ("beginning", f"below minimum ({low})")
                    )
                    yield f"{end} of range ({number}) {bound}: {field}"
                    return


def _three_segments(text: str) -> Iterator[str]:
    if problems := formats.form_problems("subdomain", text):
        yield ",".join(problems)
    elif text.count(".") < 2:
        yield "should be a domain with at least three segments separated by dots"


def _mixed_label(text: str) -> list[str]:
    words = "may have mixed case, but should otherwise match: "
    return [f"{words}{problem}" for problem in formats.form_problems("label-1035", text.lower())]


FORMS: dict[str, Callable[[str], Iterable[str]]] = {
    **{form: functools.partial(formats.form_problems, form) for form in recorded("encoding/names.json")},
    "cel-identifier": lambda text: () if _IDENTIFIER.fullmatch(text) and not RESERVED_WORD.fullmatch(text) else ("",),
    "cidr": formats.unless(formats.FORMATS["cidr"], "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
    "config-key": lambda text: (
        [f"must not be '{text}'"] if text in (".", "..") else formats.form_problems("config-key", text)
    ),
    "domain": lambda text: formats.form_problems("subdomain", text.removesuffix(".")),
    "domain-path": _domain_path,
    "endpoint-ip": _endpoint,
    "endpoint-ip-or-name": _endpoint_or_name,
    "host": _host,
    "ip": _IP_PROBLEMS,
    "label": formats.label_problems,
    "mixed-label-1035": _mixed_label,
    "path-name": formats.path_name_problems,
    "qualified": formats.qualified_name_problems,
    "regular-expression": _regular_expression,
    "schedule": _schedule,
    "search-domain": lambda text: (
        [] if text == "." else formats.form_problems("subdomain-or-underscores", text.removesuffix("."))
    ),
    "three-segments": _three_segments,
    "time-zone": _time_zone,
}
