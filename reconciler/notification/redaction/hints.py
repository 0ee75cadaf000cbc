"""Hints: the places of a string where a secret may be, found in one fast pass.

The patterns that recognize secrets are Python's, and would try every place. Hints are simple alternatives, which RE2
finds at about a gigabyte a second. The patterns are then tried only at the hints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

__all__ = ["Hints", "any_of"]


class _Pattern(Protocol):
    def search(self, text: bytes, /) -> Any: ...

    def finditer(self, text: bytes, /) -> Iterator[Any]: ...


class Hints:
    """Alternatives, one of which occurs wherever a pattern can match.

    Args:
        alternatives: regular expressions in the common subset of RE2 and Python.
        ignore_case: whether letters match in any case. Default False.
    """

    def __init__(self, *alternatives: str, ignore_case: bool = False) -> None:
        self.source = f"(?i:{'|'.join(alternatives)})" if ignore_case else f"(?:{'|'.join(alternatives)})"
        self._pattern = _compiled(self.source)

    def is_in(self, text: str) -> bool:
        """Return whether there is a hint in a string."""
        return self._pattern.search(_searchable(text)) is not None

    def starts(self, text: str) -> Iterator[int]:
        """Yield the starts of the hints, in order."""
        return (found.start() for found in self._pattern.finditer(_searchable(text)))


def _searchable(text: str) -> bytes:
    """Return the text with one byte for each character, so that places are the same. No hint contains ``?``."""
    return text.encode("ascii", "replace")


def any_of(*hints: Hints) -> Hints:
    """Return hints that are in a string if any of these is."""
    return Hints(*(each.source for each in hints))


def _compiled(source: str) -> _Pattern:
    try:
        import re2  # type: ignore[import-untyped]
    except ImportError:  # a part of the extra `notification`; without it this is only slower
        return re.compile(source.encode())
    pattern: _Pattern = re2.compile(source.encode())
    return pattern
