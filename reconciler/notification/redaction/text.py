r"""The placeholder, and quotation marks with their backslashes.

Characters that a text must not bring into a line that a person reads, or a program splits.

A terminal obeys control characters and escape sequences. Programs end a line at more of them than ``\n``: at vertical
tabs, form feeds, U+0085, U+2028 and U+2029. Bidirectional controls show a text in another order than it has. Lone
surrogates cannot be encoded.

"""

from __future__ import annotations

import re

__all__ = [
    "PLACEHOLDER",
    "REPLACEMENT",
    "backslashes_before",
    "closing_quote",
    "encodable",
    "escaped",
    "one_line",
    "visible",
]


_CONTINUED = re.compile(r"'\\{1,16}''|''")

PLACEHOLDER = "[REDACTED]"
"""What stands in place of a secret."""


def closing_quote(text: str, begin: int, depth: int, sign: str) -> int:
    """Return where a quotation ends whose marks have `depth` backslashes before them; the text's end if it does not.

    A mark with fewer backslashes ends the quotation around it, and so this one too. More of them are an escaped mark,
    unless they are whole escaped backslashes and the mark's own.
    """
    position = begin
    while (found := text.find(sign, position)) >= 0:
        run = backslashes_before(text, found, begin)
        if run < depth:
            return found - run
        if (run - depth) % (2 * (depth + 1)) == 0:
            if sign == "'" and depth == 0 and (more := _continued(text, found)):
                position = found + more
                continue
            return found - depth
        position = found + 1
    return len(text)


def _continued(text: str, position: int) -> int:
    r"""Return the length of what continues a quotation behind its mark: ``''`` in YAML and SQL, ``'\''`` in a shell."""
    found = _CONTINUED.match(text, position)
    return len(found.group()) if found else 0


def backslashes_before(text: str, position: int, begin: int) -> int:
    """Return the number of backslashes right before a position, those before `begin` not counted."""
    count = position
    while count > begin and text[count - 1] == "\\":
        count -= 1
    return position - count


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
