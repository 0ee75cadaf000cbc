"""Checks of models that the schema of pydantic does not show: wire names, defaults, regular expressions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from reconciler.objects.fields.messages import wire_message
from reconciler.objects.schema.refusal import refusal
from reconciler.wire import JSONObject

__all__ = ["check_default", "check_default_type", "check_models", "check_pattern"]

_INT64 = 2**63
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_ZONE = re.compile(r"(?:Z|[+-]\d\d:\d\d)$")


def check_models(model: type[BaseModel]) -> None:
    """Check a model and those in its fields.

    Raises:
        SchemaError: two fields have one wire name, a field is read and written under different names, a computed field
            would be written, or a default does not fit its own field.
    """
    for each in _reachable(model, {}):
        taken: dict[str, str] = {}
        for name, field in each.model_fields.items():
            wire = _wire_name(each, name, field)
            if wire in taken:
                raise refusal(
                    f"{each.__name__}.{name}",
                    f"has the wire name {wire!r} of {taken[wire]}",
                    "set another alias=",
                )
            taken[wire] = name
            _check_field_default(each, name, field)
        for name in each.model_computed_fields:
            raise refusal(
                f"{each.__name__}.{name}", "is a computed field, which the server would remove", "make it a property"
            )


def _reachable(model: type[BaseModel], seen: dict[type[BaseModel], None]) -> Iterator[type[BaseModel]]:
    if model in seen:
        return
    seen[model] = None
    yield model
    for field in model.model_fields.values():
        for part in _models(field.annotation):
            yield from _reachable(part, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _wire_name(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    written = field.serialization_alias or field.alias or name
    read = field.validation_alias or field.alias or name
    names = read.choices if isinstance(read, AliasChoices) else [read]
    if names[0] != written:
        raise refusal(
            f"{model.__name__}.{name}",
            f"is read as {names[0]!r} and written as {written!r}",
            "a field has one wire name: set alias= instead of validation_alias= or serialization_alias=",
        )
    return written


def _check_field_default(model: type[BaseModel], name: str, field: FieldInfo) -> None:
    default = field.default
    if default is PydanticUndefined or default is None:
        return
    try:
        model.__pydantic_validator__.validate_assignment(model.model_construct(), name, default)
    except ValidationError as error:
        own = {name, _wire_name(model, name, field)}
        for problem in error.errors(include_url=False, include_context=False):
            if problem["loc"] and problem["loc"][0] in own and not problem["type"].startswith("frozen"):
                what = wire_message(problem["msg"][:1].lower() + problem["msg"][1:])
                raise refusal(
                    f"{model.__name__}.{name}", f"has a default that does not fit ({what})", "change one of them"
                ) from None
    except Exception:  # noqa: BLE001 - a user's validator of the whole model sees only defaults here
        return


def check_default(where: str, default: Any) -> None:
    """Raise SchemaError for a default with a number that JSON or int64 does not have."""
    if isinstance(default, float) and not math.isfinite(default):
        raise refusal(where, f"has the default {default}, which JSON cannot express", "set a finite default, or None")
    if isinstance(default, int) and not -_INT64 <= default < _INT64:
        raise refusal(where, "has a default beyond 64 bits, which the server cannot read", "use a string")
    if isinstance(default, dict):
        for value in default.values():
            check_default(where, value)
    if isinstance(default, list):
        for value in default:
            check_default(where, value)


def check_default_type(where: str, schema: JSONObject) -> None:
    """Raise SchemaError for a default whose wire form is not of the schema's type, or has no time zone."""
    default, kind = schema.get("default"), schema.get("type")
    if default is None or kind not in _TYPES:
        return
    if not isinstance(default, _TYPES[kind]) or (isinstance(default, bool) and kind != "boolean"):
        raise refusal(
            where,
            f"has the type {kind}, and a default that is written as {type(default).__name__}",
            "add pydantic.WithJsonSchema with the type that its serializer writes",
        )
    if schema.get("format") == "date-time" and not _ZONE.search(str(default)):
        raise refusal(where, "has a default without a time zone", "write datetime(…, tzinfo=UTC), use AwareDatetime")


# An escape, a bracket expression, the start of a group, a possessive quantifier; what is not named is not looked at.
_REGEX_PART = re.compile(
    r"\\(?P<escape>.)|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\(\?(?P<group>P=|P>|<[=!]|[=!>#(R&]|\d)|(?P<more>[*+?}]\+)",
    re.DOTALL,
)
_GROUPS = {"=": "a lookahead", "!": "a lookahead", "<=": "a lookbehind", "<!": "a lookbehind", ">": "an atomic group"}


def check_pattern(where: str, pattern: str) -> None:
    """Raise SchemaError for a regular expression that Python has and RE2, the server's engine, has not."""
    for part in _REGEX_PART.finditer(pattern):
        what = None
        if part["group"]:
            what = _GROUPS.get(part["group"], f"(?{part['group']}")
        elif part["escape"] and part["escape"] in "123456789":
            what = f"the backreference {part[0]}"
        elif part["escape"] == "Z":
            raise refusal(where, r"has a pattern with \Z, which RE2 calls \z", "end the pattern with $")
        elif part["more"]:
            what = f"the possessive quantifier {part[0]}"
        if what:
            raise refusal(
                where, f"has a pattern with {what}, which RE2, the server's engine, does not support", "use a CEL rule"
            )
