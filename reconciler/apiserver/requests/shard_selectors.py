"""Read ``shardSelector`` and match objects with it: ranges over the 64-bit FNV-1a hash of a uid or a namespace."""

from __future__ import annotations

import re
from typing import Any

from reconciler.apiserver.encoding.refusals import Refusal, internal_error

__all__ = ["ShardSelector", "parse_shards"]

_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*", re.DOTALL)
_LITERAL = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_HEX = frozenset("0123456789abcdef")
_FULL = "0x1" + "0" * 16
_FIELDS = ("object.metadata.uid", "object.metadata.namespace")


class ShardSelector:
    """Match objects of which a field's hash lies in one of some ranges.

    Args:
        field: the path of the field, the same for all ranges.
        ranges: first hash and the one after the last of each, as they are written.
    """

    def __init__(self, field: str, ranges: list[tuple[str, str]]) -> None:
        self._name = field.rpartition(".")[2]
        self._ranges = [(int(start, 16), int(end, 16)) for start, end in ranges]
        self.text = " || ".join(f"shardRange({field}, '{start}', '{end}')" for start, end in ranges)

    def matches(self, doc: dict[str, Any]) -> bool:
        """Tell whether a document belongs to it."""
        found = _hash(str(doc["metadata"].get(self._name, "")))
        return any(start <= found < end for start, end in self._ranges)


def parse_shards(text: str) -> ShardSelector:
    """Read a shard selector.

    Raises:
        Refusal: 500, as the real server answers when it cannot be read.
    """
    found = [_range(part) for part in text.split("||")]
    fields = [field for field, _, _ in found]
    for field in fields[1:]:
        if field != fields[0]:
            raise _invalid(f'all shard ranges must use the same field, got "{fields[0]}" and "{field}"')
    return ShardSelector(fields[0], [(start, end) for _, start, end in found])


def _range(text: str) -> tuple[str, str, str]:
    call = _CALL.fullmatch(text)
    if call is None:
        raise _invalid("CEL parse error: Syntax error")
    if call[1] != "shardRange":
        raise _invalid(f'unsupported function "{call[1]}"; only shardRange() and || are allowed')
    arguments = [part.strip() for part in call[2].split(",")]
    if len(arguments) != 3:
        raise _invalid(f"shardRange() requires exactly 3 arguments, got {len(arguments)}")
    field, start, end = arguments[0], _bound("hexStart", arguments[1]), _bound("hexEnd", arguments[2])
    if field not in _FIELDS:
        raise _invalid(f'unsupported field path "{field}"; supported: {", ".join(_FIELDS)}')
    if int(start, 16) >= int(end, 16):
        raise _invalid(f"shard range start {start} must be less than end {end}")
    return field, start, end


def _bound(name: str, text: str) -> str:
    literal = _LITERAL.fullmatch(text)
    if literal is None:
        raise _invalid(f"{name} must be a string literal, got {'int64' if text.isdigit() else text}")
    value = literal[1] or literal[2] or ""
    if not value.startswith("0x"):
        raise _invalid(f"{name} must have '0x' prefix, got \"{value}\"")
    digits = value[2:]
    if not digits:
        raise _invalid(f"{name}: hex value is required after '0x'")
    if len(digits) > 17:
        raise _invalid(f'{name}: hex value too long ({len(digits)} chars, max 17): "{digits}"')
    for letter in digits:
        if letter not in _HEX:
            raise _invalid(f'{name}: invalid hex character "{letter}" in "{value}"')
    if len(digits) == 17 and value != _FULL:
        raise _invalid(f"{name}: 17-digit hex value must be '{_FULL}' (2^64), got \"{value}\"")
    if len(digits) < 16:
        padded = f"0x{digits:0>16}"
        raise _invalid(f'{name} must be a 0x-prefixed 16-digit hex value, got "{value}" (did you mean "{padded}"?)')
    return value


def _hash(text: str) -> int:
    found = 14695981039346656037
    for byte in text.encode():
        found = ((found ^ byte) * 1099511628211) % (1 << 64)
    return found


def _invalid(problem: str) -> Refusal:
    return internal_error(f"invalid shard selector: {problem}")
