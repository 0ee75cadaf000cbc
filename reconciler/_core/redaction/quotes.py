"""The placeholder of a secret, and quotation marks with backslashes before them."""

from __future__ import annotations

import re

__all__ = ["PLACEHOLDER", "backslashes_before", "closing_quote"]

_CONTINUED = re.compile(r"'\\{1,16}''|''")

PLACEHOLDER = "[REDACTED]"
"""The text that replaces a secret."""


def closing_quote(text: str, begin: int, depth: int, sign: str) -> int:
    """Return the end of a quotation whose marks have `depth` backslashes before them; the end of the text if unclosed.

    A mark with fewer backslashes ends the surrounding quotation, and so this one too. A mark with more backslashes is
    escaped, unless they are complete escaped backslashes plus its own.
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
    r"""Return the length of an escaped quote that continues a quotation: ``''`` in YAML and SQL, ``'\''`` in shells."""
    found = _CONTINUED.match(text, position)
    return len(found.group()) if found else 0


def backslashes_before(text: str, position: int, begin: int) -> int:
    """Return the number of backslashes right before a position and not before `begin`."""
    count = position
    while count > begin and text[count - 1] == "\\":
        count -= 1
    return position - count
