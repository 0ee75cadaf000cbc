"""Read quantities and semantic versions as the Kubernetes libraries for CEL rules do."""

from __future__ import annotations

import functools
import re
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from reconciler.apiserver.encoding.text import quoted

__all__ = ["quantity_number", "quantity_text", "read_quantity", "read_version", "version_order"]

_SUFFIXES: dict[str, Decimal] = {
    "": Decimal(1),
    **{name: Decimal(10) ** power for name, power in (("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9))},
    **{name: Decimal(10) ** power for name, power in (("T", 12), ("P", 15), ("E", 18))},
    **{name: Decimal(1024) ** (index + 1) for index, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE][-+]?[0-9]+")
_WRONG_FORMAT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_PRECISION = 100


@functools.lru_cache(maxsize=1024)
def read_quantity(text: str) -> Decimal:
    """Return the number that a quantity stands for.

    Raises:
        ValueError: it is none, in the real server's words.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(_WRONG_FORMAT)
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
    """Return the one text that stands for a quantity, so that equal quantities are equal texts."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def quantity_number(text: str) -> Decimal:
    """Return the number of a text that `quantity_text` made."""
    return Decimal(text)


def read_version(text: str, *, normalize: bool = False) -> str:
    """Return a semantic version without what it says of its build.

    Args:
        text: the version.
        normalize: bear a leading ``v``, leading zeros, and parts that are left out.

    Raises:
        ValueError: it is none, in the real server's words.
    """
    if normalize:
        text = _normalized(text)
    if not text:
        raise ValueError("Version string empty")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise ValueError("No Major.Minor.Patch elements found")
    last, plus, build = parts[2].partition("+")
    last, dash, pre = last.partition("-")
    for name, number in zip(("major", "minor", "patch"), (parts[0], parts[1], last), strict=True):
        _check_number(name, number)
    if dash:
        _check_identifiers(pre, "Prerelease is empty", "prerelease", numbers=True)
    if plus:
        _check_identifiers(build, "Build meta data is empty", "build meta data", numbers=False)
    return f"{parts[0]}.{parts[1]}.{last}{dash}{pre}"


def version_order(version: str) -> tuple[Any, ...]:
    """Return what versions are ordered by: major, minor, patch, and what comes before the release."""
    numbers, _, pre = version.partition("-")
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")] if pre else []
    major, minor, patch = (int(part) for part in numbers.split("."))
    return (major, minor, patch, 0 if parts else 1, parts)


def _check_number(name: str, number: str) -> None:
    if number.strip("0123456789"):
        raise ValueError(f"Invalid character(s) found in {name} number {quoted(number)}")
    if len(number) > 1 and number.startswith("0"):
        raise ValueError(f"{name.capitalize()} number must not contain leading zeroes {quoted(number)}")
    if not number:
        raise ValueError('strconv.ParseUint: parsing "": invalid syntax')


_IDENTIFIER = re.compile(r"[0-9A-Za-z-]+")


def _check_identifiers(text: str, empty: str, name: str, *, numbers: bool) -> None:
    for part in text.split("."):
        if not part:
            raise ValueError(empty)
        if not _IDENTIFIER.fullmatch(part):
            raise ValueError(f"Invalid character(s) found in {name} {quoted(part)}")
        if numbers and part.isdigit() and len(part) > 1 and part.startswith("0"):
            raise ValueError(f"Numeric PreRelease version must not contain leading zeroes {quoted(part)}")


def _normalized(text: str) -> str:
    parts = text.removeprefix("v").split(".", 2)
    for index, part in enumerate(parts):
        if len(part) > 1:
            bare = part.lstrip("0")
            parts[index] = bare if bare[:1].isdigit() else f"0{bare}"
    if len(parts) < 3:
        if "+" in parts[-1] or "-" in parts[-1]:
            raise ValueError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)
