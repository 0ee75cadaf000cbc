"""Hints: the places of a string where a secret may be.

The patterns that recognize secrets would try every place. Hints are fixed strings, which Python finds at about a
gigabyte a second, whatever the text is. The patterns are then tried only at the hints.
"""

from __future__ import annotations

__all__ = ["Hints"]


class Hints:
    """Fixed strings, one of which occurs, in any case, wherever a pattern can match.

    Args:
        hints: the strings, in ASCII.
    """

    def __init__(self, *hints: str) -> None:
        given = {hint.lower().encode() for hint in hints}
        self._hints = [hint for hint in given if not any(hint.startswith(other) for other in given - {hint})]

    def is_in(self, text: str) -> bool:
        """Return whether there is a hint in a string."""
        return any(map(_folded(text).__contains__, self._hints))

    def starts(self, text: str) -> list[int]:
        """Return the starts of the hints, in order."""
        folded = _folded(text)
        places = set()
        for hint in self._hints:
            place = folded.find(hint)
            while place >= 0:
                places.add(place)
                place = folded.find(hint, place + 1)
        return sorted(places)


def _folded(text: str) -> bytes:
    """Return the text with one byte for each character, so that places are the same. No hint contains ``?``."""
    return text.encode("ascii", "replace").lower()
