"""Write objects in protobuf, as Go's typed clients do."""

from __future__ import annotations

import base64
import functools
import json
import struct
from datetime import datetime
from importlib import resources
from typing import Any

_MESSAGES: dict[str, dict[str, str]] = json.loads(
    resources.files("reconciler.apiserver.encoding").joinpath("protobuf.json").read_text()
)
_TYPES: dict[str, str] = json.loads(resources.files("reconciler.apiserver.builtin").joinpath("types.json").read_text())[
    "kinds"
]
_BESIDE = {
    "Binding": "core.v1.Binding",
    "DeleteOptions": "meta.v1.DeleteOptions",
    "Eviction": "policy.v1.Eviction",
    "TokenRequest": "authentication.v1.TokenRequest",
}
"""The messages of documents that are not stored."""
PROTOBUF = "application/vnd.kubernetes.protobuf"


def to_protobuf(document: dict[str, Any]) -> bytes:
    """Return a document in its envelope."""
    version, kind = document["apiVersion"], document["kind"]
    group, _, number = version.rpartition("/")
    name = _BESIDE.get(kind) or _TYPES[f"{group}/{number}/{kind}"]
    described = _bytes(1, version.encode()) + _bytes(2, kind.encode())
    return b"k8s\x00" + _bytes(1, described) + _bytes(2, _message(document, name)) + _bytes(3, b"") + _bytes(4, b"")


def _varint(number: int) -> bytes:
    number %= 2**64
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _message(value: dict[str, Any], name: str) -> bytes:
    found = b""
    for number, text in _MESSAGES[name].items():
        label, _, form = text.partition(":")
        key, bare = label.lstrip("*"), form.strip("[]{}")
        member = value if not key else value.get(key)
        if member is None:
            continue
        if form.startswith("["):
            found += b"".join(_field(int(number), item, bare) for item in member)
        elif form.startswith("{"):
            for name_, item in member.items():
                found += _bytes(int(number), _bytes(1, name_.encode()) + _field(2, item, bare))
        else:
            found += _field(int(number), member, bare)
    return found


def _field(number: int, value: Any, form: str) -> bytes:
    if form == "d":
        return _varint(number << 3 | 1) + struct.pack("<d", value)
    if form in ("i", "b"):
        return _varint(number << 3) + _varint(int(value))
    if form == "s":
        return _bytes(number, value.encode())
    if form == "y":
        return _bytes(number, base64.b64decode(value))
    special = _SPECIAL.get(form)
    return _bytes(number, _message(value, form[1:]) if special is None else special(value))


def _time(text: str) -> bytes:
    moment = datetime.fromisoformat(text)
    return _field(1, int(moment.timestamp()), "i") + _field(2, moment.microsecond * 1000, "i")


def _int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return _field(1, 1, "i") + _field(3, value, "s")
    return _field(1, 0, "i") + _field(2, value, "i")


def _schema_or(name: str, alternative: str, value: Any) -> bytes:
    if isinstance(value, dict):
        return _message({"schema": value}, name)
    return _message({alternative: value}, name)


_SPECIAL = {
    "@apiextensions.v1.JSON": lambda value: _bytes(1, json.dumps(value).encode()),
    "@apiextensions.v1.JSONSchemaPropsOrArray": functools.partial(
        _schema_or, "apiextensions.v1.JSONSchemaPropsOrArray", "jSONSchemas"
    ),
    "@apiextensions.v1.JSONSchemaPropsOrBool": functools.partial(
        _schema_or, "apiextensions.v1.JSONSchemaPropsOrBool", "allows"
    ),
    "@api.resource.Quantity": lambda value: _field(1, value, "s"),
    "@meta.v1.Time": _time,
    "@meta.v1.MicroTime": _time,
    "@util.intstr.IntOrString": _int_or_string,
}
