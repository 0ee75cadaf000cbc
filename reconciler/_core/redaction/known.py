"""The search for known secrets in text, as they are and encoded.

Base64 and hexadecimal digits of a longer text, such as ``user:password``, contain those of the secret in it: in base64
at three alignments, since three bytes are four characters.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from reconciler._core.redaction.names import PLACEHOLDER

MIN_ENCODED = 6
"""Minimum bytes of a secret that is found if it is encoded: 7 characters of base64, which no ordinary word has."""

_FEW = 16
"""Words up to which each is searched by itself; the time of the other search does not depend on their number."""

_url_safe = str.maketrans("+/", "-_")
_DIGIT = re.compile(r"[A-Za-z0-9+/_-]")
_REST = re.compile(r"[A-Za-z0-9+/_-]?={0,2}")
"""The last character of base64 and what fills it up."""

_AROUND = 3
"""The longest match of `_REST`."""

_HEX_MASKED = PLACEHOLDER.encode().hex()


class Word(NamedTuple):
    """What belongs to a word that is searched.

    Attributes:
        before: of base64, the characters before the word that belong to the same three bytes.
        after: of base64, the characters after it, one at most, with bits of it.
        mask: what replaces it; ``""`` for base64, where it depends on what is around it.
    """

    before: int = 0
    after: int = 0
    mask: str = PLACEHOLDER


Words = Mapping[str, Word]


def spellings(value: str) -> set[str]:
    """Return a value as it stands in text, JSON, a ``repr`` and a URL."""
    data = value.encode(errors="surrogatepass")
    quoted = json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), repr(data)[1:]
    return {value, *(each[1:-1] for each in quoted), quote(data, safe=""), quote_plus(data)}


def words_of(value: str) -> dict[str, Word]:
    """Return what text with a value contains: the value, its hexadecimal digits, or what base64 of any text has."""
    words = {value: Word()}
    data = value.encode(errors="surrogatepass")
    if len(data) < MIN_ENCODED:
        return words
    words |= {data.hex().upper(): Word(mask=_HEX_MASKED.upper()), data.hex(): Word(mask=_HEX_MASKED)}
    for shift in range(3):
        bits = 8 * (shift + len(data))
        before = (8 * shift + 5) // 6
        inner = base64.b64encode(bytes(shift) + data).decode()[before : bits // 6]
        for word in (inner, inner.translate(_url_safe), quote(inner, safe="")):
            words[word] = Word(before, int(bits % 6 > 0), "")
    return words


def with_places_replaced(text: str, places: Iterable[tuple[int, int, str]]) -> str:
    """Return text with other text at places: the start and the end of each, and what is there instead.

    A place that overlaps one before it stays.
    """
    out: list[str] = []
    done = 0
    for begin, end, other in places:
        if done <= begin:
            out += [text[done:begin], other]
            done = end
    return "".join([*out, text[done:]])


class WordSearch:
    """A search for words, whose time does not grow with their number once they are many.

    Args:
        words: the words.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self._head = min(map(len, words), default=0)
        self._lengths: dict[str, list[int]] = {}  # of the words that begin with so many characters, longest first
        for word in sorted(words, key=len, reverse=True):
            lengths = self._lengths.setdefault(word[: self._head], [])
            if lengths[-1:] != [len(word)]:
                lengths.append(len(word))

    def places(self, text: str) -> list[tuple[int, int, str]]:
        """Return the start, the end and the word of each place, in order; of places that overlap, one for all."""
        if len(self._words) <= min(_FEW, len(text)):
            found = ((begin, word) for word in self._words for begin in _occurrences(word, text))
            return joined(text, found, self._words)
        return joined(text, self._matches(text), self._words)

    def _matches(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the places of words, without those that lie within others and add nothing around them."""
        first = covered = 0
        for begin in range(len(text) - self._head + 1):
            for length in self._lengths.get(text[begin : begin + self._head], ()):
                if first < begin and begin + length + _AROUND <= covered:
                    break
                word = text[begin : begin + length]
                if word in self._words:
                    first = begin if covered <= begin else first
                    covered = max(covered, begin + length)
                    yield begin, word


def _occurrences(word: str, text: str) -> Iterator[int]:
    """Yield where a word begins; of places that overlap, only those that are needed to cover all of them."""
    begin = text.find(word)
    while begin >= 0:
        yield begin
        end = begin + len(word)
        overlapping = text.rfind(word, begin + 1, end + len(word) - 1)
        begin = overlapping if overlapping >= 0 else text.find(word, end)


def joined(text: str, found: Iterable[tuple[int, str]], words: Words) -> list[tuple[int, int, str]]:
    """Return the places of words with what belongs to them, in order; of places that overlap, one with the first word.

    Args:
        text: the text.
        found: the start and the word of each place.
        words: the words.
    """
    places: list[tuple[int, int, str]] = []
    for start, word in sorted(found, key=lambda each: (each[0], -len(each[1]))):
        before, after, _ = words[word]
        begin = start - 1 if before and start and _DIGIT.match(text, start - 1) else start
        rest = _REST.match(text, start + len(word)) if after else None
        end = start + len(word) if rest is None else rest.end()
        if places and begin < places[-1][1]:
            first, last, of = places[-1]
            places[-1] = min(first, begin), max(last, end), of
        else:
            places.append((begin, end, word))
    return places
