"""The known secrets of a namespace, found in one pass whatever their number."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

from reconciler._core.redaction import PLACEHOLDER, is_secret_name
from reconciler.notification.redaction.text import encodable

__all__ = ["KnownSecrets"]

MIN_SECRET = 4
"""Minimum characters of a known secret; a shorter one would occur in ordinary words."""

MIN_PART = 8
"""Minimum characters of a part of a secret URL that counts as a secret by itself; shorter ones are words."""

_BLANKS = re.compile(r"[\s\u200b\u2060\ufeff]+")
"""Blanks that programs collapse, replace by one another, or drop from a line's display."""

_UNUSUAL = re.compile(r"[^\S ]|[\u200b\u2060\ufeff]|  ")


class KnownSecrets:
    """Known secrets in their usual spellings. Between words any blanks are equal to a single space.

    Args:
        values: the secrets.

    Attributes:
        values: the same.
    """

    def __init__(self, values: frozenset[str]) -> None:
        self.values = values
        self._search = _search_for({_BLANKS.sub(" ", found) for value in values for found in _spellings(value)})

    def replaced(self, text: str) -> str:
        """Return the text with each secret replaced, the longest at each place."""
        plain, place = (text, int) if _UNUSUAL.search(text) is None else _with_single_spaces(text)
        out: list[str] = []
        done = 0
        for begin, end in self._search(plain):
            out += [text[done : place(begin)], PLACEHOLDER]
            done = place(end)
        return "".join([*out, text[done:]])


def _with_single_spaces(text: str) -> tuple[str, Callable[[int], int]]:
    """Return the text with single spaces for its blanks, and what maps a place in it to one in the text."""
    parts: list[str] = []
    starts, shifts = [0], [0]  # from this place on, the text is this much further
    done = length = 0
    for found in _BLANKS.finditer(text):
        parts += [text[done : found.start()], " "]
        length += found.start() - done + 1
        done = found.end()
        starts.append(length)
        shifts.append(done - length)
    parts.append(text[done:])
    return "".join(parts), lambda place: place + shifts[bisect.bisect_right(starts, place) - 1]


def _search_for(words: set[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    """Return a search that yields the starts and ends of words: the longest at each place, none twice."""
    if not words:
        return lambda _: iter(())
    try:
        from ahocorasick_rs import AhoCorasick, MatchKind
    except ImportError:  # a part of the extra `notification`; without it the time grows with the number of words
        pattern = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
        return lambda text: (found.span() for found in pattern.finditer(text))
    search = AhoCorasick(map(encodable, words), matchkind=MatchKind.LeftmostLongest)
    return lambda text: ((begin, end) for _, begin, end in search.find_matches_as_indexes(encodable(text)))


def _spellings(value: str) -> Iterator[str]:
    """Yield the spellings of a secret. For a URL also its path and the path's parts, which a receiver may quote."""
    if len(value) >= MIN_SECRET and not (value.isalpha() and is_secret_name(value)):  # or `password=x` were not seen
        yield from {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value, safe="")}
    if not value.startswith(("http://", "https://")):
        return
    path = value.partition("://")[2].partition("/")[2]
    yield from (part for part in {path, *re.split(r"[/?&=]", path)} if len(part) >= MIN_PART)
