"""Forms of strings: names, label keys and label values, the formats that a structural schema may name, and patterns.

The forms of names are in ``names.json``: a pattern, the maximum length (0 for none) and its unit, and the message, in
which braces stand for the pattern; or it has a message for each pattern of what a text must not contain. The rules of
formats are those of the API server's own format registry, which are laxer than the RFCs in places; ``formats.json`` has
those that are a pattern. Patterns of users are regular expressions in Go's syntax; ``patterns.json`` has the POSIX
classes, and Go's messages by those of RE2.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
import sys
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from reconciler.apiserver.encoding.text import recorded

RANDOM_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""The alphabet of the suffixes of generated names."""
INTEGER_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
"""The least and greatest number of each integer format."""
NUMBER_RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "integer": INTEGER_RANGES,
    "number": {
        "float": (-3.4028234663852886e38, 3.4028234663852886e38),
        "double": (-sys.float_info.max, sys.float_info.max),
    },
}
"""The formats of each type of numbers, with the least and greatest number of each."""
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(z|[+-][0-9]{2}:[0-9]{2})")
_DURATION = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+|0")
_LONG_DURATION = re.compile(r"([0-9]+)\s*([A-Za-zµ]+)")
_UNIT = re.compile(r"ns|nano.*|us|µs|micro.*|ms|milli.*|s|sec.*|m|min.*|h|hr|hour.*|d|day.*|w|wk|week.*")
_LEADING = re.compile(r"(?<![0-9])0+([0-9])")
_GO_SYNTAX = re.compile(
    r"\\Q(?P<literal>.*?)(?:\\E|\Z)|\\x\{(?P<point>[0-9A-Fa-f]+)\}|"
    r"\\(?P<property>[pP])(?P<letter>[A-Z])|\\(?P<escaped>.)|(?P<named>\(\?P<)|\[:(?P<class>\w+):\]",
    re.DOTALL,
)
_FLAGS = re.compile(r"(\^?)\(\?([ims]+)\)")


def form_problems(form: str, text: str) -> list[str]:
    """Return why a string does not have a form of ``names.json``."""
    found = recorded("encoding/names.json")[form]
    if isinstance(found, dict):
        return [message for pattern, message in found.items() if re.search(pattern, text)]
    pattern, most, unit, message = found
    problems = [f"must be no more than {most} {unit}"] if most and len(text.encode()) > most else []
    return problems if re.fullmatch(pattern, text) else [*problems, message.replace("{}", pattern)]


def label_problems(text: str) -> list[str]:
    """Return why a string is not an RFC 1123 label."""
    problems = form_problems("label", text)
    if "." in text and re.fullmatch(recorded("encoding/names.json")["subdomain"][0], text):
        problems[-1] = "must not contain dots"
    return problems


def name_problems(name: str, rule: str) -> list[str]:
    """Return why an object's name is invalid by one of the rules of `KindInfo.names`."""
    if rule == "path":
        return path_name_problems(name)
    return ["must not contain dots"] if rule == "label" and "." in name else form_problems(rule, name)


def path_name_problems(name: str) -> list[str]:
    """Return why a name cannot be a segment of a path: it is ``.`` or ``..``, or contains ``/`` or ``%``."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{mark}'" for mark in ("/", "%") if mark in name]


def qualified_name_problems(key: str) -> list[str]:
    """Return why a string is not a valid label key, annotation key or finalizer."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return form_problems("one-slash", key)
    problems = [f"prefix part {problem}" for problem in form_problems("subdomain", prefix)[-1:]] if slash else []
    if slash and not prefix:
        problems = ["prefix part must be non-empty"]
    if not name:
        problems.append("name part must be non-empty")
    found = form_problems("name-part", name)
    return problems + [problem if problem.startswith("name part") else f"name part {problem}" for problem in found]


def _matches(pattern: str) -> Callable[[str], bool]:
    expression = re.compile(pattern)
    return lambda text: expression.fullmatch(text) is not None


def accepts(read: Callable[..., object]) -> Callable[..., bool]:
    """Return a function that reports whether a parser accepts its arguments: it raises no `ValueError`."""

    def check(*values: Any) -> bool:
        try:
            read(*values)
        except ValueError:
            return False
        return True

    return check


def unless(fits: Callable[[str], bool], message: str) -> Callable[[str], list[str]]:
    """Return a function that returns the problems of a string: none, or the message."""
    return lambda text: [] if fits(text) else [message]


_is_base64 = accepts(functools.partial(base64.b64decode, validate=True))
_is_day = accepts(date.fromisoformat)
_is_network = accepts(functools.partial(ipaddress.ip_network, strict=False))
_is_url = accepts(urlsplit)
# Leading zeros are accepted, as in Go's older parser.
_is_ipv4 = accepts(lambda text: ipaddress.IPv4Address(_LEADING.sub(r"\1", text)))
_is_ipv6 = accepts(ipaddress.IPv6Address)


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None and _is_day(f"2000{text[4:]}")  # any year may be a leap year


def _is_date_time(text: str) -> bool:
    day, _, time = text.lower().partition("t")
    return _is_date(day) and _TIME.fullmatch(time) is not None


def _is_duration(text: str) -> bool:
    # Any text with a number and a unit in it is a duration, as in the real server: "PT1H", "in 2 days".
    return _DURATION.fullmatch(text) is not None or any(
        _UNIT.fullmatch(unit.lower()) for _, unit in _LONG_DURATION.findall(text)
    )


def _is_isbn10(text: str) -> bool:
    digits = re.sub("[- ]", "", text)
    values = ["0123456789X".index(digit) for digit in digits] if re.fullmatch("[0-9]{9}[0-9X]", digits) else [1]
    return sum(place * value for place, value in enumerate(values, 1)) % 11 == 0


def _is_isbn13(text: str) -> bool:
    digits = re.sub("[- ]", "", text)
    total = sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(re.sub("[^0-9]", "", digits)))
    return re.fullmatch("[0-9]{13}", digits) is not None and total % 10 == 0


def _is_card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not 13 <= len(digits) <= 19:
        return False
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


FORMATS: dict[str, Callable[[str], bool]] = {
    **{name: _matches(pattern) for name, pattern in recorded("encoding/formats.json").items()},
    "byte": _is_base64,
    "cidr": lambda text: "/" in text and _is_network(text),
    "creditcard": _is_card,
    "date": _is_date,
    "date-time": _is_date_time,
    "datetime": _is_date_time,
    "duration": _is_duration,
    "ipv4": _is_ipv4,
    "ipv6": lambda text: "%" not in text and _is_ipv6(text),
    "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "k8s-long-name": lambda text: not form_problems("subdomain", text),
    "k8s-short-name": lambda text: not form_problems("label", text),
    "password": lambda _text: True,
    "uri": lambda text: _is_url(text) and (text.startswith("/") or bool(urlsplit(text).scheme)),
}
"""The formats that are checked, by name; other formats are ignored."""


def ecma_pattern(pattern: str) -> str:
    """Return a pattern in the syntax of ECMAScript, which JSON Schema uses."""
    pattern = _GO_SYNTAX.sub(_to_ecma, pattern)
    flags = _FLAGS.match(pattern)
    return f"{flags[1]}(?{flags[2]}:{pattern[flags.end() :]})" if flags else pattern


def _to_ecma(found: re.Match[str]) -> str:
    if found["literal"] is not None:
        return re.sub(r"[\\^$.*+?()\[\]{}|/-]", r"\\\g<0>", found["literal"])
    if found["point"]:
        return f"\\u{{{found['point']}}}"
    if found["letter"]:
        return f"\\{found['property']}{{{found['letter']}}}"
    if found["named"]:
        return "(?<"
    if found["class"]:
        return str(recorded("encoding/patterns.json")["classes"].get(found["class"], found[0]))
    return {"A": "^", "z": "$"}.get(found["escaped"], found[0])


@functools.lru_cache(maxsize=256)
def compiled_pattern(pattern: str) -> Any:
    """Return a compiled RE2 pattern; RE2 matches in linear time, as Go's regexp does.

    Raises:
        ModuleNotFoundError: RE2, an optional dependency, is not installed.
        ValueError: the pattern is not valid; with the message of Go's parser.
    """
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        problem, _, part = error.args[0].decode(errors="replace").partition(": ")
    if part.startswith("(?<"):
        problem, part = "invalid named capture", pattern[pattern.index("(?<") :]
    problem = recorded("encoding/patterns.json")["messages"].get(problem, problem)
    raise ValueError(f"error parsing regexp: {problem}: `{part}`")


def pattern_problem(pattern: str) -> str:
    """Return the error of Go's parser for a pattern, or an empty string if it is valid.

    Without RE2, the parser of pydantic's engine, Rust's `regex`, finds the error, with messages of its own.
    """
    try:
        compiled_pattern(pattern)
    except ModuleNotFoundError:
        return _problem_without_re2(pattern)
    except ValueError as error:
        return str(error)
    return ""


def _problem_without_re2(pattern: str) -> str:
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        SchemaValidator(core_schema.str_schema(pattern=ecma_pattern(pattern), regex_engine="rust-regex"))
    except SchemaError as error:
        return f"error parsing regexp: {str(error).rpartition('error: ')[2].rstrip('.')}: `{pattern}`"
    return ""
