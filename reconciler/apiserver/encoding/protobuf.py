"""Objects of built-in kinds in protobuf, the form in which Go's typed clients and ``kubectl create`` send them.

Responses stay JSON, which these clients accept too. The messages are described in ``protobuf.json``, which is generated
from the sources of Kubernetes. The wire format is read and written without knowledge of the messages.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from reconciler._core.wire import JSONObject, exceeds_max_levels
from reconciler.apiserver.encoding.text import recorded

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


_LONGEST_INTEGER = 1e21
"""From here on Go writes a float with an exponent."""


class Unreadable(ValueError):
    """A body that is not an object in protobuf, or has an unknown kind."""


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message as pairs of field number and value: numbers as int, everything else as bytes.

    Raises:
        Unreadable: the message is incomplete.
    """
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        if wire == _LENGTH_DELIMITED:
            size, at = _read_varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise Unreadable(f"wire type {wire} is not known")
        if at + size > len(message):
            raise Unreadable("unexpected EOF")
        yield tag >> 3, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise Unreadable("unexpected EOF")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def write_field(number: int, value: int | bytes) -> bytes:
    """Return a field on the wire: a number as a varint, bytes with their length in front."""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


_MAGIC = b"k8s\x00"
_BESIDE = {"DeleteOptions": "meta.v1.DeleteOptions", "Scale": "autoscaling.v1.Scale"}
"""The messages that are not kinds; their group and version are those of the object that they are sent to."""


class _Member(NamedTuple):
    name: str
    pointer: bool
    repeated: bool
    mapped: bool
    form: str


@functools.cache
def _members(name: str) -> dict[int, _Member]:
    found = {}
    for number, text in recorded("encoding/protobuf.json")[name].items():
        label, _, form = text.partition(":")
        bare = form.strip("[]{}")
        found[int(number)] = _Member(label.lstrip("*"), label[:1] == "*", form[:1] == "[", form[:1] == "{", bare)
    return found


def read_protobuf(body: bytes, type_name: Callable[[str, str, str], str | None]) -> JSONObject:
    """Return the object in a body, as in JSON.

    Args:
        body: the body.
        type_name: returns the name of the type of a group, version and kind; None for one that is not stored.

    Raises:
        Unreadable: the body is not an object of a known kind.
    """
    if not body.startswith(_MAGIC):
        raise Unreadable("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = _fields(body[len(_MAGIC) :])
        about = _fields(envelope.get(1, b""))
        version, kind = _text(about.get(1, b"")), _text(about.get(2, b""))
        group, _, number = version.rpartition("/")
        name = _BESIDE.get(kind) or type_name(group, number, kind)
        if name is None:  # a review or an eviction: answered, never stored, so not in the table of kinds
            name = f"{group.removesuffix('.k8s.io') or 'core'}.{number}.{kind}"
        if name not in recorded("encoding/protobuf.json"):
            raise Unreadable(f'no kind "{kind}" in version "{version}" is read from protobuf')
        found = {"apiVersion": version, "kind": kind, **_object(envelope.get(2, b""), name)}
    except (ValueError, struct.error, OverflowError, msgspec.DecodeError) as error:
        raise Unreadable(str(error)) from None
    except RecursionError:
        found = None
    if found is None or exceeds_max_levels(found):
        raise Unreadable("exceeded max depth")
    return found


def _object(message: int | bytes, name: str) -> JSONObject:
    """Return a message as an object, without fields that are not set and zeros that mean nothing."""
    found: JSONObject = {}
    members = _members(name)
    for number, value in read_fields(message if isinstance(message, bytes) else b""):
        member = members.get(number)
        if member is None:
            continue
        if member.mapped:
            entry = _fields(value)
            found.setdefault(member.name, {})[_text(entry.get(1, b""))] = _value(entry.get(2, b""), member.form)
        elif member.repeated:
            found.setdefault(member.name, []).append(_value(value, member.form))
        else:
            read = _value(value, member.form)
            if not member.name:
                found.update(read)
            elif member.pointer or (read not in ("", 0, None) and read != {}):
                found[member.name] = read
    return found


def _value(value: int | bytes, form: str) -> Any:
    if form.startswith("@"):
        read = _SPECIAL.get(form[1:])
        return _object(value, form[1:]) if read is None else read(value)
    if isinstance(value, int):
        signed = value - 2**64 if value >= 2**63 else value
        return bool(value) if form == "b" else signed
    if form == "d":
        number = struct.unpack("<d", value)[0] if value else 0.0
        return int(number) if number.is_integer() and abs(number) < _LONGEST_INTEGER else number
    if form in ("i", "b"):
        return 0 if form == "i" else False
    return base64.b64encode(value).decode() if form == "y" else value.decode()


# types whose JSON differs from their message


def _fields(message: int | bytes) -> dict[int, int | bytes]:
    return dict(read_fields(message)) if isinstance(message, bytes) else {}


def _text(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _int_or_string(message: int | bytes) -> int | str:
    found = _fields(message)
    if found.get(1):
        return _text(found.get(3, b""))
    return int(_value(found.get(2, 0), "i"))


def _time(form: str) -> Callable[[int | bytes], str | None]:
    """Return the function that reads a Timestamp as a time in a form of `datetime.strftime`."""

    def read(message: int | bytes) -> str | None:
        found = _fields(message)
        if not message:
            return None
        seconds, nanos = (_value(found.get(number, 0), "i") for number in (1, 2))
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
        return moment.strftime(form)

    return read


def _json(message: int | bytes) -> Any:
    raw = _fields(message).get(1, b"")
    return msgspec.json.decode(raw) if isinstance(raw, bytes) and raw else None


def _schema_or(name: str, alternative: str, absent: Any) -> Callable[[int | bytes], Any]:
    """Return the function that reads a message of a schema or, in place of it, the value of another member."""

    def read(message: int | bytes) -> Any:
        for number, value in _fields(message).items():
            member = _members(name).get(number)
            if member and member.name == "schema":
                return _object(value, member.form[1:])
        return _object(message, name).get(alternative, absent)

    return read


_SPECIAL: dict[str, Callable[[int | bytes], Any]] = {
    "api.resource.Quantity": lambda message: _text(_fields(message).get(1, b"")),
    "apiextensions.v1.JSON": _json,
    "meta.v1.FieldsV1": _json,
    "meta.v1.MicroTime": _time("%Y-%m-%dT%H:%M:%S.%fZ"),
    "meta.v1.Time": _time("%Y-%m-%dT%H:%M:%SZ"),
    "runtime.RawExtension": _json,
    "util.intstr.IntOrString": _int_or_string,
}
_SPECIAL |= {
    name: _schema_or(name, alternative, absent)
    for name, alternative, absent in (
        ("apiextensions.v1.JSONSchemaPropsOrArray", "jSONSchemas", []),
        ("apiextensions.v1.JSONSchemaPropsOrBool", "allows", False),
        ("apiextensions.v1.JSONSchemaPropsOrStringArray", "property", []),
    )
}
