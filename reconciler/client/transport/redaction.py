"""Quotations of addresses and of foreign output, without passwords and tokens."""

from __future__ import annotations

import re

__all__ = ["excerpt", "hide_secrets", "is_secret_name", "without_password"]

_LONGEST = 200
_HIDDEN = "***"

# What precedes one of these in a name is not matched: that would take time at each character of a long word.
_NAMES = (
    r"(?:token|secret|passw|passphrase|pwd|authorization|api[_-]?key|credential|private[_-]?key|keydata)"
    r"[\w-]{0,40}"
)
_RULES = (
    # PEM blocks, also in one line
    (re.compile(r"-----BEGIN.*?(?:-----END [^-]*-----|\Z)", re.DOTALL), _HIDDEN),
    # passwords in addresses
    (re.compile(r"(?<=://)[^\s/]*@"), f"{_HIDDEN}@"),
    # Authorization: Bearer …, and the scheme alone
    (re.compile(r"\b(bearer|basic|negotiate)([\s:=\"'\\]+)[\w.~+/=:-]+", re.IGNORECASE), rf"\1\2{_HIDDEN}"),
    # "token": "…", also inside quoted JSON
    (
        re.compile(rf"({_NAMES}\\?[\"']?\s*[:=]\s*)(\\?[\"'])(.*?)(\\?[\"']|\Z)", re.IGNORECASE | re.DOTALL),
        rf"\1\2{_HIDDEN}\4",
    ),
    # token=…, token: …, --token …
    (
        re.compile(rf"({_NAMES}\s*[:=]\s*)(?![\"'\\*])(?!(?:bearer|basic)\b)[^\s,;&}}]+", re.IGNORECASE),
        rf"\1{_HIDDEN}",
    ),
    # also as two arguments in a list: "--token", "…"
    (
        re.compile(rf"(--[\w-]{{0,40}}?{_NAMES}(?:\\?[\"'],\s*\\?[\"']|\s+))(?!\*\*\*)[^\s\"'\\]+", re.IGNORECASE),
        rf"\1{_HIDDEN}",
    ),
    # JSON Web Tokens
    (re.compile(r"\beyJ[\w.=-]+"), _HIDDEN),
)

_LOOKS_RANDOM = re.compile(r"(?<![\w/.-])(?=[\w+=-]{0,200}\d)(?=[\w+=-]{0,200}[A-Za-z])[\w+=-]{20,}")
"""Other text that may be a secret: long, with letters and digits, and not a path. Names of pods look like that, too."""

_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|pwd|authorization|(?:api|access|private|signing)[_-]?key|keydata|credential|cookie"
    r"|dsn|connection[_-]?string|(?:^|[_=.-])(?:pass|auth|key)(?:$|[_.-])",
    re.IGNORECASE,
)


def excerpt(text: str) -> str:
    """Return the beginning of a foreign program's output, in one line, with possible secrets hidden."""
    text = _LOOKS_RANDOM.sub(_HIDDEN, hide_secrets(text[: 10 * _LONGEST]))
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:_LONGEST]


def hide_secrets(text: str) -> str:
    """Return a text without passwords in addresses, keys, tokens, and values of names such as ``password``."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def is_secret_name(name: str) -> bool:
    """Return whether a name is one of those that secrets have, such as ``"DB_PASSWORD"`` or ``"clientSecret"``."""
    return _SECRET_NAME.search(name) is not None


def without_password(address: str) -> str:
    """Return an address without user, password, path and query, for messages."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    host = re.split(r"[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}{mark}{host}"[:_LONGEST]
