"""Matchers in Alertmanager's syntax: ``team = "storage"``, ``priority !~ "Low|Medium"``.

Alertmanager has a classic syntax and a stricter one that allows any label name. During its migration it parses each
matcher with both, and the classic result takes precedence if both succeed. This module does the same, so that a matcher
has the same meaning in both programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from reconciler.errors import MissingExtra
from reconciler.notification.redaction import shortened

Operator = Literal["=", "!=", "=~", "!~"]
"""Equal, not equal, matches the whole value, does not match the whole value."""

ERROR_LIMIT = 300
"""Maximum characters in an error about a matcher."""


class MatcherError(ValueError):
    """The reason why a matcher is invalid, in at most `ERROR_LIMIT` characters because a matcher may be a megabyte."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message, ERROR_LIMIT))


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one attribute. An absent attribute counts as the empty string.

    Attributes:
        name: name of the attribute.
        operator: the comparison.
        value: the value to compare with. For ``=~`` and ``!~``, a regular expression in RE2's syntax that must match
            the whole attribute.

    Raises:
        MatcherError: the regular expression is invalid.
        MissingExtra: RE2 is not installed.
    """

    name: str
    operator: Operator
    value: str
    _expression: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.operator in ("=~", "!~"):
            object.__setattr__(self, "_expression", _compiled(self.value))

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Return whether these attributes match."""
        value = attributes.get(self.name, "")
        match self.operator:
            case "=":
                return value == self.value
            case "!=":
                return value != self.value
            case "=~":
                return self._expression.fullmatch(value) is not None
            case "!~":
                return self._expression.fullmatch(value) is None

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.operator}"{escaped}"'


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Parse one matcher, or several separated by commas, with or without braces.

    Raises:
        MatcherError: the string is not a valid matcher; the message says what was expected where.
        MissingExtra: RE2 is not installed.
    """
    try:
        strict: tuple[Matcher, ...] | None = tuple(_strict(text))
        problem: MatcherError | None = None
    except MatcherError as error:
        strict, problem = None, error
    try:
        classic = tuple(_classic(text))
    except MatcherError:
        if problem is not None:
            raise problem from None
        assert strict is not None  # noqa: S101 - the strict syntax had no problem
        return strict
    return classic


# The strict syntax

_PART = r"""("(?:[^"\\]|\\.)*+"|[^\s{}!=~,\\"'`]++)"""
_STRICT = re.compile(rf"{_PART}\s*+(=~|!=|!~|=)\s*+{_PART}\s*+(,\s*+|\Z)", re.DOTALL)
_ESCAPE = re.compile(
    r"""\\(?:(?P<plain>[abfnrtv\\"])|x(?P<byte>[0-9a-fA-F]{2})|(?P<octal>[0-3][0-7]{2})
    |u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8})|(?P<wrong>.?))""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}


def _strict(text: str) -> Iterator[Matcher]:
    inner = text.strip()
    if inner.startswith("{"):
        if not inner.endswith("}"):
            raise MatcherError("'}' is missing at the end")
        inner = inner[1:-1].strip()
    position = 0
    while position < len(inner):
        found = _STRICT.match(inner, position)
        if found is None:
            column = text.index(inner) + position + 1
            rest = shortened(inner[position : position + 80], 40)
            raise MatcherError(f"column {column}: expected a matcher such as team = storage, found {rest!r}")
        yield Matcher(_unquoted(found[1]), cast("Operator", found[2]), _unquoted(found[3]))
        position = found.end()


def _unquoted(token: str) -> str:
    if not token.startswith('"'):
        return token

    def plain(found: re.Match[str]) -> str:
        if found["wrong"] is not None:
            raise MatcherError(f"{found.group()} in {token} is not a valid escape: write \\\\ for a backslash")
        if found["plain"]:
            return _ESCAPED[found["plain"]]
        code = int(found["octal"], 8) if found["octal"] else int(found["byte"] or found["short"] or found["long"], 16)
        try:
            return chr(code)
        except (ValueError, OverflowError):
            raise MatcherError(f"{found.group()} in {token} is not a valid character") from None

    if "\n" in token:
        raise MatcherError(f"{token} contains a line break: write \\n")
    return _ESCAPE.sub(plain, token[1:-1])


# The classic syntax

_CLASSIC = re.compile(r"^\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|=|!=|!~)(.*)\Z", re.DOTALL | re.ASCII)
_CLASSIC_PART = re.compile(r'((?:\\.|"(?:\\.|[^"\\])*"|[^",\\])*)(,|\Z)', re.DOTALL)


def _classic(text: str) -> Iterator[Matcher]:
    text = text.removeprefix("{").removesuffix("}")
    position = 0
    while position <= len(text):
        found = _CLASSIC_PART.match(text, position)
        if found is None:
            raise MatcherError("unterminated quote")
        if not (found[2] == "" and not found[1].strip()):
            yield _classic_matcher(found[1])
        position = found.end() if found[2] else len(text) + 1


def _classic_matcher(text: str) -> Matcher:
    found = _CLASSIC.match(text)
    if found is None:
        raise MatcherError(f"{text!r} is not a valid matcher")
    name, operator, value = found[1], found[2], found[3].strip()
    quoted = value.startswith('"')
    if quoted:
        if not re.fullmatch(r'"(?:\\.|[^"\\])*"', value, re.DOTALL):
            raise MatcherError(f"unterminated quote in the value {value}")
        value = value[1:-1]
    elif re.search(r'(?<!\\)(?:\\\\)*"', value):
        raise MatcherError(f"unescaped quote in the value {value}")
    value = re.sub(r'\\([n"\\])', lambda each: "\n" if each[1] == "n" else each[1], value)
    return Matcher(name, cast("Operator", operator), value)


def _compiled(expression: str) -> Any:
    try:
        import re2  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra("google-re2", extra="notification", purpose="a matcher with a regular expression") from None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(f"(?:{expression})", options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise MatcherError(f"invalid regular expression {expression!r}: {reason}") from None
