"""Read and write the protobuf wire format, without knowing what the messages mean."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Truncated", "read_fields", "read_varint", "write_field"]


class Truncated(ValueError):
    """Say that a message ends in the middle of a field."""


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message by number: numbers as int, everything else as bytes.

    Raises:
        Truncated: the message is no whole one.
    """
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = read_varint(message, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = read_varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise Truncated(f"wire type {wire} is not known")
        if at + size > len(message):
            raise Truncated("unexpected EOF")
        yield tag >> 3, message[at : at + size]
        at += size


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it.

    Raises:
        Truncated: the number does not end.
    """
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
    """Return a field of a message: a number, or bytes that say how long they are."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
