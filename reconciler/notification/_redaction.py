"""Take secrets out of texts that a channel's error brings along, and bound them.

An error of an HTTP library quotes the URL, and the URL of a webhook is its password. What is written to a status, a log
or an event goes through here first. Rules only know forms, so a channel should still put no secret into an error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator

from reconciler.notification._errors import DeliveryError

__all__ = ["ERROR_LIMIT", "RedactingFilter", "Redactor", "describe", "redact"]

ERROR_LIMIT = 512
"""Most characters of an error that are stored. With 16 channels and 10 attempts each, errors then take less than a
quarter of the 1.5 MiB that etcd takes for an object."""

LEAST_SECRET = 4
"""Fewest characters of a known secret that is replaced: a shorter one would be found in every other word."""

LEAST_PART = 8
"""Fewest characters of a part of a secret URL that is taken for a secret by itself: shorter ones are words."""

_SCAN_LIMIT = 16_384
_PLACEHOLDER = "[REDACTED]"

_WORDS = "password|passwd|pwd|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?|signature"
_KEY = rf"[\w.-]{{0,64}}(?:{_WORDS})[\w-]{{0,64}}"
_VALUE = r"(?:\"[^\"]*\"?|'[^']*'?|[^\s\"',;&]+)"
_SCHEME = r"\b[a-z][a-z0-9+.-]{0,31}://"

# Group 1 stays. The order matters: what contains other secrets goes first. Repetitions are bounded where the text
# before them could match too, so that a hostile text costs no more than a long one.
_RULES = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"()-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)",
        # A password, or a lone token, before the @ of a URL.
        rf"({_SCHEME}[^\s:/@?#]{{0,256}}:)[^\s/@]{{1,1024}}(?=@)",
        rf"({_SCHEME})[^\s:/@?#]{{1,1024}}(?=@)",
        # URLs of incoming webhooks carry their secret in the path.
        r"(https?://[^\s/\"']{1,256}/(?:services|api/webhooks|webhook[a-z0-9]{0,8}|hooks?)/)[^\s\"'<>]+",
        r"(\bauthorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?)(?:(?:bearer|basic|token|digest)\s{1,8})?[^\s\"',;]+",
        # With a capital or a digit, so that "basic authentication" stays.
        r"(\b(?:bearer|basic)\s{1,8})(?=(?-i:\S{0,64}[A-Z0-9=]))[a-z0-9+/=._~-]{6,}",
        rf"(\b{_KEY}[\"']?\s{{0,8}}[:=]\s{{0,8}}){_VALUE}",
        # Tokens that are known by their beginning: GitHub, GitLab, Slack, Stripe and others, AWS, JWT.
        r"()\b(?:gh[posu]|github_pat|glpat|xox[abeoprs]|sk|pk|rk)[-_][a-z0-9_-]{16,}",
        r"()\bAKIA[A-Z0-9]{16}\b",
        r"()\beyJ[a-z0-9_-]{8,}\.[a-z0-9_-]{8,}\.[a-z0-9_-]*",
    )
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")


def redact(text: str) -> str:
    """Replace what has the form of a secret: passwords, tokens, keys, secret URLs."""
    for rule in _RULES:
        text = rule.sub(rf"\1{_PLACEHOLDER}", text)
    return text


class Redactor:
    """Take out what has the form of a secret, and the secrets that are known, whatever their form.

    Args:
        secrets: returns the secret values that are known at this moment; asked at each use, since they rotate.
    """

    def __init__(self, secrets: Callable[[], Iterable[str]] = tuple) -> None:
        self._secrets = secrets

    def redact(self, text: str) -> str:
        """Return the text without secrets. The longest known value goes first, as one may contain another."""
        known = {part for value in self._secrets() for part in _telling(value)}
        for secret in sorted(known, key=len, reverse=True):
            text = text.replace(secret, _PLACEHOLDER)
        return redact(text)

    def describe(self, error: BaseException) -> str:
        """Return an error as a text for a status; see `describe`."""
        return describe(error, self.redact)


def _telling(value: str) -> Iterator[str]:
    """Yield a secret, and of one that is a URL what tells it as well: a receiver may quote its path."""
    if len(value) >= LEAST_SECRET:
        yield value
    if not value.startswith(("http://", "https://")):
        return
    path = value.partition("://")[2].partition("/")[2]
    yield from (part for part in {path, *re.split(r"[/?&=]", path)} if len(part) >= LEAST_PART)


class RedactingFilter(logging.Filter):
    """Take known secrets out of log lines, as a second net: put it on a handler.

    Args:
        redactor: knows the secrets.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, its message without secrets; a traceback goes with its own text cleaned."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            return True  # the handler reports what is wrong with it
        clean = self._redactor.redact(message)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._redactor.redact(record.exc_text)
        return True


def describe(error: BaseException, redact: Callable[[str], str] = redact) -> str:
    """Return an error as a text for a status: redacted first, then cut to `ERROR_LIMIT` characters.

    Errors that a channel did not raise on purpose are named by their type. Never raises, whatever the exception does.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the text of a foreign exception is foreign code
        text = ""
    text = redact(_CONTROL.sub(" ", text[:_SCAN_LIMIT])).strip()
    if not isinstance(error, DeliveryError) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= ERROR_LIMIT else text[: ERROR_LIMIT - 1] + "…"
