"""Matchers in Alertmanager's syntax: ``team = "storage"``, ``priority !~ "Low|Medium"``.

Alertmanager has a classic syntax and a stricter one that allows any label name. During its migration it parses each
matcher with both, and the classic result takes precedence if both succeed. This module does the same, so that a matcher
has the same meaning in both programs.

Regular expressions are in RE2's syntax, which is Go's. They run on pydantic's engine, Rust's `regex`, which also
matches in linear time and has wheels for every platform; what the two write differently is translated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from pydantic_core import SchemaError, SchemaValidator, core_schema

from reconciler.notification.redaction import encodable, shortened

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
    """

    name: str
    operator: Operator
    value: str
    _expression: SchemaValidator | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.operator in ("=~", "!~"):
            object.__setattr__(self, "_expression", _compiled(self.value))

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Return whether these attributes match."""
        value = attributes.get(self.name, "")
        if self._expression is None:
            matches = value == self.value
        else:
            matches = self._expression.isinstance_python(encodable(value))
        return matches is not self.operator.startswith("!")

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.operator}"{escaped}"'


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Parse one matcher, or several separated by commas, with or without braces.

    Raises:
        MatcherError: the string is not a valid matcher; the message says what was expected where.
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


# Regular expressions

_TOKEN = re.compile(
    r"""\\Q(?P<quoted>.*?)(?:\\E|\Z)|\\(?P<octal>0[0-7]{0,2}|[1-7][0-7]{1,2})|\\[xpP]\{[^}]{0,40}\}|\\(?P<escape>.)
    |\[:\^?[a-z]{1,10}:\]|(?P<open>\[\^?\]?)|(?P<close>\])|(?P<set>[&~])|(?P<group>\(\?(?:P?<|[^:)]{0,20}[:)]?))
    |(?P<count>\{[0-9]{1,20}(?:,[0-9]{0,20})?\}\??|[*+?]\??)|(?P<brace>\{)""",
    re.DOTALL | re.VERBOSE,
)
_GROUP = re.compile(r"\(\?(?:P?<|[imsU]*(?:-[imsU]+)?[:)])", re.ASCII)
_ASCII_CLASSES = {"d": "[0-9]", "D": "[^0-9]", "s": r"[\t\n\f\r ]", "S": r"[^\t\n\f\r ]"}
_ASCII_CLASSES |= {"w": "[0-9A-Za-z_]", "W": "[^0-9A-Za-z_]", "b": r"(?-u:\b)", "B": r"(?-u:\B)"}
_ESCAPES = frozenset("AafnprtvxzP")


def _compiled(expression: str) -> SchemaValidator:
    """Return a validator of the strings that a regular expression matches as a whole."""
    try:
        rust = _in_rust_syntax(encodable(expression))
        _validator(rust)  # by itself, because `a)(b` would be valid in parentheses
        return _validator(rf"\A(?:{rust})\z")
    except (SchemaError, ValueError) as error:
        reason = str(error).rpartition("error: ")[2].rpartition("SchemaError: ")[2].rstrip(".")
        raise MatcherError(f"invalid regular expression {shortened(expression, 100)!r}: {reason}") from None


def _validator(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _in_rust_syntax(expression: str) -> str:
    """Translate a regular expression in RE2's syntax. Rust's classes and word boundaries are Unicode's, RE2's ASCII's.

    Raises:
        ValueError: a part is valid in Rust's syntax, but not in RE2's.
    """
    out: list[str] = []
    inside = False  # a character class
    done = counted = 0
    for found in _TOKEN.finditer(expression):
        kind, part = found.lastgroup, found.group()
        out.append(expression[done : found.start()])
        repeated, done = counted == found.start() > 0, found.end()
        if kind == "quoted":
            part = re.sub(r"[^0-9A-Za-z_\s]", lambda each: f"\\x{{{ord(each[0]):x}}}", found["quoted"])
        elif kind == "octal":
            part = f"\\x{{{int(found['octal'], 8):x}}}"
        elif kind == "escape":
            part = _escape(found["escape"], inside=inside)
        elif kind == "open":
            part = r"\[" + part[1:] if inside else part
            inside = True
        elif kind == "close":
            inside = False
        elif kind == "set" and inside:
            part = f"\\{part}"
        elif not inside and kind == "group" and not _GROUP.match(part):
            raise ValueError(f"{part} is not valid in RE2's syntax")
        elif not inside and kind == "count":
            if repeated:
                raise ValueError(f"{part} repeats a repetition")
            counted = found.end()
        elif not inside and kind == "brace":
            part = r"\{"
        out.append(part)
    return "".join([*out, expression[done:]])


def _escape(letter: str, *, inside: bool) -> str:
    if letter in _ASCII_CLASSES and not (inside and letter in "bB"):
        return _ASCII_CLASSES[letter]
    if letter.isalnum() and letter not in _ESCAPES:
        raise ValueError(f"\\{letter} is not valid in RE2's syntax")
    return f"\\{letter}" if letter.isalnum() or not letter.isascii() else f"\\x{ord(letter):02x}"
