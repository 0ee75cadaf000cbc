"""Field types with the notation of Kubernetes: `Duration`, as Go writes it, and `Quantity`, an exact amount.

Parts of built-in kinds are fields as well: the classes of ``lightkube.models``, such as ``JobTemplateSpec``. They are
msgspec structs. pydantic asks a class for its schema, so their common base gets the methods that answer. lightkube
itself is not imported here.
"""

from __future__ import annotations

import math
import re
import sys
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import total_ordering
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, SchemaSerializer, core_schema

from reconciler._core.durations import DURATION_PATTERN, LONGEST_DURATION, parse_duration
from reconciler._core.wire import JSONObject
from reconciler.meta.documents import parse_quantity


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
        return {**handler(schema), "format": "duration", "pattern": DURATION_PATTERN, "maxLength": LONGEST_DURATION}


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


Number = int | float | Decimal | Fraction
_Notation = Literal["decimal", "binary", "exponent"]

# The pattern that controller-gen writes for resource.Quantity.
QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_NANO = 10**9
_LARGEST_BINARY = 2**63 - 1
_LARGEST_POWER = 1000  # as for the exponent of a string
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


@total_ordering
class Quantity:
    """An amount of a resource, such as ``Quantity("500m")`` or ``Quantity("1.5Gi")``; immutable.

    The value is exact down to 1e-9 (``n``); what is finer is rounded away from zero, as in Kubernetes. ``str`` returns
    the canonical form: ``"1536Mi"`` for ``"1.5Gi"``, ``"100m"`` for ``"0.1"``. The notation (decimal ``k``, binary
    ``Ki``, exponent ``e3``) is that of the text; a sum has the notation of its left operand, unless that is zero.

    Quantities compare by value, with numbers too: ``Quantity("1Gi") == Quantity("1024Mi") == 2**30``. They hash as
    equal integers and Decimals do. A float is compared as it is written (``0.1`` is a tenth), and hashes differently.

    Args:
        value: a text such as ``"100m"``, or a finite number.

    Attributes:
        value: the exact value in the base unit (bytes, cores).

    Raises:
        ValueError: the text is not a quantity, or the number is not finite.
        TypeError: the argument is neither.
    """

    __slots__ = ("_nanos", "_notation")

    _nanos: int
    _notation: _Notation

    def __init__(self, value: str | Number | Quantity) -> None:
        exact, self._notation = _parsed(value)
        nanos = math.ceil(abs(exact) * _NANO)
        if self._notation == "binary":
            nanos = min(nanos, _LARGEST_BINARY * _NANO)
        self._nanos = -nanos if exact < 0 else nanos

    @property
    def value(self) -> Fraction:
        """Return the exact value; ``math.ceil`` of it is what ``Quantity.Value`` returns in Go."""
        return Fraction(self._nanos, _NANO)

    def __str__(self) -> str:
        whole, rest = divmod(abs(self._nanos), _NANO)
        sign = "-" if self._nanos < 0 else ""
        if self._notation == "binary" and not rest and whole >= 1024:
            return sign + _scaled(whole, 1024, _BINARY)
        if self._notation == "exponent":
            digits, power = _stripped(abs(self._nanos), 1000, limit=None)
            return f"{sign}{digits}e{3 * power - 9}" if digits and power != 3 else f"{sign}{digits}"
        return sign + _scaled(abs(self._nanos), 1000, _DECIMAL)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        found = _value_of(other)
        return NotImplemented if found is None else self.value == found

    def __lt__(self, other: Quantity | Number) -> bool:
        if isinstance(other, (float, Decimal)) and math.isinf(other):
            return other > 0
        found = _value_of(other)
        return NotImplemented if found is None else self.value < found

    def __bool__(self) -> bool:
        return self._nanos != 0

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __neg__(self) -> Self:
        return self._like(-self.value)

    def __abs__(self) -> Self:
        return self._like(abs(self.value))

    def __add__(self, other: Quantity | Number) -> Self:
        found = _value_of(other)
        if found is None:
            return NotImplemented
        return self._like(self.value + found, other)

    __radd__ = __add__

    def __rsub__(self, other: Number) -> Self:
        return -self + other

    def __sub__(self, other: Quantity | Number) -> Self:
        found = _value_of(other)
        if found is None:
            return NotImplemented
        return self._like(self.value - found, other)

    def __mul__(self, factor: Number) -> Self:
        found = _value_of_number(factor)
        if found is None:
            return NotImplemented
        return self._like(self.value * found)

    __rmul__ = __mul__

    def _like(self, value: Fraction, other: object = None) -> Self:
        """Return a quantity in the notation of this, or of the other if this is zero."""
        result = type(self)(value)
        lead = other if isinstance(other, Quantity) and not self else self
        result._notation = lead._notation  # noqa: SLF001 - the same class
        return result

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _SCHEMA

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}


def _validated(value: Any) -> Quantity:
    if isinstance(value, (str, int, float, Decimal, Fraction, Quantity)) and not isinstance(value, bool):
        return Quantity(value)
    raise ValueError("must be a quantity: a number, or a string such as '500m' or '1.5Gi'")


_SCHEMA = core_schema.no_info_plain_validator_function(
    _validated, serialization=core_schema.plain_serializer_function_ser_schema(str)
)
# Lets pydantic write a Quantity where no schema leads to it: in the bounds of a field.
Quantity.__pydantic_serializer__ = SchemaSerializer(_SCHEMA)  # type: ignore[attr-defined]


def _parsed(value: str | Number | Quantity) -> tuple[Fraction, _Notation]:
    if isinstance(value, Quantity):
        return value.value, value._notation  # noqa: SLF001 - the same module
    if isinstance(value, str):
        return parse_quantity(value.strip()), _notation_of(value.strip())
    return _fraction(value), "decimal"


def _notation_of(text: str) -> _Notation:
    if text.endswith("i"):
        return "binary"
    return "exponent" if text[-1:].isdigit() and "e" in text.lower() else "decimal"


def _fraction(number: object) -> Fraction:
    if isinstance(number, bool) or not isinstance(number, (int, float, Decimal, Fraction)):
        raise TypeError(f"a Quantity is made of a string or a number, not of {type(number).__name__}")
    if not _is_representable(number):
        shown = str(number) if isinstance(number, (float, Decimal)) else f"a number of {_LARGEST_POWER} digits or more"
        raise ValueError(f"{shown} is not a valid quantity: it must be finite, and below 1e{_LARGEST_POWER}")
    # A float is what a person writes: 0.1 is a tenth, not the binary number next to it.
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def _value_of(other: object) -> Fraction | None:
    return other.value if isinstance(other, Quantity) else _value_of_number(other)


def _value_of_number(other: object) -> Fraction | None:
    """Return a finite number exactly; None for everything else."""
    if isinstance(other, bool) or not isinstance(other, (int, float, Decimal, Fraction)):
        return None
    if isinstance(other, (int, Fraction)):
        return Fraction(other)
    return _fraction(other) if _is_representable(other) else None


def _is_representable(number: float | Decimal | Fraction) -> bool:
    """Return whether a number is finite, and neither so large nor so precise that computing with it takes long."""
    if isinstance(number, Decimal):
        return number.is_finite() and -_LARGEST_POWER < number.adjusted() < _LARGEST_POWER
    return math.isfinite(number) if isinstance(number, float) else abs(number) < 10**_LARGEST_POWER


def _stripped(digits: int, base: int, limit: int | None) -> tuple[int, int]:
    power = 0
    while digits and digits % base == 0 and (limit is None or power < limit):
        digits, power = digits // base, power + 1
    return digits, power


def _scaled(digits: int, base: int, suffixes: tuple[str, ...]) -> str:
    digits, power = _stripped(digits, base, len(suffixes) - 1)
    return f"{digits}{suffixes[power]}" if digits else "0"


_REFERENCE = "#/$defs/"
_IGNORED = {"title", "description"}


def describe_built_in_models() -> None:
    """Make pydantic understand the classes of ``lightkube.models``, if lightkube is imported."""
    module = sys.modules.get("lightkube.core.dictmixin")
    base = getattr(module, "DictMixin", None)
    if base is not None and not hasattr(base, "__get_pydantic_core_schema__"):
        base.__get_pydantic_core_schema__ = classmethod(_core_schema)
        base.__get_pydantic_json_schema__ = classmethod(_json_schema)


def _core_schema(cls: type[Any], *_: object) -> core_schema.CoreSchema:
    def validate(value: object) -> object:
        if isinstance(value, cls):
            return value
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None

    return core_schema.no_info_plain_validator_function(
        validate, serialization=core_schema.plain_serializer_function_ser_schema(_serialized)
    )


def _serialized(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _json_schema(cls: type[Any], *_: object) -> JSONObject:
    (schema,), parts = msgspec.json.schema_components([cls], ref_template=_REFERENCE + "{name}")
    found: JSONObject = _inlined(schema, parts, ())
    return found


def _inlined(schema: Any, parts: dict[str, Any], around: tuple[str, ...]) -> Any:
    """Return a schema without references. A part of itself, and an object of any form, is not described further."""
    if isinstance(schema, list):
        return [_inlined(each, parts, around) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        return {} if name in around else _inlined(parts[name], parts, (*around, name))
    if schema == {"type": "object"}:
        return {"type": "object", "additionalProperties": True}
    if isinstance(schema.get("properties"), dict):
        properties = {name: _inlined(each, parts, around) for name, each in schema["properties"].items()}
        return {"type": "object", "properties": properties, "required": schema.get("required", [])}
    return {key: _inlined(value, parts, around) for key, value in schema.items() if key not in _IGNORED}
