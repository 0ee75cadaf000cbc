"""The conversion of a pydantic model to a structural schema.

The API supports less than JSON Schema: no references, no constraints on keys, unions only of scalars and of models with
a discriminator; and a null member equals an absent one. A type that cannot be expressed is rejected with the model and
the field; it is never weakened silently.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from datetime import timedelta
from inspect import cleandoc
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticSerializationError, SchemaSerializer
from pydantic_core import SchemaError as PydanticSchemaError
from pydantic_core.core_schema import DecimalSchema, TimedeltaSchema, WithDefaultSchema

from reconciler._core.wire import JSONObject
from reconciler.meta.documents import copy_json, without_nulls
from reconciler.objects.fields import format_duration
from reconciler.objects.schema_checks import (
    cel_name,
    check_default,
    check_default_type,
    check_models,
    check_pattern,
    discriminated_union,
    recorded,
    refusal,
    scalar_union,
)

_RULES = "x-kubernetes-validations"
_NO_FORM = "x-no-form"


_KEYWORDS = {kind: frozenset(recorded("schemas.json")[f"{kind} keywords"]) for kind in ("kept", "ignored", "handled")}
_KEPT, _KNOWN = _KEYWORDS["kept"], frozenset().union(*_KEYWORDS.values())

_NULL = {"type": "null"}
_INT64 = 2**63 - 1
_PARAGRAPH_END = re.compile(
    r"\n[ \t]*\n|^(?:Args|Arguments|Attributes|Example|Examples|Note|Notes|Parameters|Raises):[ \t]*$", re.MULTILINE
)


class _Generator(GenerateJsonSchema):
    """pydantic's generator, with defaults in their wire form, and decimals as strings: JSON numbers are floats."""

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        """Return the schema of a field with a default, which pydantic writes without the field's own serializer."""
        if "default" in schema and not isinstance(schema["default"], AbstractSet):
            with suppress(
                PydanticSchemaError, PydanticSerializationError
            ):  # pydantic's own form of the default is enough
                serializer = SchemaSerializer(schema["schema"])
                default = serializer.to_python(schema["default"], mode="json", by_alias=True, warnings="error")
                return super().default_schema({**schema, "default": default})
        return super().default_schema(schema)

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:  # noqa: ARG002
        """Return a schema that the converter refuses, with the field; pydantic's error does not name it."""
        return {_NO_FORM: error_info}

    def timedelta_schema(self, schema: TimedeltaSchema) -> JsonSchemaValue:  # noqa: ARG002 - pydantic calls it
        """Return the schema of a timedelta: ISO 8601, and not the API's format "duration", which is Go's."""
        return {"type": "string"}

    def decimal_schema(self, schema: DecimalSchema) -> JsonSchemaValue:
        """Return the schema of a Decimal; the converter makes CEL rules of its bounds."""
        places = schema.get("decimal_places")
        count = "" if places is None else f"{{0,{places}}}"
        fraction = "" if places == 0 else rf"(\.[0-9]{count or '*'})?"
        given: JSONObject = dict(schema)
        bounds = {key: str(given[key]) for key in _BOUNDS if key in given}
        pattern = rf"^[-+]?[0-9]+{fraction}([eE][-+]?[0-9]+)?$"
        others: JSONObject = {key: given[key] for key in ("max_digits", "multiple_of") if key in given}
        return {"type": "string", "pattern": pattern, **bounds, **others}


_ISO_DURATION = TypeAdapter(timedelta)  # the form of a timedelta in pydantic's schemas

# pydantic's names for the bounds of a Decimal, Quantity or Duration; those of numbers have the names of JSON Schema.
_BOUNDS = {
    "ge": (">=", "greater than or equal to"),
    "gt": (">", "greater than"),
    "le": ("<=", "less than or equal to"),
    "lt": ("<", "less than"),
}


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> JSONObject:
    """Convert a model to a structural schema, which belongs to the caller.

    Args:
        model: its wire names (aliases) become the properties.
        defaults: whether the server applies the model's defaults. Off for ``status``: if the server added to what a
            controller wrote, each write would look foreign.

    Raises:
        SchemaError: a field has a type that the API cannot express.
    """
    # A model that is rebuilt has a new validator, and may have another schema.
    schema: JSONObject = copy_json(_generated_schema(model, model.__pydantic_validator__, defaults=defaults))
    return schema


@functools.lru_cache(maxsize=256)
def _generated_schema(model: type[BaseModel], _validator: object, *, defaults: bool) -> JSONObject:
    try:
        check_models(model)
        schema = model.model_json_schema(by_alias=True, schema_generator=_Generator)
        converter = _SchemaConverter(schema.get("$defs", {}), defaults=defaults)
        return converter.schema(_with_short_description(schema), model.__name__)
    except RecursionError:
        raise refusal(model.__name__, "is nested too deeply", "use Any or dict for the inner levels") from None


class _SchemaConverter:
    def __init__(self, definitions: Mapping[str, Any], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults
        self._inside: list[str] = []
        self._unkeyed_list = ""

    def schema(self, source: Mapping[str, Any], where: str) -> JSONObject:
        """Return the structural form of a schema that does not allow null."""
        for composed in (self._reference, self._any_of, self._one_of):
            result = composed(source, where)
            if result is not None:
                return result
        return self._plain(source, where)

    def nullable(self, source: Mapping[str, Any], where: str) -> JSONObject:
        """Return the structural form of an item or a map's value, where null differs from absence."""
        inner, null = _without_null(source)
        result = self.schema(inner, where)
        return result | {"nullable": True} if null else result

    def _reference(self, source: Mapping[str, Any], where: str) -> JSONObject | None:
        if "$ref" not in source:
            return None
        name = str(source["$ref"]).rpartition("/")[2]
        target = _with_short_description(self._definitions[name])
        if name in self._inside:
            raise refusal(
                where, f"contains {target.get('title', name)} again", "a schema cannot be recursive; use Any or dict"
            )
        self._inside.append(name)
        siblings = {key: value for key, value in source.items() if key not in {"$ref", "$defs"}}
        owner = str(target.get("title", name)) if "properties" in target else where
        result = self.schema({**target, **siblings}, owner)
        self._inside.pop()
        return result

    def _any_of(self, source: Mapping[str, Any], where: str) -> JSONObject | None:
        parts = source.get("anyOf")
        if parts is None:
            return None
        siblings = {key: value for key, value in source.items() if key != "anyOf"}
        if len(parts) == 1:
            return self.schema({**parts[0], **siblings}, where)
        if sorted(str(part.get("type")) for part in parts) == ["integer", "string"]:
            # Bounds of the number and patterns of the string apply only to values of their type.
            return self._int_or_string({**parts[0], **parts[1], **siblings}, where)
        kinds = " | ".join(map(_name_of_part, parts))
        if not any(part.get("type") in ("array", "object", "null") for part in parts):
            union = scalar_union([self.schema(part, where) for part in parts])
            if union is not None:
                return self._with_siblings(union, siblings, where)
        models = all("$ref" in part for part in parts)
        instead = (
            "add a Literal field to each model, and Field(discriminator=…) to this one"
            if models
            else "only X | None, int | str, and unions of one scalar type or of models with a discriminator can be "
            "expressed; use Any"
        )
        raise refusal(where, f"is a union ({kinds})", instead)

    def _one_of(self, source: Mapping[str, Any], where: str) -> JSONObject | None:
        """Return a union of models that a field tells apart, as pydantic describes it."""
        discriminator = source.get("discriminator")
        if "oneOf" not in source or not discriminator or not discriminator.get("mapping"):
            return None
        tag = discriminator["propertyName"]
        variants = {value: self.schema({"$ref": ref}, where) for value, ref in discriminator["mapping"].items()}
        if any(variant.get("properties", {}).get(tag, {}).get("type") != "string" for variant in variants.values()):
            raise refusal(where, f"is a union told apart by {tag!r}, which is not a string", "use Literal strings")
        siblings = {key: value for key, value in source.items() if key not in {"oneOf", "discriminator"}}
        return self._with_siblings(discriminated_union(tag, variants, where), siblings, where)

    def _with_siblings(self, union: JSONObject, siblings: Mapping[str, Any], where: str) -> JSONObject:
        self._check_keys(siblings, where)
        common = self._common(siblings, where)
        rules = [*union.get(_RULES, ()), *common.get(_RULES, ())]
        return union | common | ({_RULES: rules} if rules else {})

    def _int_or_string(self, source: Mapping[str, Any], where: str) -> JSONObject:
        result = self._common(source, where)
        _add_bounds(result, source)
        for key in ("type", "format"):
            result.pop(key, None)
        return result | {"x-kubernetes-int-or-string": True}

    def _plain(self, source: Mapping[str, Any], where: str) -> JSONObject:
        if _NO_FORM in source:
            raise refusal(where, f"has a type without a JSON form ({source[_NO_FORM]})", "use a model, a string or Any")
        self._check_keys(source, where)
        result = self._common(source, where)
        if "const" in source:
            result["enum"] = [source["const"]]
        _add_type(result, where)
        check_default_type(where, result)
        kind = result.get("type")
        for key, (keyword, wanted) in _ONLY_ON.items():
            if key in result and kind != wanted:
                raise refusal(where, f"has {keyword}= and the type {kind or 'any'}", f"only an {wanted} can have it")
        if any(bound in source for bound in _BOUNDS):
            rules = _bounds_as_rules(source, result)
            result[_RULES] = [*rules, *result.get(_RULES, ())]
        _add_bounds(result, source)
        if kind == "object":
            self._add_members(result, source, where)
        elif kind == "array":
            self._add_items(result, source, where)
        elif kind is None and "x-kubernetes-int-or-string" not in result:
            result["x-kubernetes-preserve-unknown-fields"] = True
        return result

    def _common(self, source: Mapping[str, Any], where: str) -> JSONObject:
        result = {key: value for key, value in source.items() if key in _KEPT or key.startswith("x-kubernetes-")}
        if description := source.get("description"):
            result["description"] = cleandoc(str(description))
        default = without_nulls(result.pop("default", None))
        if self._defaults and default is not None:
            check_default(where, default)
            result["default"] = default
        if source.get("format") == "binary":
            raise refusal(where, "is bytes, which JSON does not have", "use pydantic.Base64Bytes, or str for text")
        result |= _format(str(result.pop("format", None)))
        if "pattern" in result:
            check_pattern(where, result["pattern"])
        if self._unkeyed_list and any("oldSelf" in str(rule["rule"]) for rule in result.get(_RULES, ())):
            raise refusal(
                where,
                f"has a rule with oldSelf (or is immutable) inside {self._unkeyed_list}, whose items have no identity",
                'set list_type="map" and list_map_keys= on the list',
            )
        return result

    def _check_keys(self, source: Mapping[str, Any], where: str) -> None:
        for key in source:
            text = source.get("type") == "string" or "x-kubernetes-int-or-string" in source
            if key not in _KNOWN and not key.startswith("x-kubernetes-") and not (text and key in _BOUNDS):
                raise refusal(
                    where,
                    f"needs {key!r} of JSON Schema, which the API does not support",
                    recorded("schemas.json")["refused keywords"].get(key, "use another type"),
                )

    def _add_members(self, result: JSONObject, source: Mapping[str, Any], where: str) -> None:
        properties = source.get("properties") or {}
        others = source.get("additionalProperties")
        if properties:
            if isinstance(others, Mapping) and others:
                raise refusal(where, "has fields and typed extra fields", "move the extra ones into a dict field")
            result["properties"] = {name: self._member(name, item, where) for name, item in properties.items()}
            if required := source.get("required"):
                result["required"] = list(required)
            if kept := _kept_when_set(result):
                result[_RULES] = [*result.get(_RULES, ()), *kept]
        elif isinstance(others, Mapping) and others:
            result["additionalProperties"] = self.nullable(others, f"{where}[*]")
        elif others is not None and others is not False:
            result["x-kubernetes-preserve-unknown-fields"] = True

    def _member(self, name: str, source: Mapping[str, Any], owner: str) -> JSONObject:
        where = f"{owner}.{name}"
        inner, null = _without_null(source)
        if null and "default" in inner and inner["default"] is None:
            inner = {key: value for key, value in inner.items() if key != "default"}
        elif null:
            raise refusal(where, "may be null without being None by default", "set the default None: null means absent")
        return self.schema(inner, where)

    def _add_items(self, result: JSONObject, source: Mapping[str, Any], where: str) -> None:
        keyed = result.get("x-kubernetes-list-type") == "map"
        with self._inside_list("" if keyed else where):
            result["items"] = self.nullable(source.get("items") or {}, f"{where}[]")
        scalar = result["items"].get("type") in {"string", "integer", "number", "boolean"}
        if source.get("uniqueItems") and scalar:
            result.setdefault("x-kubernetes-list-type", "set")
        if keyed:
            _check_list_keys(result, where)
        elif result.get("x-kubernetes-list-type") == "set" and not scalar:
            raise refusal(where, "is a set of lists or objects", 'use list_type="map", with list_map_keys=')

    @contextmanager
    def _inside_list(self, unkeyed: str) -> Iterator[None]:
        before, self._unkeyed_list = self._unkeyed_list, self._unkeyed_list or unkeyed
        yield
        self._unkeyed_list = before


def _check_list_keys(result: JSONObject, where: str) -> None:
    """Check that the keys of a list are fields of its items that are always there."""
    items = result["items"]
    fields = items.get("properties", {})
    for key in result["x-kubernetes-list-map-keys"]:
        if key not in fields:
            named = f"its fields are {', '.join(fields)}" if fields else "its items must be a model"
            raise refusal(where, f"has the list key {key!r}, which its items do not have", named)
        if key not in items.get("required", ()) and "default" not in fields[key]:
            raise refusal(
                where,
                f"has the list key {key!r}, which an item may lack",
                "make it required, or give it a default",
            )
        if fields[key].get("type") not in {"string", "integer", "number", "boolean"}:
            raise refusal(where, f"has the list key {key!r}, which is not a scalar", "use a string or a number")


def _kept_when_set(schema: JSONObject) -> list[JSONObject]:
    """Return rules that forbid the removal of immutable fields: a rule of the field itself is skipped then."""
    return [
        {
            "rule": f"!has(oldSelf.{cel_name(name)}) || has(self.{cel_name(name)})",
            "message": f"{name} is immutable: it cannot be removed",
        }
        for name, field in schema["properties"].items()
        if {"rule": "self == oldSelf", "message": "is immutable"} in field.get(_RULES, ())
        and name not in schema.get("required", ())
        and "default" not in field
    ]


def _name_of_part(part: Mapping[str, Any]) -> str:
    if "x-kubernetes-int-or-string" in part:
        return "int | str"
    return str(part.get("type") or part.get("$ref", "any")).rpartition("/")[2]


def _bounds_as_rules(source: Mapping[str, Any], schema: JSONObject) -> list[JSONObject]:
    """Return the bounds of a number or duration that is written as a string, as CEL rules."""
    value = "self" if schema.get("type") == "string" else "string(self)"
    rules: list[JSONObject] = []
    for key, (sign, words) in _BOUNDS.items():
        if key not in source:
            continue
        if schema.get("format") == "duration":
            bound = format_duration(_ISO_DURATION.validate_python(source[key]))
            check = f"self {sign} duration('{bound.replace('µ', 'u')}')"  # not every implementation of CEL reads µ
        else:
            bound = str(source[key])
            check = f"quantity({value}).compareTo(quantity('{bound}')) {sign} 0"
        rules.append({"rule": check, "message": f"must be {words} {bound}"})
    return rules


_ONLY_ON = {
    "x-kubernetes-list-type": ("list_type", "array"),
    "x-kubernetes-map-type": ("map_type", "object"),
    "x-kubernetes-embedded-resource": ("embedded_resource", "object"),
}
"""The extensions that the server refuses on other types."""


def _without_null(source: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return a schema without its null alternative, and whether there was one."""
    if "anyOf" in source and _NULL in source["anyOf"]:
        parts = [part for part in source["anyOf"] if part != _NULL]
        return {**source, "anyOf": parts}, True
    if None in (source.get("enum") or ()):
        return {**source, "enum": [value for value in source["enum"] if value is not None]}, True
    return source, False


def _add_type(result: JSONObject, where: str) -> None:
    if "enum" in result and "type" not in result:
        names = {bool: "boolean", str: "string", int: "integer", float: "number"}
        types = {names.get(type(value), "object") for value in result["enum"]}
        if len(types) != 1 or types == {"object"}:
            raise refusal(
                where, f"takes values of several types ({', '.join(sorted(types))})", "use values of one type"
            )
        result["type"] = types.pop()
    if result.get("type") == "null":
        raise refusal(where, "can only be null", "remove the field")
    if result.get("type") == "integer":
        result.setdefault("format", "int64")
    elif result.get("type") == "number":
        result.setdefault("format", "double")


def _add_bounds(result: JSONObject, source: Mapping[str, Any]) -> None:
    """Write exclusive bounds as in JSON Schema draft 4: a number and a flag."""
    for exclusive, bound, tighter in (("exclusiveMinimum", "minimum", max), ("exclusiveMaximum", "maximum", min)):
        if result.get("type") == "integer" and bound in result and abs(result[bound]) >= _INT64:
            del result[bound]  # what every 64-bit integer fulfills, and the server cannot read
        limit = source.get(exclusive)
        if limit is not None and tighter(limit, result.get(bound, limit)) == limit:
            result[bound] = limit
            result[exclusive] = True


def _with_short_description(schema: Mapping[str, Any]) -> JSONObject:
    """Return a class's schema with the first paragraph of its docstring as description."""
    result = dict(schema)
    description = first_paragraph(str(result.pop("description", "")))
    return result | {"description": description} if description else result


def _format(name: str) -> JSONObject:
    """Return a format that apiextensions checks, or one of pydantic's as these; others make the server warn."""
    known = recorded("schemas.json")
    return {"format": name} if name in known["formats"] else dict(known["other formats"].get(name, {}))


def first_paragraph(docstring: str) -> str:
    """Return the first paragraph of a docstring, without the sections that follow it."""
    return _PARAGRAPH_END.split(cleandoc(docstring), maxsplit=1)[0].rstrip()
