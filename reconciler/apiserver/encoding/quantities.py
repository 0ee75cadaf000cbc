"""Write quantities in their canonical form, as the API server does."""

from __future__ import annotations

import functools
import re
from decimal import ROUND_UP, Decimal

from reconciler.apiserver.cel.numbers import read_quantity

__all__ = ["canonical_quantity"]

_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_IS_BINARY = re.compile(r".*[KMGTPE]i")
_IS_EXPONENT = re.compile(r".*[eE][-+]?[0-9]+")
_FINEST = Decimal("1e-9")
_LARGEST = 2**63 - 1


@functools.lru_cache(maxsize=1024)
def canonical_quantity(text: str, *, places: int = 9) -> str:
    """Return a quantity in its canonical form.

    Args:
        text: the quantity.
        places: to how many decimal places it is rounded up; lists of resources have 3.

    Raises:
        ValueError: it is none, in the real server's words.
    """
    number = min(read_quantity(text).quantize(Decimal(1).scaleb(-places), ROUND_UP), Decimal(_LARGEST))
    if _IS_BINARY.fullmatch(text) and abs(number) >= 1024:
        return _binary(number)
    return _decimal(number, exponential=bool(_IS_EXPONENT.fullmatch(text)))


def _binary(number: Decimal) -> str:
    whole, power = int(number.to_integral_value(ROUND_UP)), 0
    while whole % 1024 == 0 and power < len(_BINARY) - 1:
        whole, power = whole // 1024, power + 1
    return f"{whole}{_BINARY[power]}"


def _decimal(number: Decimal, *, exponential: bool) -> str:
    whole, power = int(number / _FINEST), -9
    if not whole:
        return "0"
    while whole % 1000 == 0 and power < 18:
        whole, power = whole // 1000, power + 3
    if exponential:
        return f"{whole}e{power}" if power else str(whole)
    return f"{whole}{_DECIMAL[power]}"
