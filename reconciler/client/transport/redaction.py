"""Quotations of addresses and of foreign output, without passwords and tokens."""

from __future__ import annotations

import re

from reconciler._core.redaction import PLACEHOLDER, redact

__all__ = ["excerpt", "without_password"]

_LONGEST = 200

_LOOKS_RANDOM = re.compile(r"(?<![\w/.+=-])(?=[\w+=-]{0,200}\d)(?=[\w+=-]{0,200}[A-Za-z])[\w+=-]{20,}")
"""Other text that may be a secret: long, with letters and digits, and not a path. Names of pods look like that, too."""


def excerpt(text: str) -> str:
    """Return the beginning of a foreign program's output, in one line, with possible secrets hidden."""
    text = _LOOKS_RANDOM.sub(PLACEHOLDER, redact(text[: 10 * _LONGEST]))
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:_LONGEST]


def without_password(address: str) -> str:
    """Return an address without user, password, path and query, for messages."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    host = re.split(r"[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}{mark}{host}"[:_LONGEST]
