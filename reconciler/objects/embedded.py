"""Parts of built-in kinds as fields of models: the classes of ``lightkube.models``, such as ``JobTemplateSpec``.

They are msgspec structs. pydantic asks a class for its schema, so their common base gets the methods that answer.
lightkube itself is not imported here.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from pydantic_core import core_schema

from reconciler._core.wire import JSONObject

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
