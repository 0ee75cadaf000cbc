"""OpenAPI 2 definitions in protobuf, as kubectl reads them.

``openapi_protobuf.json`` has the number and the form of each field of the message Schema in the protocol of gnostic.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.apiserver.encoding.data_files import recorded
from reconciler.apiserver.encoding.protobuf_wire import write_field
from reconciler.wire import JSONObject

__all__ = ["encode_definitions"]

_EXTENSION = 31


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
    if key.startswith("x-"):
        return write_field(_EXTENSION, _text(1, key) + write_field(2, _any(value)))
    number, form = recorded("encoding/openapi_protobuf.json").get(key, (0, ""))
    return _ENCODERS[form](number, value) if form else b""


def _additional(number: int, value: Any) -> bytes:
    return write_field(number, write_field(2, 1) if value is True else write_field(1, _schema(value or {})))


_ENCODERS: dict[str, Callable[[int, Any], bytes]] = {
    "additional": _additional,
    "any": lambda number, value: write_field(number, _any(value)),
    "double": lambda number, value: bytes([number << 3 | 1]) + struct.pack("<d", value),
    "items": lambda number, value: write_field(number, write_field(1, _schema(value))),
    "number": lambda number, value: write_field(number, int(value)),
    "properties": lambda number, value: write_field(number, _named_schemas(value)),
    "schemas": lambda number, value: b"".join(write_field(number, _schema(each)) for each in value),
    "text": _text,
    "texts": lambda number, value: b"".join(_text(number, each) for each in value),
    "type": lambda number, value: write_field(number, _text(1, value)),
    "values": lambda number, value: b"".join(write_field(number, _any(each)) for each in value),
}
