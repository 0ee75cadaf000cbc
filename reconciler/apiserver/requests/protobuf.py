"""Objects of built-in kinds in protobuf, the form in which Go's typed clients and ``kubectl create`` send them.

Responses stay JSON, which these clients accept too. The messages are described in ``protobuf.json``, which is generated
from the sources of Kubernetes.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.kinds import type_name
from reconciler.apiserver.encoding.protobuf_wire import Truncated, read_fields
from reconciler.apiserver.encoding.text import recorded

_MAGIC = b"k8s\x00"
_BESIDE = {"DeleteOptions": "meta.v1.DeleteOptions", "Scale": "autoscaling.v1.Scale"}
"""The messages that are not kinds; their group and version are those of the object that they are sent to."""


class Unreadable(Exception):
    """A body that is not an object in protobuf, or has an unknown kind."""


class _Member(NamedTuple):
    name: str
    pointer: bool
    repeated: bool
    mapped: bool
    form: str


@functools.cache
def _members(name: str) -> dict[int, _Member]:
    found = {}
    for number, text in recorded("requests/protobuf.json")[name].items():
        label, _, form = text.partition(":")
        bare = form.strip("[]{}")
        found[int(number)] = _Member(label.lstrip("*"), label[:1] == "*", form[:1] == "[", form[:1] == "{", bare)
    return found


def read_protobuf(body: bytes) -> JSONObject:
    """Return the object in a body, as in JSON; raise `Unreadable` if it is not one of a known kind."""
    if not body.startswith(_MAGIC):
        raise Unreadable("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        version, kind, raw = _open_envelope(body[len(_MAGIC) :])
        group, _, number = version.rpartition("/")
        name = _BESIDE.get(kind) or type_name(group, number, kind)
        if name is None:  # a review or an eviction: answered, never stored, so not in the table of kinds
            name = f"{group.removesuffix('.k8s.io') or 'core'}.{number}.{kind}"
        if name not in recorded("requests/protobuf.json"):
            raise Unreadable(f'no kind "{kind}" in version "{version}" is read from protobuf')
        return {"apiVersion": version, "kind": kind, **_object(raw, name)}
    except (Truncated, UnicodeDecodeError, struct.error, OverflowError, msgspec.DecodeError) as error:
        raise Unreadable(str(error)) from None


def _open_envelope(envelope: bytes) -> tuple[str, str, bytes]:
    version = kind = ""
    raw = b""
    for number, value in read_fields(envelope):
        if number == 1 and isinstance(value, bytes):
            for inner, text in read_fields(value):
                if isinstance(text, bytes):
                    version, kind = (text.decode(), kind) if inner == 1 else (version, text.decode())
        elif number == 2 and isinstance(value, bytes):
            raw = value
    return version, kind, raw


def _object(message: bytes, name: str) -> JSONObject:
    """Return a message as an object, without fields that are not set and zeros that mean nothing."""
    found: JSONObject = {}
    members = _members(name)
    for number, value in read_fields(message):
        member = members.get(number)
        if member is None:
            continue
        if member.mapped:
            key, inner = _entry(value, member.form)
            found.setdefault(member.name, {})[key] = inner
        elif member.repeated:
            found.setdefault(member.name, []).append(_value(value, member.form))
        else:
            read = _value(value, member.form)
            if not member.name:
                found.update(read)
            elif member.pointer or (read not in ("", 0, None) and read != {}):
                found[member.name] = read
    return found


def _entry(value: int | bytes, form: str) -> tuple[str, Any]:
    key, inner = "", _value(b"", form)
    for number, part in read_fields(value if isinstance(value, bytes) else b""):
        if number == 1 and isinstance(part, bytes):
            key = part.decode()
        elif number == 2:
            inner = _value(part, form)
    return key, inner


def _value(value: int | bytes, form: str) -> Any:
    if form.startswith("@"):
        read = _SPECIAL.get(form[1:])
        raw = value if isinstance(value, bytes) else b""
        return _object(raw, form[1:]) if read is None else read(raw)
    if isinstance(value, int):
        signed = value - 2**64 if value >= 2**63 else value
        return bool(value) if form == "b" else signed
    if form == "d":
        return struct.unpack("<d", value)[0] if value else 0.0
    if form in ("i", "b"):
        return 0 if form == "i" else False
    return base64.b64encode(value).decode() if form == "y" else value.decode()


# types whose JSON differs from their message


def _fields(message: bytes) -> dict[int, int | bytes]:
    return dict(read_fields(message))


def _text(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _int_or_string(message: bytes) -> int | str:
    found = _fields(message)
    if found.get(1):
        return _text(found.get(3, b""))
    number = _value(found.get(2, 0), "i")
    return number if isinstance(number, int) else 0


def _time(form: str) -> Callable[[bytes], str | None]:
    """Return the function that reads a Timestamp as a time in a form of `datetime.strftime`."""

    def read(message: bytes) -> str | None:
        found = _fields(message)
        if not message:
            return None
        seconds, nanos = (_value(found.get(number, 0), "i") for number in (1, 2))
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
        return moment.strftime(form)

    return read


def _json(message: bytes) -> Any:
    raw = _fields(message).get(1, b"")
    return msgspec.json.decode(raw) if isinstance(raw, bytes) and raw else None


def _schema_or(name: str, alternative: str, absent: Any) -> Callable[[bytes], Any]:
    """Return the function that reads a message of a schema or, in place of it, the value of another member."""

    def read(message: bytes) -> Any:
        for number, value in read_fields(message):
            member = _members(name).get(number)
            if member and member.name == "schema" and isinstance(value, bytes):
                return _object(value, member.form[1:])
        return _object(message, name).get(alternative, absent)

    return read


_SPECIAL: dict[str, Callable[[bytes], Any]] = {
    "api.resource.Quantity": lambda message: _text(_fields(message).get(1, b"")),
    "apiextensions.v1.JSON": _json,
    "meta.v1.FieldsV1": _json,
    "meta.v1.MicroTime": _time("%Y-%m-%dT%H:%M:%S.%fZ"),
    "meta.v1.Time": _time("%Y-%m-%dT%H:%M:%SZ"),
    "runtime.RawExtension": _json,
    "util.intstr.IntOrString": _int_or_string,
}
_SPECIAL |= {
    f"apiextensions.v1.{name}": _schema_or(f"apiextensions.v1.{name}", alternative, absent)
    for name, alternative, absent in (
        ("JSONSchemaPropsOrArray", "jSONSchemas", []),
        ("JSONSchemaPropsOrBool", "allows", False),
        ("JSONSchemaPropsOrStringArray", "property", []),
    )
}
