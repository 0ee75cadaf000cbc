"""Values as Go writes them in JSON and in error messages, which clients and tests compare, and resource quantities.

A quantity, such as ``100m`` or ``1Gi``, is written in its canonical form. `data_file` reads the data files of the
server: what was recorded from a real server, or compared with it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from decimal import ROUND_UP, Decimal, InvalidOperation, localcontext
from importlib import resources
from typing import Any

from reconciler._core import wire
from reconciler._core.durations import GO_NANOSECONDS

_SORTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_AS_IS = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_UNPRINTABLE = re.compile(r"\\u00([01][0-9a-f])|(?!\\)[^ -~\xa1-\u1fff\u2070-\u20cf\u2c00-\ud7ff]")
_LETTERS = {"07": "a", "0b": "v"}
_JSON_TYPES = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
GO_TYPES: Mapping[type, str] = {
    bool: "bool",
    dict: "map[string]interface {}",
    float: "float64",
    int: "int64",
    list: "[]interface {}",
    str: "string",
    type(None): "<nil>",
}
"""The Go types of decoded JSON values."""
_DIGITS = re.compile(r"[0-9]+")
_INT64 = 2**63
_DURATION_PART = re.compile(r"0*(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?P<unit>[^0-9.]*)")
_LONGEST_NUMBER = 19  # digits of an int64
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
_LARGEST_EXPONENT = 90  # with nine decimal places, so many digits fit the precision
_IS_BINARY = re.compile(r".*[KMGTPE]i")
_IS_EXPONENT = re.compile(r".*[eE][-+]?[0-9]+")
_FINEST = Decimal("1e-9")
_LARGEST = 2**63 - 1


def go_json(value: Any, *, sort: bool = True) -> str:
    """Return compact JSON with HTML characters escaped, and with sorted keys unless the value is a Go struct."""
    text = _SORTED.encode(value) if sort else _AS_IS.encode(value)
    if "<" not in text and ">" not in text and "&" not in text:
        return text
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def quoted(value: Any) -> str:
    """Return a value as field errors quote it."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub(_go_escape, json.dumps(value, ensure_ascii=False))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int):
        return str(value)
    return go_json(value)


def _go_escape(found: re.Match[str]) -> str:
    """Return a JSON escape or an unprintable character as Go's strconv.Quote writes it."""
    if found[1]:
        return f"\\{_LETTERS.get(found[1], f'x{found[1]}')}"
    letter = found[0]
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _number(value: float) -> str:
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    mantissa, _, exponent = text.partition("e")
    sign, digits = exponent[0] if exponent[0] in "+-" else "+", exponent.lstrip("+-").zfill(2)
    return f"{mantissa.removesuffix('.0')}e{sign}{digits}"


def go_type(value: Any) -> str:
    """Return the name that encoding/json gives to the type of a JSON value."""
    return _JSON_TYPES.get(type(value), "null")


def go_value(value: Any) -> str:
    """Return a value as Go's ``%v`` formats it: ``map[a:1 b:[x y]]``."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_value(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(go_value, value))}]"
    if value is None:
        return "<nil>"
    return value if isinstance(value, str) else quoted(value)


def go_syntax(value: Any) -> str:
    """Return a value as Go's ``%#v`` formats it: ``map[string]interface {}{"a":1}``."""
    if isinstance(value, dict):
        members = ", ".join(f"{quoted(key)}:{go_syntax(value[key])}" for key in sorted(value))
        return f"map[string]interface {{}}{{{members}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(go_syntax, value))}}}"
    return "interface {}(nil)" if value is None else quoted(value)


def snippet(body: bytes) -> str:
    """Return the beginning of a body as error messages quote it."""
    if not body:
        return "<empty>"
    start = body[:30]
    text = body.decode(errors="replace")[:30] if body.lstrip().startswith(b"{") else start.hex()
    return f"{text} ..." if len(body) > 30 else text


def go_bool(text: str) -> bool:
    """Return the value of a boolean parameter as the API server parses it: anything but 0 and false is true."""
    return text.lower() not in ("", "0", "false")


def duration_problem(text: str) -> str:
    """Return the error of Go's time.ParseDuration for a text such as ``1m30s``; empty if it is a duration."""
    invalid = f"time: invalid duration {quoted(text)}"
    position, total = int(text[:1] in ("+", "-")), 0
    if text[position:] in ("", "0"):
        return "" if text[position:] else invalid
    while position < len(text):
        found = _DURATION_PART.match(text, position)
        if found is None or len(found["number"].partition(".")[0]) > _LONGEST_NUMBER:
            return invalid
        if found["unit"] not in GO_NANOSECONDS:
            problem = f"unknown unit {quoted(found['unit'])}" if found["unit"] else "missing unit"
            return f"time: {problem} in duration {quoted(text)}"
        total += int(Decimal(found["number"][:_PRECISION]) * GO_NANOSECONDS[found["unit"]])
        position = found.end()
    return invalid if total > _INT64 - (text[0] != "-") else ""


def go_int(text: str, *, signed: bool = True) -> int:
    """Parse a 64-bit integer as Go's strconv does; raise `ValueError` with its message for any other text."""
    function = "ParseInt" if signed else "ParseUint"
    digits = text[1:] if signed and text[:1] in ("+", "-") else text
    if _DIGITS.fullmatch(digits) is None:
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: invalid syntax")
    value = int(digits.lstrip("0") or 0) if len(digits.lstrip("0")) <= 20 else 2**64
    value = -value if text.startswith("-") else value
    if not (-_INT64 <= value < _INT64 if signed else value < 2**64):
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: value out of range")
    return value


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
            number = Decimal(digits + suffix) if _EXPONENT.fullmatch(suffix) else Decimal(digits) * _SUFFIXES[suffix]
        except (InvalidOperation, KeyError):
            raise ValueError("unable to parse quantity's suffix") from None
    if abs(number.adjusted()) > _LARGEST_EXPONENT:  # as plain digits, 1e999999999 takes a gigabyte
        raise ValueError(NOT_A_QUANTITY)
    return number


def quantity_text(number: Decimal) -> str:
    """Return a number as plain decimal digits, so that equal quantities are equal texts."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


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


def data_file(path: str) -> bytes:
    """Return the content of a file, by its path below this package."""
    return resources.files("reconciler.apiserver").joinpath(path).read_bytes()


recorded = functools.partial(wire.recorded, "reconciler.apiserver")
"""Returns the content of a JSON file, by its path below this package; it must not be changed."""
