r"""Characters that a text must not bring into a line that a person reads, or a program splits.

A terminal obeys control characters and escape sequences. Programs end a line at more of them than ``\n``: at vertical
tabs, form feeds, U+0085, U+2028 and U+2029. Bidirectional controls show a text in another order than it has. Lone
surrogates cannot be encoded.
"""

from __future__ import annotations

import re

__all__ = ["REPLACEMENT", "encodable", "escaped", "one_line", "visible"]

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
    r"""Return the text with a replacement for each unsafe character; ``\t`` and ``\n`` stay, ``\r\n`` is ``\n``."""
    return _unsafe.sub(replacement, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return the text with a space for every character that ends a line somewhere, and for tabs."""
    return _line_ends.sub(" ", text).replace("\t", " ")


def escaped(text: str) -> str:
    """Return JSON with escapes for the unsafe characters in its strings; it means the same."""
    return _unsafe.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def encodable(text: str) -> str:
    """Return the text with `REPLACEMENT` for each lone surrogate, which UTF-8 does not have."""
    return _surrogates.sub(REPLACEMENT, text)
