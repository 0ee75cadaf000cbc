"""The placeholder, and quotation marks with their backslashes."""

from __future__ import annotations

import re

__all__ = ["PLACEHOLDER", "backslashes_before", "closing_quote"]

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
