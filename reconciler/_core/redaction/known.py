"""The search for known secrets in text, as they are and encoded.

Base64 and hexadecimal digits of a longer text, such as ``user:password``, contain those of the secret in it: in base64
at three alignments, since three bytes are four characters.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

MIN_ENCODED = 6
"""Minimum bytes of a secret that is found if it is encoded: 7 characters of base64, which no ordinary word has."""

_FEW = 256
"""Words up to which each is searched by itself; the time of the other search does not depend on their number."""

_url_safe = str.maketrans("+/", "-_")
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/-_")
_REST = re.compile(r"[A-Za-z0-9+/_-]={0,2}")
"""The last character of base64 and what fills it up."""

Words = Mapping[str, tuple[int, int]]
"""Words that are searched. Those in base64 have a number of characters before each that belong to the same three bytes,
and of characters after it, one at most, with bits of it."""


def encoded_base64(value: str) -> dict[str, tuple[int, int]]:
    """Return what base64 of any text with a value contains, in both alphabets, and in a URL."""
    data = value.encode(errors="surrogatepass")
    found: dict[str, tuple[int, int]] = {}
    for shift in range(3) if len(data) >= MIN_ENCODED else ():
        bits = 8 * (shift + len(data))
        inner = base64.b64encode(bytes(shift) + data).decode()[(8 * shift + 5) // 6 : bits // 6]
        spellings = inner, inner.translate(_url_safe), quote(inner, safe="")
        found |= dict.fromkeys(spellings, ((8 * shift + 5) // 6, int(bits % 6 > 0)))
    return found


def encoded_hex(value: str) -> dict[str, tuple[int, int]]:
    """Return the hexadecimal digits of a value."""
    digits = value.encode(errors="surrogatepass").hex()
    return dict.fromkeys((digits, digits.upper()), (0, 0)) if len(digits) >= 2 * MIN_ENCODED else {}


class WordSearch:
    """A search for words, whose time does not grow with their number once they are many.

    Args:
        words: the words.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self._head = min(map(len, words), default=0)
        self._lengths: dict[str, set[int]] = {}  # of the words that begin with so many characters
        for word in words:
            self._lengths.setdefault(word[: self._head], set()).add(len(word))

    def places(self, text: str) -> list[tuple[int, int, str]]:
        """Return the start, the end and the word of each place, in order; of places that overlap, one for all."""
        if len(self._words) <= min(_FEW, len(text)):
            found = ((begin, word) for word in self._words for begin in _occurrences(word, text))
            return joined(text, found, self._words)
        head, lengths = self._head, self._lengths
        begins = [begin for begin in range(len(text) - head + 1) if text[begin : begin + head] in lengths]
        spans = ((begin, begin + length) for begin in begins for length in lengths[text[begin : begin + head]])
        found = ((begin, text[begin:end]) for begin, end in spans if text[begin:end] in self._words)
        return joined(text, found, self._words)


def _occurrences(word: str, text: str) -> Iterator[int]:
    begin = text.find(word)
    while begin >= 0:
        yield begin
        begin = text.find(word, begin + 1)


def joined(text: str, found: Iterable[tuple[int, str]], words: Words) -> list[tuple[int, int, str]]:
    """Return the places of words with what belongs to them, in order; of places that overlap, one with the first word.

    Args:
        text: the text.
        found: the start and the word of each place.
        words: the words.
    """
    places: list[tuple[int, int, str]] = []
    for start, word in sorted(found, key=lambda each: (each[0], -len(each[1]))):
        before, after = words[word]
        begin = start - 1 if before and start and text[start - 1] in _BASE64 else start
        rest = _REST.match(text, start + len(word)) if after else None
        end = start + len(word) if rest is None else rest.end()
        if places and begin < places[-1][1]:
            first, last, of = places[-1]
            places[-1] = min(first, begin), max(last, end), of
        else:
            places.append((begin, end, word))
    return places
