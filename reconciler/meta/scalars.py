"""Write and read the two time formats of the Kubernetes API.

---

Read quantities of the Kubernetes API: ``"500m"``, ``"1.5Gi"``, ``"1e3"``.

---

Compare resource versions of one kind in one cluster.

They are integers there (KEP-5504, stable in Kubernetes 1.35); servers of aggregated APIs may answer other strings,
for which only equality is defined.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = [
    "Version",
    "format_micro_time",
    "format_time",
    "is_newer",
    "is_older",
    "parse_quantity",
    "parse_time",
    "parse_version",
]


def format_time(moment: datetime) -> str:
    """Write metav1.Time: UTC, whole seconds, fractions cut off."""
    return _in_utc(moment).isoformat(timespec="seconds") + "Z"


def format_micro_time(moment: datetime) -> str:
    """Write metav1.MicroTime: UTC with six digits of the second."""
    return _in_utc(moment).isoformat(timespec="microseconds") + "Z"


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time, with or without fractions.

    Raises:
        ValueError: the text is no such time, or names no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return moment.astimezone(UTC)


_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40}))"
    r"(?:(?P<binary>[KMGTPE]i)|(?P<decimal>[numkMGTPE])|[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_quantity(text: str) -> Fraction:
    """Return the exact value of a quantity.

    Raises:
        ValueError: the text is no quantity.
    """
    from fractions import Fraction  # brings decimal, which a batcher without quantities does not need

    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no quantity: write a number with a suffix, such as '500m' or '1.5Gi'")
    value: Fraction = Fraction(found["number"])
    if found["binary"]:
        return value * Fraction(1024 ** ("KMGTPE".index(found["binary"][0]) + 1))
    exponent = _DECIMAL[found["decimal"]] if found["decimal"] else int(found["exponent"] or 0)
    return value * Fraction(10**exponent) if exponent >= 0 else value / Fraction(10**-exponent)


Version = int | str
"""A resource version: an int where it parses as one, else the opaque string."""


def parse_version(text: str) -> Version:
    """Return the version as an int, or the text itself when it is no decimal number."""
    return int(text) if text.isascii() and text.isdigit() else text


def is_newer(version: Version, than: Version | None) -> bool:
    """Say whether `version` comes after `than`; for opaque versions, whether they differ.

    None comes before everything.
    """
    if than is None:
        return True
    if isinstance(version, int) and isinstance(than, int):
        return version > than
    return version != than


def is_older(version: Version, than: Version | None) -> bool:
    """Return whether `version` comes before `than`; False for opaque versions, which have no order, and for None."""
    return isinstance(version, int) and isinstance(than, int) and version < than
