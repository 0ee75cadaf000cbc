r"""Redaction of secrets in texts, and of characters that could forge or hide text.

An HTTP library's error contains the URL, and the URL of an incoming webhook is a secret. Recognition by form is a
guess, so channels should still keep secrets out of their errors.

Unsafe characters must not reach a line that people read or programs split. Terminals obey control characters and escape
sequences. Besides ``\n``, programs end lines at vertical tabs, form feeds, U+0085, U+2028 and U+2029. Bidirectional
controls display text in another order than it is stored. Lone surrogates cannot be encoded.
"""

from __future__ import annotations

import bisect
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from reconciler._core.lru import LRU
from reconciler._core.redaction import PLACEHOLDER, is_secret_name, redact
from reconciler._core.redaction.known import Words, WordSearch, joined, spellings, with_places_replaced, words_of
from reconciler.errors import ConfigurationError, ReconcilerError, error_text, importing
from reconciler.meta.cycle import current_cycle

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
    r"""Return the text with each unsafe character replaced; ``\t`` and ``\n`` are kept, ``\r\n`` becomes ``\n``."""
    return _unsafe.sub(replacement, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return the text with line separators and tabs replaced by spaces."""
    return _line_ends.sub(" ", text).replace("\t", " ")


def visible_line(text: str) -> str:
    """Return the text as one line without unsafe characters."""
    return visible(one_line(text))


def shortened(text: str, limit: int) -> str:
    """Return the text with at most `limit` characters; a shortened one ends with ``…``."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def listed(names: Sequence[str], most: int) -> str:
    """Return the names, at most so many of them, separated by commas; ``none`` if there is none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def escaped(text: str) -> str:
    """Return JSON with unsafe characters in its strings escaped."""
    return _unsafe.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def encodable(text: str) -> str:
    """Return the text with each lone surrogate, which UTF-8 cannot encode, replaced by `REPLACEMENT`."""
    return _surrogates.sub(REPLACEMENT, text)


MIN_SECRET = 4
"""Minimum characters of a known secret; a shorter one would occur in ordinary words."""

MIN_PART = 8
"""Minimum characters of a part of a secret URL that counts as a secret by itself; shorter ones are words."""

_BLANKS = re.compile(r"[\s\u200b\u2060\ufeff]+")
"""Blanks that programs collapse, replace by one another, or drop from a line's display."""

_UNUSUAL = re.compile(r"[^\S ]|[\u200b\u2060\ufeff]|  ")


class KnownSecrets:
    """Known secrets in their usual spellings, also in base64 and in hexadecimal digits.

    Between words any blanks are equal to a single space.

    Args:
        values: the secrets.

    Attributes:
        values: the same.
    """

    def __init__(self, values: frozenset[str]) -> None:
        self.values = values
        plain = {found for value in values for found in _spellings(value)}
        words = {word: around for spelling in plain for word, around in words_of(spelling).items()}
        self._search = _search_for({_BLANKS.sub(" ", word): around for word, around in words.items()})

    def replaced(self, text: str) -> str:
        """Return the text with each secret replaced, and secrets that overlap by one placeholder."""
        plain, place = (text, int) if _UNUSUAL.search(text) is None else _with_single_spaces(text)
        found = ((place(begin), place(end), PLACEHOLDER) for begin, end, _ in self._search(plain))
        return with_places_replaced(text, found)


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


def _search_for(words: Words) -> Callable[[str], list[tuple[int, int, str]]]:
    """Return a search for words; see `WordSearch.places`."""
    if not words:
        return lambda _: []
    try:
        import ahocorasick  # type: ignore[import-not-found]
    except ImportError:  # a part of the extra `notification`; without it many words take several times as long
        return WordSearch(words).places
    automaton = ahocorasick.Automaton()
    for word in words:
        automaton.add_word(word, word)
    automaton.make_automaton()
    return lambda text: joined(text, ((end + 1 - len(word), word) for end, word in automaton.iter(text)), words)


def _spellings(value: str) -> Iterator[str]:
    """Yield the spellings of a secret. For a URL also its path and the path's parts, which a receiver may quote."""
    if len(value) >= MIN_SECRET and not (value.isalpha() and is_secret_name(value)):  # or `password=x` were not seen
        yield from spellings(value)
    if not value.startswith(("http://", "https://")):
        return
    path = value.partition("://")[2].partition("/")[2]
    yield from (part for part in {path, *re.split(r"[/?&=]", path)} if len(part) >= MIN_PART)


ERROR_LIMIT = 512
"""Maximum characters of an error that are stored. With 16 channels and 10 attempts each, errors then take less than a
quarter of the 1.5 MiB that etcd accepts for an object."""

SCAN_LIMIT = 65_536
"""Maximum characters of an error that are scanned for secrets by form; known secrets are replaced everywhere."""

TAIL = 256
"""Characters that are dropped from the end of a truncated error, because half a secret is not recognized."""

KEPT_NAMESPACES = 64
"""Namespaces whose secrets are kept ready for a search; those of the least recently used one are prepared again."""


class Redactor:
    """A filter that replaces known secrets and text that looks like a secret.

    The secrets of a namespace are replaced only in texts of that namespace.

    Args:
        secrets: returns the currently known secrets for all texts; called at each use, because secrets rotate.
        of_namespace: returns those for the texts of a namespace only; called at each use. Default: none.
        patterns: regular expressions (RE2) of further secrets. Of a pattern with a group, only the group is replaced.

    Raises:
        ConfigurationError: a pattern is invalid, or matches the empty text.
        MissingExtra: RE2 (the extra ``re2``) is not installed, and there are patterns.
    """

    def __init__(
        self,
        secrets: Callable[[], Collection[str]] = tuple,
        *,
        of_namespace: Callable[[str], Collection[str]] = lambda _: (),
        patterns: Iterable[str] = (),
    ) -> None:
        self._secrets = secrets
        self._of_namespace = of_namespace
        self._patterns = tuple(_user_pattern(pattern) for pattern in patterns)
        self._known: LRU[str, KnownSecrets] = LRU(KEPT_NAMESPACES)

    def redact(self, text: str, namespace: str = "") -> str:
        """Remove secrets from text of a namespace."""
        return redact(self.redact_known(text, namespace))

    def redact_known(self, text: str, namespace: str = "") -> str:
        """Remove known secrets from text of a namespace."""
        if secrets := self._secrets():
            text = self._known_to("", secrets).replaced(text)
        if namespace and (secrets := self._of_namespace(namespace)):
            text = self._known_to(namespace, secrets).replaced(text)
        for pattern in self._patterns:
            text = _without(pattern, text)
        return text

    def _known_to(self, namespace: str, secrets: Iterable[str]) -> KnownSecrets:
        values = frozenset(secrets)
        known = self._known.pop(namespace, None)  # another thread may redact as well
        if known is None or known.values != values:
            known = KnownSecrets(values)
        self._known[namespace] = known
        return known

    def brief(self, text: str, limit: int, namespace: str = "") -> str:
        """Return the text in one line, redacted first and then truncated to `limit` characters."""
        text = self.redact_known(text, namespace)
        clean = redact(text[:SCAN_LIMIT])
        if len(text) > SCAN_LIMIT:
            clean = clean[:-TAIL]
        return shortened(" ".join(visible(clean, " ").split()), limit)

    def redact_member(self, name: str, value: str, namespace: str = "") -> str:
        """Remove secrets from a value; if its name is that of a secret, only the placeholder is left."""
        return PLACEHOLDER if value and is_secret_name(name) else self.redact(value, namespace)

    def describe(self, error: BaseException, namespace: str = "") -> str:
        """Return the text of an error for a status: redacted first, then truncated to `ERROR_LIMIT` characters.

        Errors of other libraries start with their type. Never raises, whatever the exception does.
        """
        name, text = type(error).__name__, error_text(error)
        if text.strip() in ("", name):
            return name
        text = text if isinstance(error, ReconcilerError) else f"{name}: {text}"
        return self.brief(text, ERROR_LIMIT, namespace) or name


def _user_pattern(pattern: str) -> Any:
    with importing(extra="re2", purpose="a pattern of secrets", module="google-re2"):
        import re2  # type: ignore[import-untyped]
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        text = error.args[0] if error.args else ""
        reason = text.decode() if isinstance(text, bytes) else str(text)
        raise ConfigurationError(f"{pattern!r} is not a valid pattern of RE2: {reason}") from None
    if compiled.search("") is not None:
        raise ConfigurationError(f"the pattern {pattern!r} matches the empty text, so it would match everywhere")
    return compiled


def _without(pattern: Any, text: str) -> str:
    """Return the text with the matches of a pattern, or the first group of each, replaced."""
    spans = (found.span(1 if pattern.groups else 0) for found in pattern.finditer(encodable(text)))
    return with_places_replaced(text, ((begin, end, PLACEHOLDER) for begin, end in spans if 0 <= begin < end))


class RedactingFormatter(logging.Formatter):
    """A formatter that redacts what another one writes: the message, the traceback, the stack, and ``extra``.

    Args:
        formatter: the other one.
        redactor: the redactor.
    """

    def __init__(self, formatter: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._formatter = formatter
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Format a record. One that cannot be formatted is replaced by a note."""
        try:
            text = self._formatter.format(record)
        except Exception as error:  # noqa: BLE001 - arguments are user code; logging would print them unredacted
            text = f"{record.levelname} {record.name}: {record.msg!s} (cannot be formatted: {type(error).__name__})"
        return self._redactor.redact(text, _namespace_of(record))


def _namespace_of(record: logging.LogRecord) -> str:
    """Return the namespace of the reconcile that a record belongs to, by its ``extra`` or else by its context."""
    cycle = current_cycle.get()
    found = getattr(record, "object_namespace", None) or (cycle.request.namespace if cycle is not None else None)
    return found if isinstance(found, str) else ""
