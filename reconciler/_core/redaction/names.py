"""Names of values, and whether such a value is a secret."""

from __future__ import annotations

import functools
import re
from typing import Literal

from reconciler._core.redaction.hints import Hints

__all__ = ["KEY_OWNERS", "NAME_HINTS", "Kind", "is_secret_name", "kind_of_name", "strong"]

Kind = Literal["secret", "countable", "header", "weak", "mixed"]
"""What a name says about its value.

``secret``: the value is a secret. ``countable``: a secret unless it is a number (``max_tokens: 4096``). ``header``: a
secret that extends to the end of the line (``Authorization``, ``Cookie``). ``weak``: a secret only in an unambiguous
position (``auth=``). ``mixed``: a secret only if it looks random (``key=``).
"""


_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ESCAPED_LETTER = re.compile(r"%(?:25)*+([0-9a-fA-F]{2})|\\{1,16}u00([0-9a-fA-F]{2})")

_SECRET_WORDS = (
    *("password", "passwd", "pwd", "passphrase", "passcode", "secret", "token", "credential", "signature"),
    *("apikey", "accesskey", "secretkey", "privatekey", "signingkey", "encryptionkey", "masterkey", "sharedkey"),
    *("accountkey", "authkey", "mnemonic", "sessionid", "sessid"),
)
_SECRET_PLURALS = tuple(f"{word}s" for word in _SECRET_WORDS)
_WHOLE_WORDS = frozenset({"sig", "otp", "totp", "jwt"})
_WEAK_WORDS = frozenset({"auth", "pass", "sid"})
_OTHER_KEYS = frozenset({"monkey", "monkeys", "turkey", "hockey", "whiskey", "donkey", "pubkey", "hotkey", "hotkeys"})
KEY_OWNERS = frozenset(
    [
        *("access", "account", "api", "auth", "client", "consumer", "deploy", "encryption", "hmac", "host"),
        *("integration", "license", "master", "private", "secret", "service", "session", "shared", "signing", "ssh"),
        *("storage", "subscription", "tls", "webhook"),
    ]
)
NAME_HINTS = Hints(
    *("passw", "pwd", "passphrase", "passcode", "secret", "token", "credential", "signature", "key", "mnemonic"),
    *("sessionid", "sessid", "sig", "otp", "jwt", "auth", "pass", "sid", "cookie"),
    *("%", "\\u00", "-u", "--proxy-user"),  # escaped letters, and options with a login
)
"""Every name that denotes a secret contains one of these."""

_DESCRIPTIONS = frozenset(
    [
        *("age", "algorithm", "algorithms", "attempts", "bucket", "budget", "count", "counts", "dir", "directory"),
        *("enabled", "endpoint", "error", "errors", "expired", "expires", "expiration", "expiry", "failures", "field"),
        *(
            "fields",
            "file",
            "fingerprint",
            "format",
            "hash",
            "hint",
            "in",
            "invalid",
            "len",
            "length",
            "limit",
            "limits",
            "manager",
            "max",
        ),
        *("maximum", "min", "minimum", "missing", "name", "names", "namespace", "path", "paths", "per", "policies"),
        *("policy", "provider", "rate", "ref", "refs", "remaining", "requests", "required", "requirements", "reset"),
        *("retries", "rotation", "rules", "size", "status", "store", "total", "totals", "ttl", "type", "types", "uri"),
        *("url", "usage", "used", "valid", "version", "webhook"),
    ]
)
"""Words after a secret word that turn the name into something else: ``token_count``, ``password policy``."""


def kind_of_name(name: str) -> Kind | None:
    """Return what a name says about its value, or None.

    A secret word must be a part of the name or its end: ``DB_PASSWORD``, ``clientSecret``, ``authtoken``, but not
    ``monkey`` or ``tokenizer``.
    """
    return _kind_of_short_name(name[-256:])


def is_secret_name(name: str) -> bool:
    """Return whether the value of this name is a secret, as for ``dbPassword``."""
    return kind_of_name(name) not in (None, "mixed")


@functools.lru_cache(maxsize=4096)
def _kind_of_short_name(name: str) -> Kind | None:
    if "%" in name or "\\" in name:
        name = _ESCAPED_LETTER.sub(lambda found: chr(int(found[1] or found[2], 16)), name)
    parts = [part.lower() for part in _PART.findall(name)]
    for index, part in enumerate(parts):
        kind = _kind_of_part(part, parts[index - 1] if index else "")
        if kind is not None and _DESCRIPTIONS.isdisjoint(parts[index + 1 :]):
            return kind
    return None


def _kind_of_part(part: str, before: str) -> Kind | None:
    if part.endswith(("authorization", "cookie", "cookies")):
        return "header"
    if part.endswith(_SECRET_WORDS) or part in _WHOLE_WORDS or (part == "key" and before in KEY_OWNERS):
        return "secret"
    if part.endswith(_SECRET_PLURALS) or (part == "keys" and before in KEY_OWNERS):
        return "countable"
    if part.endswith(("key", "keys")) and part not in _OTHER_KEYS and before != "public":
        return "mixed"
    return "weak" if part in _WEAK_WORDS else None


def strong(kind: Kind | None, quote: str, operator: str = "") -> Kind | None:
    """Return the kind in its context: a weak name is a secret if it is quoted or followed by an equals sign."""
    if kind != "weak":
        return kind
    return "countable" if quote or "=" in operator else None
