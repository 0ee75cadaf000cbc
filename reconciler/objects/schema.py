"""Make a structural schema, as CustomResourceDefinitions need it, from a pydantic model.

The API describes less than JSON Schema: no references, no unions but integer-or-string, no keys of objects; and a null
member means the same to it as an absent one. What cannot be said is refused with the model and the field, never
weakened in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from reconciler.errors import ReconcilerError
from reconciler.meta import without_nulls

__all__ = ["SchemaError", "structural_schema"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEPT = _words(
    "type format default enum minimum maximum multipleOf minLength maxLength pattern minItems maxItems "
    "minProperties maxProperties example externalDocs"
)
_SAYS_NOTHING = _words("title examples deprecated readOnly contentMediaType contentEncoding $comment")
_HANDLED = _words(
    "$defs $ref allOf anyOf const description properties required items additionalProperties uniqueItems "
    "exclusiveMinimum exclusiveMaximum"
)
_KNOWN = _KEPT | _SAYS_NOTHING | _HANDLED
# The formats that apiextensions checks; others make the server warn. "duration" is left out: pydantic writes ISO 8601
# where the API reads Go's form.
_FORMATS = _words(
    "bsonobjectid byte cidr creditcard date date-time datetime double email float hexcolor hostname int32 int64 ipv4 "
    "ipv6 isbn isbn10 isbn13 mac password rgbcolor ssn uri uuid uuid3 uuid4 uuid5"
)
_NULL = {"type": "null"}


class SchemaError(ReconcilerError, TypeError):
    """Say that the API cannot describe a field: ``Model.field``, why, and what to write instead."""


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> dict[str, Any]:
    """Return the structural schema of a model.

    Args:
        model: its wire names (aliases) become the properties.
        defaults: whether the server fills in the model's defaults. Off for ``status``: a server that adds to what a
            controller wrote would make each write look foreign.

    Raises:
        SchemaError: a field has a type that the API cannot describe.
    """
    try:
        schema = model.model_json_schema(by_alias=True)
    except PydanticInvalidForJsonSchema as error:
        raise SchemaError(f"{model.__name__}: {error}") from error
    return _Walk(schema.get("$defs", {}), defaults=defaults).schema(schema, model.__name__)


class _Walk:
    def __init__(self, definitions: Mapping[str, Any], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults
        self._inside: list[str] = []

    def schema(self, source: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the structural form of what stands at `where`, which may not be null."""
        for composed in (self._reference, self._all_of, self._any_of):
            result = composed(source, where)
            if result is not None:
                return result
        return self._plain(source, where)

    def nullable(self, source: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the structural form of an item or a map's value, where a null can be told from nothing."""
        inner, null = _without_null(source)
        result = self.schema(inner, where)
        return result | {"nullable": True} if null else result

    def _reference(self, source: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        if "$ref" not in source:
            return None
        name = str(source["$ref"]).rpartition("/")[2]
        target = self._definitions[name]
        if name in self._inside:
            raise _refusal(
                where, f"contains {target.get('title', name)} again", "a schema has no recursion; use Any or dict"
            )
        self._inside.append(name)
        siblings = {key: value for key, value in source.items() if key not in {"$ref", "$defs"}}
        owner = str(target.get("title", name)) if "properties" in target else where
        result = self.schema({**target, **siblings}, owner)
        self._inside.pop()
        return result

    def _all_of(self, source: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        parts = source.get("allOf")
        if parts is None:
            return None
        if len(parts) != 1:
            raise _refusal(where, "has to fit several schemas at once", "write one model with all fields")
        siblings = {key: value for key, value in source.items() if key != "allOf"}
        return self.schema({**parts[0], **siblings}, where)

    def _any_of(self, source: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        parts = source.get("anyOf")
        if parts is None:
            return None
        siblings = {key: value for key, value in source.items() if key != "anyOf"}
        if len(parts) == 1:
            return self.schema({**parts[0], **siblings}, where)
        if sorted(str(part.get("type")) for part in parts) == ["integer", "string"]:
            # Bounds of the number and patterns of the text bind only values of their own type.
            return self._int_or_string({**parts[0], **parts[1], **siblings})
        kinds = " | ".join(str(part.get("type") or part.get("$ref", "?")).rpartition("/")[2] for part in parts)
        raise _refusal(where, f"is a union ({kinds})", "only X | None and int | str can be described; use Any")

    def _int_or_string(self, source: Mapping[str, Any]) -> dict[str, Any]:
        result = self._common(source)
        _say_bounds(result, source)
        for key in ("type", "format"):
            result.pop(key, None)
        return result | {"x-kubernetes-int-or-string": True}

    def _plain(self, source: Mapping[str, Any], where: str) -> dict[str, Any]:
        self._check_keys(source, where)
        result = self._common(source)
        if "const" in source:
            result["enum"] = [source["const"]]
        _say_type(result, where)
        _say_bounds(result, source)
        kind = result.get("type")
        if kind == "object":
            self._say_members(result, source, where)
        elif kind == "array":
            self._say_items(result, source, where)
        elif kind is None and "x-kubernetes-int-or-string" not in result:
            result["x-kubernetes-preserve-unknown-fields"] = True
        return result

    def _common(self, source: Mapping[str, Any]) -> dict[str, Any]:
        result = {key: value for key, value in source.items() if key in _KEPT or key.startswith("x-kubernetes-")}
        if description := source.get("description"):
            result["description"] = cleandoc(str(description))
        default = without_nulls(result.pop("default", None))
        if self._defaults and default is not None:
            result["default"] = default
        if result.get("format") not in _FORMATS:
            result.pop("format", None)
        return result

    def _check_keys(self, source: Mapping[str, Any], where: str) -> None:
        for key in source:
            if key not in _KNOWN and not key.startswith("x-kubernetes-"):
                raise _refusal(
                    where, f"needs {key!r} of JSON Schema, which the API lacks", _HINTS.get(key, "use another type")
                )

    def _say_members(self, result: dict[str, Any], source: Mapping[str, Any], where: str) -> None:
        properties = source.get("properties") or {}
        others = source.get("additionalProperties")
        if properties:
            if isinstance(others, Mapping) and others:
                raise _refusal(where, "has fields and typed extra fields", "move the extra ones into a dict field")
            result["properties"] = {name: self._member(name, item, where) for name, item in properties.items()}
            if required := source.get("required"):
                result["required"] = list(required)
        elif isinstance(others, Mapping) and others:
            result["additionalProperties"] = self.nullable(others, f"{where}[*]")
        elif others is not None and others is not False:
            result["x-kubernetes-preserve-unknown-fields"] = True

    def _member(self, name: str, source: Mapping[str, Any], owner: str) -> dict[str, Any]:
        where = f"{owner}.{name}"
        inner, null = _without_null(source)
        if null and "default" in inner and inner["default"] is None:
            inner = {key: value for key, value in inner.items() if key != "default"}
        elif null:
            raise _refusal(
                where, "may be null without being None by default", "give it the default None: null means absent"
            )
        return self.schema(inner, where)

    def _say_items(self, result: dict[str, Any], source: Mapping[str, Any], where: str) -> None:
        result["items"] = self.nullable(source.get("items") or {}, f"{where}[]")
        scalar = result["items"].get("type") in {"string", "integer", "number", "boolean"}
        if source.get("uniqueItems") and scalar:
            result.setdefault("x-kubernetes-list-type", "set")


_HINTS = {
    "writeOnly": "pydantic writes a secret as stars; name a Secret instead",
    "oneOf": "a union of models cannot be described; use one model with optional parts",
    "discriminator": "a union of models cannot be described; use one model with optional parts",
    "prefixItems": "use a model, or a list of one type",
    "patternProperties": "use dict[str, …], and a rule on the keys",
    "propertyNames": "use dict[str, …], and a rule on the keys",
}


def _without_null(source: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return a schema without its null alternative, and whether there was one."""
    if "anyOf" in source and _NULL in source["anyOf"]:
        parts = [part for part in source["anyOf"] if part != _NULL]
        return {**source, "anyOf": parts}, True
    if None in (source.get("enum") or ()):
        return {**source, "enum": [value for value in source["enum"] if value is not None]}, True
    return source, False


def _say_type(result: dict[str, Any], where: str) -> None:
    if "enum" in result and "type" not in result:
        names = {bool: "boolean", str: "string", int: "integer", float: "number"}
        types = {names.get(type(value), "object") for value in result["enum"]}
        if len(types) != 1 or types == {"object"}:
            raise _refusal(
                where, f"takes values of several types ({', '.join(sorted(types))})", "use values of one type"
            )
        result["type"] = types.pop()
    if result.get("type") == "null":
        raise _refusal(where, "can only be null", "leave the field out")
    if result.get("type") == "integer":
        result.setdefault("format", "int64")
    elif result.get("type") == "number":
        result.setdefault("format", "double")


def _say_bounds(result: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Write exclusive bounds as JSON Schema's draft 4 did: a number and a flag."""
    for exclusive, bound, tighter in (("exclusiveMinimum", "minimum", max), ("exclusiveMaximum", "maximum", min)):
        limit = source.get(exclusive)
        if limit is not None and tighter(limit, result.get(bound, limit)) == limit:
            result[bound] = limit
            result[exclusive] = True


def _refusal(where: str, what: str, instead: str) -> SchemaError:
    return SchemaError(f"{where} {what}: {instead}")
