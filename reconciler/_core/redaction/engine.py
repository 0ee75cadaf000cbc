"""Redaction of text that looks like a secret, for everything that leaves the process.

Text that is JSON is parsed as JSON: keys decide about their values, each string is redacted by itself, including JSON
inside a string, and the result is JSON again. Any other text is scanned for known forms: names with a value
(``password=…`` in its many spellings), headers, URLs, command lines, private keys, and tokens with a known prefix.

The cost is linear in the length of the text. Two rules ensure it. A pattern either consumes the characters that it
looked at, or looks at a limited number of them: repetitions are possessive or limited. A scan that is not a pattern
consumes what it scanned.

Texts are redacted first and truncated afterwards, since half a secret is not recognized. What is far longer than the
limit is cut before, so that no text costs more than its short form is worth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from reconciler._core.redaction.forms import FORMS, SCHEMES
from reconciler._core.redaction.names import (
    NAME_HINTS,
    NAMED,
    NAMING,
    PLACEHOLDER,
    Hints,
    Kind,
    kind_of_name,
    looks_random,
    strong,
)
from reconciler._core.redaction.values import USER_FLAGS, redact_values, without_password

_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[^\s"{}\[\]:,]++|[{}\[\]:,]|\s++', re.DOTALL)


def is_json(text: str) -> bool:
    """Return whether a string is JSON that is not nested too deeply for the parser."""
    try:
        json.loads(text, parse_int=bool, parse_float=bool, parse_constant=bool)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(slots=True)
class _Container:
    """The object or array that is being parsed.

    Attributes:
        is_object: whether it is an object.
        kind: what the surrounding name says about all values in it.
        key: the key whose value comes next; None if a key or an array item comes next.
        named: what the member ``name`` says about the member ``value``, whichever comes first.
        before: the previous item of an array.
    """

    is_object: bool
    kind: Kind | None = None
    key: str | None = None
    named: Kind | None = None
    before: str = ""

    def kind_of_value(self) -> Kind | None:
        """Return what the surrounding and preceding names say about a value."""
        if self.kind is not None:
            return self.kind
        if self.is_object:
            named = self.named if (self.key or "").lower() in NAMED else None
            return strong(kind_of_name(self.key or ""), '"') or named
        is_name = self.before.startswith("-") or kind_of_name(self.before) == "header"
        return strong(kind_of_name(self.before), '"') if is_name else None


def _containers(lexemes: Sequence[str]) -> list[_Container]:
    """Return the objects and arrays of JSON in the order in which they begin."""
    found: list[_Container] = []
    frames = [_Container(is_object=False)]
    for lexeme in lexemes:
        frame = frames[-1]
        if lexeme in ("{", "["):
            found.append(_Container(is_object=lexeme == "{"))
            frames.append(found[-1])
        elif lexeme in ("}", "]", ","):
            frame.key = None
            if lexeme != ",":
                frames.pop()
        elif frame.is_object and lexeme[0] == '"':
            if frame.key is None:
                frame.key = json.loads(lexeme)
            elif frame.key.lower() in NAMING:
                frame.named = strong(kind_of_name(json.loads(lexeme)), '"') or frame.named
    return found


class JSONText:
    """The redaction of one JSON document. Everything that is not redacted is copied verbatim."""

    def __init__(self, redact_text: Callable[[str], str]) -> None:
        self._redact_text = redact_text
        self._frames = [_Container(is_object=False)]
        self._ahead: Iterator[_Container] = iter(())

    def redact(self, text: str) -> str:
        """Remove secrets from JSON."""
        lexemes = _JSON_TOKEN.findall(text)
        self._ahead = iter(_containers(lexemes))
        return "".join(map(self._token, lexemes))

    def _token(self, lexeme: str) -> str:
        frame = self._frames[-1]
        if lexeme in ("{", "["):
            kind = frame.kind_of_value()
            self._frames.append(next(self._ahead))
            self._frames[-1].kind = None if kind == "mixed" else kind
        elif lexeme in ("}", "]"):
            self._frames.pop()
        elif lexeme == ",":
            frame.key = None
        elif lexeme.startswith('"'):
            return self._string(frame, lexeme)
        elif lexeme[0] in "-0123456789" and frame.kind_of_value() in ("secret", "header"):
            return f'"{PLACEHOLDER}"'
        return lexeme

    def _string(self, frame: _Container, lexeme: str) -> str:
        text: str = json.loads(lexeme)
        is_key = frame.is_object and frame.key is None
        if is_key:
            frame.key = clean = self._redact_text(text)
        elif text and (kind := frame.kind_of_value()) is not None and (kind != "mixed" or looks_random(text)):
            clean = PLACEHOLDER
        elif frame.before in USER_FLAGS:
            clean = without_password(text)
        else:
            clean = self._redact_text(text)
        frame.before = "" if frame.is_object else clean
        return lexeme if clean == text else _quoted(clean)


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates, which JSON can only escape
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


ERROR_LIMIT = 4_096
"""Maximum characters of an error that are scanned; what stores or shows an error takes fewer."""

TAIL = 256
"""Characters that are dropped from the end of a truncated error, because half a secret is not recognized."""

NESTING_LIMIT = 16
"""Maximum levels of JSON inside JSON strings. Each level doubles the backslashes of its quotes."""

PASS_LIMIT = 4
"""Maximum scans of one string. A redaction can change how the surrounding text is read; without secrets it is scanned
once."""

_HARMLESS = re.compile(r"[\w-]{0,15}\Z")
"""A word that is too short for a token with a known prefix."""

_STEPS: tuple[tuple[Hints, Callable[..., str]], ...] = (*FORMS, (NAME_HINTS, redact_values), SCHEMES)

_HINTS = Hints(*(text for hints, _ in _STEPS for text in hints.texts))
"""Text without any of these contains no secret."""


def redact(text: str) -> str:
    """Replace everything in text that looks like a secret by `PLACEHOLDER`."""
    return _redact(text, NESTING_LIMIT)


def _redact(text: str, levels: int) -> str:
    if _HARMLESS.match(text) or not _HINTS.is_in(text):
        return text
    if levels and text.lstrip()[:1] in ("{", "[", '"') and is_json(text):
        return JSONText(lambda inner: _redact(inner, levels - 1)).redact(text)
    known: set[str] = set()
    for _ in range(PASS_LIMIT):
        before = text
        for hints, step in _STEPS:
            if places := hints.starts(text):
                text = step(text, places, known) if step is redact_values else step(text, places)
        for value in known:
            text = text.replace(value, PLACEHOLDER)
        if text == before:
            break
    return text


@lru_cache(maxsize=64)
def _redacted_error(text: str) -> str:
    return redact(text)


def redact_error(text: str) -> str:
    """Remove secrets from the beginning of the text of an error; the rest is dropped.

    An error is stored, shown and reported by different parts, which call this with the same text. It is computed once.
    """
    clean = _redacted_error(text[:ERROR_LIMIT])
    return clean if len(text) <= ERROR_LIMIT else clean[:-TAIL]
