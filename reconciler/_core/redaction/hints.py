"""Hints: the places of a string where a secret may be.

The patterns that recognize secrets would try every place. Hints are fixed strings, which Python finds at about a
gigabyte a second, whatever the text is. The patterns are then tried only at the hints.
"""

from __future__ import annotations

import re


class Hints:
    """Fixed strings, one of which occurs, in any case, wherever a pattern can match.

    Each character of a string is one byte in a search, so that places are the same.

    Args:
        hints: the strings, in ASCII and without ``?``.

    Attributes:
        texts: as given.
    """

    def __init__(self, *hints: str) -> None:
        self.texts = hints
        given = {hint.lower().encode() for hint in hints}
        self._hints = [hint for hint in given if not any(hint.startswith(other) for other in given - {hint})]

    def is_in(self, text: str) -> bool:
        """Return whether there is a hint in a string."""
        return any(map(text.encode("ascii", "replace").lower().__contains__, self._hints))

    def starts(self, text: str) -> list[int]:
        """Return the starts of the hints, in order."""
        folded = text.encode("ascii", "replace").lower()
        places = set()
        for hint in self._hints:
            place = folded.find(hint)
            while place >= 0:
                places.add(place)
                place = folded.find(hint, place + 1)
        return sorted(places)


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
