"""Resource quantities such as ``100m`` and ``1Gi``: parsing, and the canonical forms in which they are written."""

from __future__ import annotations

import functools
import re
from decimal import ROUND_UP, Decimal, InvalidOperation, localcontext

__all__ = ["NOT_A_QUANTITY", "canonical_quantity", "quantity_text", "read_quantity"]

NOT_A_QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
"""The message of resource.ErrFormatWrong."""

_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_SUFFIXES = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(_BINARY)},
    **{suffix: Decimal(10) ** power for power, suffix in _DECIMAL.items()},
}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE][-+]?[0-9]+")
_PRECISION = 100


@functools.lru_cache(maxsize=1024)
def read_quantity(text: str) -> Decimal:
    """Return the number that a quantity stands for; raise `ValueError` with the real server's message otherwise."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(NOT_A_QUANTITY)
    digits, suffix = match.groups()
    with localcontext() as context:
        context.prec = _PRECISION
        try:
            if _EXPONENT.fullmatch(suffix):
                return Decimal(digits + suffix)
            return Decimal(digits) * _SUFFIXES[suffix]
        except (InvalidOperation, KeyError):
            raise ValueError("unable to parse quantity's suffix") from None


def quantity_text(number: Decimal) -> str:
    """Return a number as plain decimal digits, so that equal quantities are equal texts."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


_IS_BINARY = re.compile(r".*[KMGTPE]i")
_IS_EXPONENT = re.compile(r".*[eE][-+]?[0-9]+")
_FINEST = Decimal("1e-9")
_LARGEST = 2**63 - 1


@functools.lru_cache(maxsize=1024)
def canonical_quantity(text: str, *, places: int = 9) -> str:
    """Return a quantity in its canonical form, rounded up to some decimal places: 3 in resource lists."""
    with localcontext() as context:
        context.prec = _PRECISION
        number = read_quantity(text).quantize(Decimal(1).scaleb(-places), ROUND_UP)
    if _IS_BINARY.fullmatch(text):
        number = min(number, Decimal(_LARGEST))
        if abs(number) >= 1024 and number == int(number):
            return _binary(int(number))
    return _decimal(number, exponential=bool(_IS_EXPONENT.fullmatch(text)))


def _binary(whole: int) -> str:
    power = 0
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
