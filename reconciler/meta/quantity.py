"""Read quantities of the Kubernetes API: ``"500m"``, ``"1.5Gi"``, ``"1e3"``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["parse_quantity"]

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
