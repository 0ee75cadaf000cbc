"""Durations, with the wire form of Go, and what pydantic says about invalid ones."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler, PlainSerializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = [
    "Duration",
    "format_duration",
    "parse_duration",
    "wire_message",
]


_MICROSECONDS: dict[str, Fraction | int] = {
    "ns": Fraction(1, 1000),
    "us": 1,
    "µs": 1,
    "μs": 1,
    "ms": 1000,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
    "w": 7 * 86400 * 10**6,
}
_GO = r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+"
_WORDS = r"[0-9]+ *(?:nano|micro|milli|sec|min|hr|hour|d|day|w|wk|week)[a-z]*"
_PATTERN = f"^(?:{_GO}|[+-]?0|{_WORDS})$"
_PART = re.compile(r"([0-9.]+) *([a-zµμ]+)")
# By the first letters of a unit; the longer ones first, since "m" is a minute.
_UNITS = {"nano": "ns", "micro": "us", "milli": "ms", "sec": "s", "min": "m", "h": "h", "d": "d", "w": "w"}
_LONGEST = 100  # characters; Fractions of more digits take long


def parse_duration(text: str) -> timedelta:
    """Parse a duration: ``"1h30m"``, ``"1.5s"``, ``"-300ms"``, ``"0"``, ``"3 days"``.

    These are Go's durations, and whole numbers of one unit in words, days and weeks among them: what the API server
    accepts under ``format: duration``, except texts around it. Rounded to microseconds.

    Raises:
        ValueError: the string is not such a duration, or is longer than a timedelta can be.
    """
    if len(text) > _LONGEST or not re.fullmatch(_PATTERN, text):
        raise ValueError(
            f"{text[:40]!r} is not a valid duration: write numbers with units, such as '1h30m', '90s', '3 days'"
        )
    total = sum((Fraction(number) * _microseconds(unit) for number, unit in _PART.findall(text)), Fraction(0))
    try:
        return timedelta(microseconds=round(-total if text.startswith("-") else total))
    except OverflowError:
        raise ValueError(f"{text[:40]!r} is too long for a duration") from None


def _microseconds(unit: str) -> Fraction | int:
    if unit not in _MICROSECONDS:
        unit = next(short for word, short in _UNITS.items() if unit.startswith(word))
    return _MICROSECONDS[unit]


def format_duration(duration: timedelta) -> str:
    """Format a duration as Go's ``time.Duration.String`` does: ``"1h30m0s"``, ``"1.5s"``, ``"300ms"``, ``"0s"``."""
    whole = duration // timedelta(microseconds=1)
    sign, whole = ("-", -whole) if whole < 0 else ("", whole)
    if whole == 0:
        return "0s"
    if whole < 1000:
        return f"{sign}{whole}µs"
    if whole < 10**6:
        return f"{sign}{_decimal(whole, 3)}ms"
    minutes, rest = divmod(whole, 60 * 10**6)
    hours, minutes = divmod(minutes, 60)
    larger = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{larger}{_decimal(rest, 6)}s"


def _decimal(number: int, places: int) -> str:
    whole, rest = divmod(number, 10**places)
    fraction = f"{rest:0{places}d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)


def _read(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


class _WireSchema:
    """The JSON schema of a duration. Unlike ``WithJsonSchema`` it keeps the bounds of the field."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "format": "duration", "pattern": _PATTERN, "maxLength": _LONGEST}


Duration = Annotated[
    timedelta,
    BeforeValidator(_read),
    PlainSerializer(format_duration, when_used="json-unless-none"),
    _WireSchema,
]
"""A timedelta in Python, ``"1h30m0s"`` on the wire.

It reads what `parse_duration` does. A plain ``timedelta`` is an ISO 8601 string (``PT1H30M``), which the server does
not check.
"""


# pydantic shows a bound that is not a number as its repr.
_BOUND = re.compile(r"Quantity\('([^']*)'\)|datetime\.timedelta\(([^)]*)\)")


def wire_message(message: str) -> str:
    """Write the bounds of a Quantity or Duration in a message of pydantic as on the wire: ``1Gi``, ``1h0m0s``."""
    return _BOUND.sub(lambda found: found[1] or _duration(found[2]), message)


def _duration(arguments: str) -> str:
    parts = (part.split("=") for part in arguments.split(", ") if "=" in part)
    return format_duration(timedelta(**{name: int(number) for name, number in parts}))
