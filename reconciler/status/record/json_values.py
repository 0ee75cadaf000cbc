"""Turn what callers record into plain JSON, and copy it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from reconciler.meta import format_micro_time, format_time

__all__ = ["copy_json", "digest", "plain", "written_time"]


def copy_json(value: Any) -> Any:
    """Return a copy that shares no dict and no list with `value`."""
    try:
        return msgspec.to_builtins(value)
    except TypeError:  # not plain JSON: an object of the caller's, or a mapping that is no dict
        return _copy(value)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    return value


def digest(value: Any) -> bytes:
    """Return a short fingerprint of a JSON value, the same whatever the order of its keys."""
    encoded = msgspec.json.encode(value, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def plain(value: Any, where: str = "value") -> Any:
    """Return `value` as JSON that nobody else holds.

    Reads models of pydantic (those fields that were set, under their names on the wire), dataclasses, enums, tuples,
    sets (sorted), and aware datetimes, which become RFC 3339 in UTC, with six digits of the second unless it is whole.

    Raises:
        TypeError: the value cannot be JSON; the message says where it stands, not what it is.
        ValueError: a number is not finite, or a datetime has no time zone.
    """
    if value is None or type(value) in {str, bool, int}:
        return value
    if isinstance(value, Mapping):
        return {_key(key, where): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, AbstractSet):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return _scalar(value, where) if isinstance(value, (Enum, str, int, float, datetime)) else _model(value, where)


def _scalar(value: Enum | str | float | datetime, where: str) -> Any:
    if isinstance(value, Enum):
        return plain(value.value, where)
    if isinstance(value, datetime):
        return _time(value, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is no finite number, which JSON cannot say")
    return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))


def _key(key: object, where: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise TypeError(f"a key of {where} is a {type(key).__name__}; JSON has only texts as keys")
    return key


def _time(moment: datetime, where: str) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{where} is a datetime without time zone; write datetime.now(UTC)")
    return written_time(moment)


def written_time(moment: datetime) -> str:
    """Write a time as the API does: in UTC, with six digits of the second unless it is whole."""
    return format_micro_time(moment) if moment.microsecond else format_time(moment)


def _model(value: Any, where: str) -> Any:
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json", by_alias=True, exclude_unset=True), where)
    try:
        return plain(msgspec.to_builtins(value), where)
    except TypeError:
        raise TypeError(f"{where} is a {type(value).__name__}, which is no JSON") from None
