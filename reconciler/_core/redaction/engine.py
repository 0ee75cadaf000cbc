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

import re
from functools import lru_cache

from reconciler._core.redaction.forms import (
    DATABASE_HINTS,
    KEY_HINTS,
    LOGIN_HINTS,
    SCHEME_HINTS,
    TOKEN_HINTS,
    URL_HINTS,
    redact_logins,
    redact_private_keys,
    redact_schemes,
    redact_tokens,
    redact_urls,
)
from reconciler._core.redaction.hints import PLACEHOLDER, Hints
from reconciler._core.redaction.json import JSONText, is_json
from reconciler._core.redaction.names import NAME_HINTS
from reconciler._core.redaction.values import redact_values

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

_GROUPS = (KEY_HINTS, URL_HINTS, DATABASE_HINTS, TOKEN_HINTS, LOGIN_HINTS, NAME_HINTS, SCHEME_HINTS)

_HINTS = Hints(*(text for hints in _GROUPS for text in hints.texts))
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
        for step in (redact_private_keys, redact_urls, redact_tokens, redact_logins):
            text = step(text)
        text = redact_schemes(redact_values(text, known))
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
