"""Redaction in one namespace: the known secrets, and what looks like a secret.

An HTTP library's error contains the URL, and the URL of an incoming webhook is a secret. Recognition by form is a
guess, so channels should still keep secrets out of their errors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from reconciler._core.cycle import current_cycle
from reconciler._core.lru import LRU
from reconciler._core.redaction import PLACEHOLDER, is_secret_name, redact
from reconciler.errors import ConfigurationError, MissingExtra, error_text
from reconciler.notification.errors import DeliveryError
from reconciler.notification.redaction.known import KnownSecrets
from reconciler.notification.redaction.text import encodable, shortened, visible

__all__ = [
    "ERROR_LIMIT",
    "RedactingFilter",
    "Redactor",
]

ERROR_LIMIT = 512
"""Maximum characters of an error that are stored. With 16 channels and 10 attempts each, errors then take less than a
quarter of the 1.5 MiB that etcd accepts for an object."""

SCAN_LIMIT = 65_536
"""Maximum characters of an error that are scanned for secrets by form; known secrets are replaced everywhere."""

TAIL = 256
"""Characters that are dropped from the end of a truncated error, because half a secret is not recognized."""

KEPT_NAMESPACES = 64
"""Namespaces whose secrets are kept ready for a search; those of the least recently used one are prepared again."""


class Redactor:
    """A filter that replaces known secrets and text that looks like a secret.

    The secrets of a namespace are replaced only in texts of that namespace.

    Args:
        secrets: returns the currently known secrets for all texts; called at each use, because secrets rotate.
        of_namespace: returns those for the texts of a namespace only; called at each use. Default: none.
        patterns: regular expressions (RE2) of further secrets. Of a pattern with a group, only the group is replaced.

    Raises:
        ConfigurationError: a pattern is invalid, or matches the empty text.
        MissingExtra: RE2 is not installed, and there are patterns.
    """

    def __init__(
        self,
        secrets: Callable[[], Iterable[str]] = tuple,
        *,
        of_namespace: Callable[[str], Iterable[str]] = lambda _: (),
        patterns: Iterable[str] = (),
    ) -> None:
        self._secrets = secrets
        self._of_namespace = of_namespace
        self._patterns = tuple(_user_pattern(pattern) for pattern in patterns)
        self._known: LRU[str, KnownSecrets] = LRU(KEPT_NAMESPACES)

    def redact(self, text: str, namespace: str = "") -> str:
        """Return text of a namespace without secrets."""
        return redact(self.redact_known(text, namespace))

    def redact_known(self, text: str, namespace: str = "") -> str:
        """Return text of a namespace without known secrets."""
        text = self._known_to("", self._secrets()).replaced(text)
        if namespace:
            text = self._known_to(namespace, self._of_namespace(namespace)).replaced(text)
        for pattern in self._patterns:
            text = _without(pattern, text)
        return text

    def _known_to(self, namespace: str, secrets: Iterable[str]) -> KnownSecrets:
        values = frozenset(secrets)
        known = self._known.get(namespace)
        if known is None or known.values != values:
            known = KnownSecrets(values)
        self._known[namespace] = known
        return known

    def brief(self, text: str, limit: int, namespace: str = "") -> str:
        """Return the text in one line, redacted first and then truncated to `limit` characters."""
        text = self.redact_known(text, namespace)
        clean = redact(text[:SCAN_LIMIT])
        if len(text) > SCAN_LIMIT:
            clean = clean[:-TAIL]
        return shortened(" ".join(visible(clean, " ").split()), limit)

    def redact_member(self, name: str, value: str, namespace: str = "") -> str:
        """Return a value without secrets; only the placeholder if its name is that of a secret."""
        return PLACEHOLDER if value and is_secret_name(name) else self.redact(value, namespace)

    def describe(self, error: BaseException, namespace: str = "") -> str:
        """Return the text of an error for a status: redacted first, then truncated to `ERROR_LIMIT` characters.

        Errors other than `DeliveryError` start with their type. Never raises, whatever the exception does.
        """
        name = type(error).__name__
        text = error_text(error)
        if text.strip() in ("", name):
            return name
        return (
            self.brief(text if isinstance(error, DeliveryError) else f"{name}: {text}", ERROR_LIMIT, namespace) or name
        )


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
        namespace = _namespace_of(record)

        def redact(text: str) -> str:
            return self._redactor.redact(text, namespace)

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
                setattr(record, name, self._redactor.redact_member(name, value, namespace))
        return True


def _namespace_of(record: logging.LogRecord) -> str:
    """Return the namespace of the reconcile that a record belongs to, by its ``extra`` or else by its context."""
    cycle = current_cycle.get()
    found = getattr(record, "object_namespace", None) or (cycle.request.namespace if cycle is not None else None)
    return found if isinstance(found, str) else ""


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _traceback(exc_info: tuple[type[BaseException], BaseException, object]) -> str:
    try:
        return logging.Formatter().formatException(exc_info)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - exceptions are user code
        return error_text(exc_info[1])
