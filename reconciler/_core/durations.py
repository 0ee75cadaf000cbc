"""Durations as callers give them: seconds, a timedelta, or text such as ``"30s"`` and ``"1h30m"``."""

from __future__ import annotations

import math
import re
import reprlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from reconciler.errors import ConfigurationError

DurationLike = float | timedelta | str
"""Seconds, a timedelta, or a string that `parse_duration` reads."""

GO_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
"""The units of Go's durations."""
_NANOSECONDS = GO_NANOSECONDS | {"d": 86400 * 10**9, "w": 7 * 86400 * 10**9}
_GO = r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+"
_WORDS = r"[0-9]+ *(?:nano|micro|milli|sec|min|hr|hour|d|day|w|wk|week)[a-z]*"
DURATION_PATTERN = f"^(?:{_GO}|[+-]?0|{_WORDS})$"
_PART = re.compile(r"([0-9.]+) *([a-zµμ]+)")
# By the first letters of a unit; the longer ones first, since "m" is a minute.
_UNITS = {"nano": "ns", "micro": "us", "milli": "ms", "sec": "s", "min": "m", "h": "h", "d": "d", "w": "w"}
LONGEST_DURATION = 100  # characters; Fractions of more digits take long


def parse_duration(text: str) -> timedelta:
    """Parse a duration: ``"1h30m"``, ``"1.5s"``, ``"-300ms"``, ``"0"``, ``"3 days"``.

    These are Go's durations, and whole numbers of one unit in words, days and weeks among them: what the API server
    accepts under ``format: duration``, except texts around it. Rounded to microseconds.

    Raises:
        ValueError: the string is not such a duration, or is longer than a timedelta can be.
    """
    from fractions import Fraction  # loads decimal, which a batcher does not need

    if len(text) > LONGEST_DURATION or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(
            f"{text[:40]!r} is not a valid duration: write numbers with units, such as '1h30m', '90s', '3 days'"
        )
    total = sum((Fraction(number) * _nanoseconds(unit) for number, unit in _PART.findall(text)), Fraction(0)) / 1000
    try:
        return timedelta(microseconds=round(-total if text.startswith("-") else total))
    except OverflowError:
        raise ValueError(f"{text[:40]!r} is too long for a duration") from None


def _nanoseconds(unit: str) -> int:
    if unit not in _NANOSECONDS:
        unit = next(short for word, short in _UNITS.items() if unit.startswith(word))
    return _NANOSECONDS[unit]


class InvalidDuration(ConfigurationError, ValueError):
    """A value is not a duration, or not one that can be used where it was given."""


def seconds_of(name: str, duration: object, *, zero: bool = False, signed: bool = False) -> float:
    """Return a duration in seconds, after checking it.

    Args:
        name: what the error message begins with.
        duration: what was given.
        zero: whether 0 is valid too.
        signed: whether 0 and negative durations are valid.

    Raises:
        InvalidDuration: it is not a duration, is not finite, or is not above 0.
    """
    given: Any = duration
    try:
        if isinstance(given, str):
            given = parse_duration(given)
        seconds = given.total_seconds() if isinstance(given, timedelta) else float(given)
    except ValueError as error:
        if isinstance(duration, str):
            raise InvalidDuration(f"{name}: {error}") from None
        seconds = math.nan
    except (TypeError, OverflowError):
        seconds = math.nan
    in_range = signed or seconds > 0 or (zero and not seconds)
    if in_range and math.isfinite(seconds) and not isinstance(given, (bool, bytes)):
        return seconds
    least = "" if signed else " of 0 or more" if zero else " above 0"
    raise InvalidDuration(
        f"{name} must be seconds{least}, a timedelta or a text such as '30s', not {reprlib.repr(duration)}"
    )


def optional_seconds(name: str, duration: DurationLike | None, *, zero: bool = False) -> float | None:
    """Return a duration in seconds, after checking it; None as it is.

    Raises:
        InvalidDuration: as `seconds_of`.
    """
    return None if duration is None else seconds_of(name, duration, zero=zero)


class Seconds:
    """A field of a dataclass that accepts any duration, checks it, and holds its seconds.

    It has no ``__get__`` when it runs, so reading the field costs no call.

    Args:
        default: seconds.
        zero: whether 0 is valid too.
        hint: what to write instead of an invalid value, for the error message.
    """

    def __init__(self, default: float, *, zero: bool = False, hint: str = "") -> None:
        self._default: DurationLike | None = default
        self._zero = zero
        self._hint = hint

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, obj: object, value: DurationLike) -> None:
        unset: object = self  # what a dataclass passes for the default
        given = self._default if value is unset else value
        optional = given is None and isinstance(self, OptionalSeconds)
        try:
            vars(obj)[self._name] = None if optional else seconds_of(self._name, given, zero=self._zero)
        except InvalidDuration as error:
            raise InvalidDuration(f"{error}{self._hint and '; '}{self._hint}") from None

    if TYPE_CHECKING:

        def __get__(self, obj: object, owner: type) -> float: ...


class OptionalSeconds(Seconds):
    """A field that may be None as well."""

    if TYPE_CHECKING:

        def __init__(self, default: float | None, *, zero: bool = False, hint: str = "") -> None: ...
        def __set__(self, obj: object, value: DurationLike | None) -> None: ...
        def __get__(self, obj: object, owner: type) -> float | None: ...  # type: ignore[override]
