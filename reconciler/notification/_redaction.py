"""Take secrets out of texts that a channel's error brings along, and bound them.

An error of an HTTP library quotes the URL, and the URL of a webhook is its password. What is written to a status, a log
or an event goes through here first. Rules can only know forms, so a channel should still not put a secret into an error.
"""

from __future__ import annotations

import re

from reconciler.notification._errors import DeliveryError

__all__ = ["ERROR_LIMIT", "describe", "redact"]

ERROR_LIMIT = 512
"""Most characters of an error that are stored. 16 channels with 10 attempts each then stay under a quarter of the 1.5 MiB
that etcd takes for an object."""

_SCAN_LIMIT = 16_384
_PLACEHOLDER = "[REDACTED]"

_SECRET_WORD = r"(?:password|passwd|pwd|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?|signature)"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), _PLACEHOLDER),
    # The password, or a lone token, before the @ of a URL.
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,31}://[^\s:/@?#]{0,256}:)[^\s/@]{1,1024}@", re.I), rf"\1{_PLACEHOLDER}@"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,31}://)[^\s:/@?#]{1,1024}@", re.I), rf"\1{_PLACEHOLDER}@"),
    # Incoming-webhook URLs carry their secret in the path.
    (re.compile(r"(https?://[^\s/\"']{1,256}/(?:services|api/webhooks|webhook[a-z0-9]*|hooks?)/)[^\s\"'<>]+", re.I), rf"\1{_PLACEHOLDER}"),
    (re.compile(r"\b(authorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?)(?:(?:bearer|basic|token|digest)\s{1,8})?[^\s\"',;]+", re.I), rf"\1{_PLACEHOLDER}"),
    (re.compile(r"\b(bearer|basic)\s{1,8}[A-Za-z0-9+/=._~-]{6,}", re.I), rf"\1 {_PLACEHOLDER}"),
    (re.compile(rf"([\w.-]{{0,64}}{_SECRET_WORD}[\w-]{{0,64}}[\"']?\s{{0,8}}[:=]\s{{0,8}})(?:\"[^\"]*\"?|'[^']*'?|[^\s\"',;&]+)", re.I), rf"\1{_PLACEHOLDER}"),
    (re.compile(r"\b(?:ghp|gho|ghs|ghu|github_pat|glpat|xox[abeoprs]|sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"), _PLACEHOLDER),
    (re.compile(r"\bAKIA[A-Z0-9]{16}\b"), _PLACEHOLDER),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), _PLACEHOLDER),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")


def redact(text: str) -> str:
    """Replace what has the form of a secret: passwords, tokens, keys, secret URLs."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def describe(error: BaseException) -> str:
    """Return an error as a text for a status: redacted first, then cut to `ERROR_LIMIT` characters.

    Errors that a channel did not raise on purpose are named by their type. Never raises, whatever the exception's own methods do.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the text of a foreign exception is foreign code
        text = ""
    text = redact(_CONTROL.sub(" ", text[:_SCAN_LIMIT])).strip()
    if not isinstance(error, DeliveryError) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= ERROR_LIMIT else text[: ERROR_LIMIT - 1] + "…"
