"""OpenAPI 2 definitions in protobuf, as kubectl reads them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.apiserver.encoding.protobuf_wire import write_field
from reconciler.wire import JSONObject

__all__ = ["encode_definitions"]

_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13, "discriminator": 26}
_DOUBLES = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_INTEGERS = {
    "exclusiveMaximum": 8,
    "exclusiveMinimum": 10,
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "uniqueItems": 16,
    "maxProperties": 17,
    "minProperties": 18,
    "readOnly": 27,
}
_ANY = {"default": 5, "example": 30}
_REQUIRED, _ENUM, _ADDITIONAL, _TYPE, _ITEMS, _ALL_OF, _PROPERTIES, _EXTENSION = 19, 20, 21, 22, 23, 24, 25, 31
"""The field numbers of the message Schema in the protocol of gnostic."""


def encode_definitions(info: JSONObject, definitions: Mapping[str, JSONObject]) -> bytes:
    """Return a Document with definitions and without paths; without `info`, a part that is appended to another one."""
    named = write_field(9, _named_schemas(definitions)) if definitions else b""
    if not info:
        return named
    head = _text(1, str(info["title"])) + _text(2, str(info["version"]))
    return _text(1, "2.0") + write_field(2, head) + named


def _text(number: int, text: str) -> bytes:
    return write_field(number, text.encode())


def _named_schemas(schemas: Mapping[str, JSONObject]) -> bytes:
    encoded = (_text(1, name) + write_field(2, _schema(schema)) for name, schema in schemas.items())
    return b"".join(write_field(1, each) for each in encoded)


def _any(value: Any) -> bytes:
    """Return a value as YAML, of which JSON is a part."""
    return _text(2, json.dumps(value) + "\n")


def _schema(schema: JSONObject) -> bytes:
    return b"".join(_member(key, value) for key, value in schema.items())


def _member(key: str, value: Any) -> bytes:
    if key in _TEXTS:
        return _text(_TEXTS[key], value)
    if key in _INTEGERS:
        return write_field(_INTEGERS[key], int(value))
    if key in _DOUBLES:
        return bytes([_DOUBLES[key] << 3 | 1]) + struct.pack("<d", value)
    if key in _ANY:
        return write_field(_ANY[key], _any(value))
    if key.startswith("x-"):
        return write_field(_EXTENSION, _text(1, key) + write_field(2, _any(value)))
    return _COMPOSED[key](value) if key in _COMPOSED else b""


def _additional(value: Any) -> bytes:
    return write_field(_ADDITIONAL, write_field(2, 1) if value is True else write_field(1, _schema(value or {})))


_COMPOSED: dict[str, Callable[[Any], bytes]] = {
    "required": lambda value: b"".join(_text(_REQUIRED, name) for name in value),
    "enum": lambda value: b"".join(write_field(_ENUM, _any(each)) for each in value),
    "additionalProperties": _additional,
    "type": lambda value: write_field(_TYPE, _text(1, value)),
    "items": lambda value: write_field(_ITEMS, write_field(1, _schema(value))),
    "allOf": lambda value: b"".join(write_field(_ALL_OF, _schema(each)) for each in value),
    "properties": lambda value: write_field(_PROPERTIES, _named_schemas(value)),
}
"""The members that contain schemas or lists, and their encoders."""
