"""Durations as callers give them: seconds, a timedelta, or text such as ``"30s"`` and ``"1h30m"``."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, overload

from reconciler.errors import ConfigurationError

DurationLike = float | timedelta | str
"""Seconds, a timedelta, or a string that `parse_duration` reads."""

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
    "w": 7 * 86400 * 10**9,
}
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


@overload
def seconds_of(duration: DurationLike) -> float: ...
@overload
def seconds_of(duration: DurationLike | None) -> float | None: ...
def seconds_of(duration: DurationLike | None) -> float | None:
    """Return a duration in seconds; a number, and None, as it is.

    Raises:
        ValueError: the text is not a duration.
    """
    if isinstance(duration, str):
        return parse_duration(duration).total_seconds()
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def positive_seconds(name: str, duration: object, *, zero: bool = False) -> float:
    """Return a duration in seconds, after checking it.

    Args:
        name: what the error message begins with.
        duration: what was given.
        zero: whether 0 is valid too.

    Raises:
        ConfigurationError: it is not a duration, or is not finite and above 0.
    """
    try:
        seconds: Any = seconds_of(duration)  # type: ignore[call-overload]  # of any type so far
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if type(seconds) in (int, float) and 0 <= seconds < math.inf and (seconds or zero):
        return float(seconds)
    least = "of 0 or more" if zero else "above 0"
    raise ConfigurationError(f"{name} must be seconds {least}, a timedelta or a text such as '30s', not {duration!r}")


class Seconds:
    """A field of a dataclass that accepts any duration, and holds its seconds.

    It has no ``__get__`` when it runs, so reading the field costs no call.

    Args:
        default: seconds.
        error: raised for a string that is not a duration.
    """

    def __init__(self, default: float, error: type[Exception] = ConfigurationError) -> None:
        self._default: DurationLike | None = default
        self._error = error

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, obj: object, value: DurationLike) -> None:
        unset: object = self  # what a dataclass passes for the default
        given = self._default if value is unset else value
        try:
            vars(obj)[self._name] = seconds_of(given)
        except ValueError as error:
            raise self._error(f"{self._name}: {error}") from None

    if TYPE_CHECKING:

        def __get__(self, obj: object, owner: type) -> float: ...


class OptionalSeconds(Seconds):
    """A field that may be None as well."""

    if TYPE_CHECKING:

        def __init__(self, default: float | None, error: type[Exception] = ...) -> None: ...
        def __set__(self, obj: object, value: DurationLike | None) -> None: ...
        def __get__(self, obj: object, owner: type) -> float | None: ...  # type: ignore[override]
