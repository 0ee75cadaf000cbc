"""The protobuf wire format, read and written without knowledge of the messages' schemas."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


class Truncated(ValueError):
    """A message that ends in the middle of a field, or has a field of an unknown wire type."""


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message as pairs of field number and value: numbers as int, everything else as bytes.

    Raises:
        Truncated: the message is incomplete.
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
            raise Truncated(f"wire type {wire} is not known")
        if at + size > len(message):
            raise Truncated("unexpected EOF")
        yield tag >> 3, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise Truncated("unexpected EOF")
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
