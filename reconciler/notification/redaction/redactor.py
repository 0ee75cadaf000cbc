"""Redaction of what has the form of a secret in a text.

A text that is JSON is read as JSON: keys decide about their values, every string is redacted by itself, also JSON that
stands inside a string, and the result is JSON again. Every other text is scanned for forms: names with a value
(``password=…`` in its many spellings), headers, URLs, command lines, private keys, and tokens with a known beginning.

The cost is linear in the text. Two rules keep it so. A pattern either consumes what it looked at, or looks at a bounded
number of characters: repetitions are possessive, or bounded. A scan that is not a pattern consumes what it scanned.


Redaction of everything that leaves: known secrets, and what has the form of one.

An error of an HTTP library quotes the URL, and the URL of a webhook is its password. Texts are redacted first and cut
afterwards, since half a secret has no form. A form is only a guess, so a channel should still put no secret into an
error.

"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

from reconciler.errors import error_text
from reconciler.notification.errors import DeliveryError
from reconciler.notification.redaction.forms import redact_private_keys, redact_schemes, redact_tokens, redact_urls
from reconciler.notification.redaction.json import JSONText, is_json
from reconciler.notification.redaction.names import kind_of_name
from reconciler.notification.redaction.text import PLACEHOLDER, visible
from reconciler.notification.redaction.values import redact_values

__all__ = [
    "ERROR_LIMIT",
    "PLACEHOLDER",
    "RedactingFilter",
    "Redactor",
    "describe",
    "is_secret_name",
    "redact",
    "redact_forms",
]


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


redact = redact_forms

ERROR_LIMIT = 512
"""Most characters of an error that are stored. With 16 channels and 10 attempts each, errors then take less than a
quarter of the 1.5 MiB that etcd takes for an object."""

LEAST_SECRET = 4
"""Fewest characters of a known secret that is replaced: a shorter one would be found in every other word."""

LEAST_PART = 8
"""Fewest characters of a part of a secret URL that is taken for a secret by itself: shorter ones are words."""

SCAN_LIMIT = 65_536
"""Most characters of an error that are searched for the forms of secrets; known secrets are replaced in all of it."""

TAIL = 256
"""Characters that are dropped from the end of an error that was cut: half a secret has no form."""


class Redactor:
    """Replaces the secrets that are known, whatever their form, and what has the form of one.

    Args:
        secrets: returns the secret values that are known at this moment; asked at each use, since they rotate.
    """

    def __init__(self, secrets: Callable[[], Iterable[str]] = tuple) -> None:
        self._secrets = secrets
        self._values: frozenset[str] = frozenset()
        self._known: tuple[str, ...] = ()

    def redact(self, text: str) -> str:
        """Return the text without secrets."""
        return redact_forms(self.redact_known(text))

    def redact_known(self, text: str) -> str:
        """Return the text without the secrets that are known. The longest goes first, as one may contain another."""
        values = frozenset(self._secrets())
        if values != self._values:
            found = {part for value in values for part in _telling(value)}
            self._values, self._known = values, tuple(sorted(found, key=len, reverse=True))
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, PLACEHOLDER)
        return text

    def brief(self, text: str, limit: int) -> str:
        """Return the text in one line without secrets, redacted first and then cut to `limit` characters."""
        text = self.redact_known(text)
        clean = redact_forms(text[:SCAN_LIMIT])
        if len(text) > SCAN_LIMIT:
            clean = clean[:-TAIL]
        clean = " ".join(visible(clean, " ").split())
        return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"

    def redact_member(self, name: str, value: str) -> str:
        """Return a value without secrets; the placeholder alone when its name says that it is one."""
        return PLACEHOLDER if value and is_secret_name(name) else self.redact(value)

    def describe(self, error: BaseException) -> str:
        """Return an error as a text for a status; see `describe`."""
        return _described(error, self)


def describe(error: BaseException) -> str:
    """Return an error as a text for a status: redacted first, then cut to `ERROR_LIMIT` characters.

    Errors that a channel did not raise on purpose are named by their type. Never raises, whatever the exception does.
    """
    return _described(error, Redactor())


def _described(error: BaseException, redactor: Redactor) -> str:
    name = type(error).__name__
    text = error_text(error)
    if text.strip() in ("", name):
        return name
    return redactor.brief(text if isinstance(error, DeliveryError) else f"{name}: {text}", ERROR_LIMIT) or name


def _telling(value: str) -> Iterator[str]:
    """Yield the spellings of a secret, and of one that is a URL its path, which a receiver may quote."""
    if len(value) >= LEAST_SECRET:
        yield from {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value, safe="")}
    if not value.startswith(("http://", "https://")):
        return
    path = value.partition("://")[2].partition("/")[2]
    yield from (part for part in {path, *re.split(r"[/?&=]", path)} if len(part) >= LEAST_PART)


class RedactingFilter(logging.Filter):
    """A filter that takes secrets out of log records: the message, the traceback, the stack and what is in ``extra``.

    Put it on a handler. It changes the record itself, so handlers that come later see the clean one.

    Args:
        redactor: knows the secrets.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: every record passes, without secrets. One whose message cannot be made says so instead."""
        redact = self._redactor.redact
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - the arguments are foreign code; logging would print them as they are
            message = f"{record.msg!s} (its arguments cannot be shown: {type(error).__name__})"
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
    except Exception:  # noqa: BLE001 - an exception is foreign code
        return error_text(exc_info[1])
