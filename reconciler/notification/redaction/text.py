r"""Unsafe characters, and short forms.

Unsafe characters must not reach a line that people read or programs split. Terminals obey control characters and escape
sequences. Besides ``\n``, programs end lines at vertical tabs, form feeds, U+0085, U+2028 and U+2029. Bidirectional
controls display text in another order than it is stored. Lone surrogates cannot be encoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "REPLACEMENT",
    "encodable",
    "escaped",
    "listed",
    "one_line",
    "shortened",
    "visible",
    "visible_line",
]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_UNSAFE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    r"\u2028\u2029"  # line and paragraph separator
    r"\ufeff\ufff9-\ufffb\ud800-\udfff"
)
_unsafe = re.compile(f"[{_UNSAFE}]")
_surrogates = re.compile(r"[\ud800-\udfff]")
_line_ends = re.compile(r"\r\n?|[\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def visible(text: str, replacement: str = REPLACEMENT) -> str:
    r"""Return the text with each unsafe character replaced; ``\t`` and ``\n`` are kept, ``\r\n`` becomes ``\n``."""
    return _unsafe.sub(replacement, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return the text with line separators and tabs replaced by spaces."""
    return _line_ends.sub(" ", text).replace("\t", " ")


def visible_line(text: str) -> str:
    """Return the text as one line without unsafe characters."""
    return visible(one_line(text))


def shortened(text: str, limit: int) -> str:
    """Return the text with at most `limit` characters; a shortened one ends with ``…``."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def listed(names: Sequence[str], most: int) -> str:
    """Return the names, at most so many of them, separated by commas; ``none`` if there is none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def escaped(text: str) -> str:
    """Return JSON with unsafe characters in its strings escaped."""
    return _unsafe.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def encodable(text: str) -> str:
    """Return the text with each lone surrogate, which UTF-8 cannot encode, replaced by `REPLACEMENT`."""
    return _surrogates.sub(REPLACEMENT, text)
