"""Scalar values of the Kubernetes API: times, quantities, resource versions.

Resource versions of one kind in one cluster are integers (KEP-5504, stable in Kubernetes 1.35). Servers of aggregated
APIs may use other strings, which can only be compared for equality.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = [
    "Version",
    "encodable",
    "format_micro_time",
    "format_time",
    "human_duration",
    "is_newer",
    "is_older",
    "parse_quantity",
    "parse_time",
    "parse_version",
]


def encodable(text: str) -> str:
    """Replace each lone surrogate in text with ``?``: UTF-8, and so the API, cannot represent it.

    Python has them in the names of files that are not valid UTF-8.
    """
    return text if text.isascii() else text.encode(errors="replace").decode()


def format_time(moment: datetime) -> str:
    """Format metav1.Time: UTC, whole seconds, fractions truncated."""
    return _in_utc(moment).isoformat(timespec="seconds") + "Z"


def format_micro_time(moment: datetime) -> str:
    """Format metav1.MicroTime: UTC with six decimals."""
    return _in_utc(moment).isoformat(timespec="microseconds") + "Z"


def human_duration(seconds: float) -> str:
    """Format a duration as a person would say it: ``"12 ms"``, ``"48 s"``, ``"5 min"``, ``"2.5 h"``, ``"3 days"``."""
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time, with or without fractions.

    Raises:
        ValueError: the text is not such a time, or has no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return moment.astimezone(UTC)


_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40}))"
    r"(?:(?P<binary>[KMGTPE]i)|(?P<decimal>[numkMGTPE])|[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_quantity(text: str) -> Fraction:
    """Parse a quantity exactly: ``"500m"``, ``"1.5Gi"``, ``"1e3"``.

    Raises:
        ValueError: the string is not a valid quantity.
    """
    from fractions import Fraction  # loads decimal, which a batcher without quantities does not need

    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text[:40]!r} is not a valid quantity: write a number with a suffix, such as '500m' or '1.5Gi'"
        )
    value: Fraction = Fraction(found["number"])
    if found["binary"]:
        return value * Fraction(1024 ** ("KMGTPE".index(found["binary"][0]) + 1))
    exponent = _DECIMAL[found["decimal"]] if found["decimal"] else int(found["exponent"] or 0)
    return value * Fraction(10**exponent) if exponent >= 0 else value / Fraction(10**-exponent)


_MAX_DIGITS = 100
"""The longest number that is a version: Python refuses to convert more than 4,300 digits."""

Version = int | str
"""A resource version: an int if it is a decimal number, else the opaque string."""


@functools.lru_cache(maxsize=1024)  # a write is compared with its event, its response and several memories
def parse_version(text: str) -> Version:
    """Parse a version: an int, or the text itself if it is not a decimal number of 100 digits at most."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else text


def is_newer(version: Version, than: Version | None) -> bool:
    """Return whether `version` comes after `than`; for opaque versions, whether they differ.

    None comes before everything.
    """
    if than is None:
        return True
    if isinstance(version, int) and isinstance(than, int):
        return version > than
    return version != than


def is_older(version: Version, than: Version | None) -> bool:
    """Return whether `version` comes before `than`; False for None, and for opaque versions, which have no order."""
    return isinstance(version, int) and isinstance(than, int) and version < than
