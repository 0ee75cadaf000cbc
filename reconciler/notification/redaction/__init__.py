"""Redaction of what has the form of a secret in a text.

A text that is JSON is read as JSON: keys decide about their values, every string is redacted by itself, also JSON that
stands inside a string, and the result is JSON again. Every other text is scanned for forms: names with a value
(``password=…`` in its many spellings), headers, URLs, command lines, private keys, and tokens with a known beginning.

The cost is linear in the text. Two rules keep it so. A pattern either consumes what it looked at, or looks at a bounded
number of characters: repetitions are possessive, or bounded. A scan that is not a pattern consumes what it scanned.
"""

from __future__ import annotations

import re

from reconciler.notification.redaction.json import JSONText, is_json
from reconciler.notification.redaction.marks import PLACEHOLDER
from reconciler.notification.redaction.names import kind_of_name
from reconciler.notification.redaction.tokens import redact_private_keys, redact_schemes, redact_tokens
from reconciler.notification.redaction.urls import redact_urls
from reconciler.notification.redaction.values import redact_values

__all__ = ["PLACEHOLDER", "is_secret_name", "redact_forms"]

NESTING_LIMIT = 16
"""Levels of JSON inside strings of JSON that are read as JSON. Each level doubles the backslashes of its quotes."""

PASS_LIMIT = 4
"""Most times that a text is scanned. What was redacted can change how the text around it reads; a text without secrets
is scanned once."""

_HARMLESS = re.compile(r"[\w-]{0,15}\Z")
"""A word too short for a token that is known by its beginning."""


def redact_forms(text: str) -> str:
    """Return the text with `PLACEHOLDER` in place of each secret that is known by its form."""
    return _redact(text, NESTING_LIMIT)


def is_secret_name(name: str) -> bool:
    """Return whether a value of this name is a secret, as that of ``dbPassword`` is."""
    return kind_of_name(name) is not None


def _redact(text: str, levels: int) -> str:
    if _HARMLESS.match(text):
        return text
    if levels and text.lstrip()[:1] in ("{", "[", '"') and is_json(text):
        return JSONText(lambda inner: _redact(inner, levels - 1)).redact(text)
    for _ in range(PASS_LIMIT):
        before = text
        for redact in (redact_private_keys, redact_urls, redact_tokens, redact_values, redact_schemes):
            text = redact(text)
        if text == before:
            break
    return text
