"""Redaction of everything that leaves the process: known secrets, and text that looks like a secret.

Text that is JSON is parsed as JSON: keys decide about their values, each string is redacted by itself, including JSON
inside a string, and the result is JSON again. Any other text is scanned for known forms: names with a value
(``password=…`` in its many spellings), headers, URLs, command lines, private keys, and tokens with a known prefix.

The cost is linear in the length of the text. Two rules ensure it. A pattern either consumes the characters that it
looked at, or looks at a limited number of them: repetitions are possessive or limited. A scan that is not a pattern
consumes what it scanned.

Texts are redacted first and truncated afterwards, since half a secret is not recognized. An HTTP library's error
contains the URL, and the URL of an incoming webhook is a secret. Recognition by form is a guess, so channels should
still keep secrets out of their errors.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from reconciler.errors import ConfigurationError, MissingExtra, error_text
from reconciler.notification.errors import DeliveryError
from reconciler.notification.redaction.forms import (
    DATABASE_HINTS,
    KEY_HINTS,
    LOGIN_HINTS,
    SCHEME_HINTS,
    URL_HINTS,
    redact_logins,
    redact_private_keys,
    redact_schemes,
    redact_urls,
)
from reconciler.notification.redaction.hints import any_of
from reconciler.notification.redaction.json import JSONText, is_json
from reconciler.notification.redaction.names import NAME_HINTS, kind_of_name
from reconciler.notification.redaction.text import PLACEHOLDER, encodable, shortened, visible
from reconciler.notification.redaction.tokens import TOKEN_HINTS, redact_tokens
from reconciler.notification.redaction.values import redact_values

__all__ = [
    "ERROR_LIMIT",
    "PLACEHOLDER",
    "RedactingFilter",
    "Redactor",
    "is_secret_name",
    "redact_forms",
]

ERROR_LIMIT = 512
"""Maximum characters of an error that are stored. With 16 channels and 10 attempts each, errors then take less than a
quarter of the 1.5 MiB that etcd accepts for an object."""

MIN_SECRET = 4
"""Minimum characters of a known secret; a shorter one would occur in ordinary words."""

MIN_PART = 8
"""Minimum characters of a part of a secret URL that counts as a secret by itself; shorter ones are words."""

SCAN_LIMIT = 65_536
"""Maximum characters of an error that are scanned for secrets by form; known secrets are replaced everywhere."""

TAIL = 256
"""Characters that are dropped from the end of a truncated error, because half a secret is not recognized."""

NESTING_LIMIT = 16
"""Maximum levels of JSON inside JSON strings. Each level doubles the backslashes of its quotes."""

PASS_LIMIT = 4
"""Maximum scans of one string. A redaction can change how the surrounding text is read; without secrets it is scanned
once."""

_HARMLESS = re.compile(r"[\w-]{0,15}\Z")
"""A word that is too short for a token with a known prefix."""

_HINTS = any_of(KEY_HINTS, URL_HINTS, DATABASE_HINTS, TOKEN_HINTS, LOGIN_HINTS, NAME_HINTS, SCHEME_HINTS)
"""Text without any of these contains no secret."""


def redact_forms(text: str) -> str:
    """Return the text with `PLACEHOLDER` instead of everything that looks like a secret."""
    return _redact(text, NESTING_LIMIT)


def is_secret_name(name: str) -> bool:
    """Return whether the value of this name is a secret, as for ``dbPassword``."""
    return kind_of_name(name) is not None


def _redact(text: str, levels: int) -> str:
    if _HARMLESS.match(text) or not _HINTS.is_in(text):
        return text
    if levels and text.lstrip()[:1] in ("{", "[", '"') and is_json(text):
        return JSONText(lambda inner: _redact(inner, levels - 1)).redact(text)
    for _ in range(PASS_LIMIT):
        before = text
        for redact in (redact_private_keys, redact_urls, redact_tokens, redact_logins, redact_values, redact_schemes):
            text = redact(text)
        if text == before:
            break
    return text


class Redactor:
    """A filter that replaces known secrets and text that looks like a secret.

    Args:
        secrets: returns the currently known secrets; called at each use, because secrets rotate.
        patterns: regular expressions (RE2) of further secrets. Of a pattern with a group, only the group is replaced.

    Raises:
        ConfigurationError: a pattern is invalid, or matches the empty text.
        MissingExtra: RE2 is not installed, and there are patterns.
    """

    def __init__(self, secrets: Callable[[], Iterable[str]] = tuple, *, patterns: Iterable[str] = ()) -> None:
        self._secrets = secrets
        self._patterns = tuple(_user_pattern(pattern) for pattern in patterns)
        self._values: frozenset[str] = frozenset()
        self._known: tuple[str, ...] = ()

    def redact(self, text: str) -> str:
        """Return the text without secrets."""
        return redact_forms(self.redact_known(text))

    def redact_known(self, text: str) -> str:
        """Return the text without known secrets. Longer ones are replaced first, since one may contain another."""
        values = frozenset(self._secrets())
        if values != self._values:
            found = {part for value in values for part in _spellings(value)}
            self._values, self._known = values, tuple(sorted(found, key=len, reverse=True))
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, PLACEHOLDER)
        for pattern in self._patterns:
            text = _without(pattern, text)
        return text

    def brief(self, text: str, limit: int) -> str:
        """Return the text in one line, redacted first and then truncated to `limit` characters."""
        text = self.redact_known(text)
        clean = redact_forms(text[:SCAN_LIMIT])
        if len(text) > SCAN_LIMIT:
            clean = clean[:-TAIL]
        return shortened(" ".join(visible(clean, " ").split()), limit)

    def redact_member(self, name: str, value: str) -> str:
        """Return a value without secrets; only the placeholder if its name is that of a secret."""
        return PLACEHOLDER if value and is_secret_name(name) else self.redact(value)

    def describe(self, error: BaseException) -> str:
        """Return the text of an error for a status: redacted first, then truncated to `ERROR_LIMIT` characters.

        Errors other than `DeliveryError` start with their type. Never raises, whatever the exception does.
        """
        name = type(error).__name__
        text = error_text(error)
        if text.strip() in ("", name):
            return name
        return self.brief(text if isinstance(error, DeliveryError) else f"{name}: {text}", ERROR_LIMIT) or name


def _user_pattern(pattern: str) -> Any:
    try:
        import re2  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra("re2", extra="notification", purpose="patterns of secrets") from None
    try:
        compiled = re2.compile(pattern)
    except re2.error as error:
        text = error.args[0] if error.args else ""
        reason = text.decode() if isinstance(text, bytes) else str(text)
        raise ConfigurationError(f"{pattern!r} is not a valid pattern of RE2: {reason}") from None
    if compiled.search("") is not None:
        raise ConfigurationError(f"the pattern {pattern!r} matches the empty text, so it would match everywhere")
    return compiled


def _without(pattern: Any, text: str) -> str:
    """Return the text with the matches of a pattern, or the first group of each, replaced."""
    out: list[str] = []
    done = 0
    for found in pattern.finditer(encodable(text)):
        begin, end = found.span(1 if pattern.groups else 0)
        if done <= begin < end:
            out += [text[done:begin], PLACEHOLDER]
            done = end
    return "".join([*out, text[done:]])


def _spellings(value: str) -> Iterator[str]:
    """Yield the spellings of a secret. For a URL also its path and the path's parts, which a receiver may quote."""
    if len(value) >= MIN_SECRET:
        yield from {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value, safe="")}
    if not value.startswith(("http://", "https://")):
        return
    path = value.partition("://")[2].partition("/")[2]
    yield from (part for part in {path, *re.split(r"[/?&=]", path)} if len(part) >= MIN_PART)


class RedactingFilter(logging.Filter):
    """A logging filter that redacts records: the message, the traceback, the stack, and values in ``extra``.

    Add it to a handler. It changes the record itself, so later handlers see the redacted one.

    Args:
        redactor: the redactor.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True after redacting the record. A message that cannot be formatted is replaced by a note."""
        redact = self._redactor.redact
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - arguments are user code; logging would print them unredacted
            message = f"{record.msg!s} (cannot format the arguments: {type(error).__name__})"
        record.msg, record.args = redact(message), None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = _traceback(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
            record.exc_info = None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD and isinstance(value, str):
                setattr(record, name, self._redactor.redact_member(name, value))
        return True


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _traceback(exc_info: tuple[type[BaseException], BaseException, object]) -> str:
    try:
        return logging.Formatter().formatException(exc_info)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - exceptions are user code
        return error_text(exc_info[1])
