"""JSON documents: scalars such as times and versions, comparison by meaning, merge patches (RFC 7386), and paths.

Comparison follows an API server: a null member equals an absent one, key order does not matter, and ``1`` equals
``1.0``. Unlike in Python, a boolean is never a number, and a number is never a string.

Resource versions of one kind in one cluster are integers (KEP-5504, stable in Kubernetes 1.35). Servers of aggregated
APIs may use other strings, which can only be compared for equality.

A path is a sequence of keys, or a string of keys joined by dots (``"a.b"``). Keys that contain a dot need the sequence.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from msgspec import to_builtins
from msgspec.json import encode as _encode

if TYPE_CHECKING:
    from fractions import Fraction

    from reconciler._core.wire import JSONObject


def encodable(text: str) -> str:
    """Replace each lone surrogate in text with ``?``: UTF-8, and so the API, cannot represent it.

    Python has them in the names of files that are not valid UTF-8.
    """
    return text if text.isascii() else text.encode(errors="replace").decode()


def format_time(moment: datetime) -> str:
    """Format metav1.Time: UTC, whole seconds, fractions truncated."""
    return _in_utc(moment).isoformat(timespec="seconds") + "Z"


def format_micro_time(moment: datetime) -> str:
    """Format metav1.MicroTime: UTC with six decimals."""
    return _in_utc(moment).isoformat(timespec="microseconds") + "Z"


def human_duration(seconds: float) -> str:
    """Format a duration as a person would say it: ``"12 ms"``, ``"48 s"``, ``"5 min"``, ``"2.5 h"``, ``"3 days"``."""
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time, with or without fractions.

    Raises:
        ValueError: the text is not such a time, or has no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return moment.astimezone(UTC)


_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40}))"
    r"(?:(?P<binary>[KMGTPE]i)|(?P<decimal>[numkMGTPE])|[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_quantity(text: str) -> Fraction:
    """Parse a quantity exactly: ``"500m"``, ``"1.5Gi"``, ``"1e3"``.

    Raises:
        ValueError: the string is not a valid quantity.
    """
    from fractions import Fraction  # loads decimal, which a batcher without quantities does not need

    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text[:40]!r} is not a valid quantity: write a number with a suffix, such as '500m' or '1.5Gi'"
        )
    value: Fraction = Fraction(found["number"])
    if found["binary"]:
        return value * Fraction(1024 ** ("KMGTPE".index(found["binary"][0]) + 1))
    exponent = _DECIMAL[found["decimal"]] if found["decimal"] else int(found["exponent"] or 0)
    return value * Fraction(10**exponent) if exponent >= 0 else value / Fraction(10**-exponent)


_is_number = re.compile(r"[0-9]{1,100}").fullmatch  # Python refuses to convert more than 4,300 digits

Version = int | str
"""A resource version: an int if it is a decimal number, else the opaque string."""


@functools.lru_cache(maxsize=1024)  # a write is compared with its event, its response and several memories
def parse_version(text: str) -> Version:
    """Parse a version: an int, or the text itself if it is not a decimal number of 100 digits at most."""
    return int(text) if _is_number(text) else text


def is_newer(version: Version, than: Version | None) -> bool:
    """Return whether `version` comes after `than`; for opaque versions, whether they differ.

    None comes before everything.
    """
    if than is None:
        return True
    if isinstance(version, int) and isinstance(than, int):
        return version > than
    return version != than


def is_older(version: Version, than: Version | None) -> bool:
    """Return whether `version` comes before `than`; False for None, and for opaque versions, which have no order."""
    return isinstance(version, int) and isinstance(than, int) and version < than


_SCALARS = frozenset({str, int, float, bool, type(None)})
_NO_OBJECTS = _SCALARS | {list}


def is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a JSON value is an object: a dict, or another mapping."""
    kind = type(value)
    # isinstance with an abstract class costs as much as ten of these comparisons, and nearly every value is plain JSON.
    return kind is dict or (kind not in _NO_OBJECTS and isinstance(value, Mapping))


def equal(left: Any, right: Any) -> bool:
    """Return whether two JSON values mean the same."""
    kind, other_kind = type(left), type(right)
    if left is right:
        return True
    if kind is other_kind is dict or (is_object(left) and is_object(right)):
        for key, value in left.items():
            other = right.get(key)
            if type(value) is type(other) and type(value) in _SCALARS:  # nearly all members
                if value != other:
                    return False
            elif not equal(value, other):
                return False
        return right.keys() <= left.keys() or all(right[key] is None for key in right.keys() - left.keys())
    if kind is list and other_kind is list:
        return len(left) == len(right) and all(map(equal, left, right))
    are_numbers = isinstance(left, (int, float)) and isinstance(right, (int, float)) and bool not in (kind, other_kind)
    return (kind is other_kind or are_numbers) and bool(left == right)


def identical(left: Any, right: Any) -> bool:
    """Return whether two JSON values certainly mean the same, at a fraction of the cost of `equal`.

    False may be wrong: for ``1`` and ``1.0``, for a null member and an absent one, and for what cannot be encoded.
    """
    if type(left) in _SCALARS:
        return type(left) is type(right) and bool(left == right)
    try:
        return _encode(left, order="deterministic") == _encode(right, order="deterministic")
    except (UnicodeEncodeError, RecursionError):
        return False


def without_nulls(value: Any) -> Any:
    """Return a value without null members of objects, at any depth; the value itself if it has none.

    Nulls that are list items are kept.
    """
    try:
        if type(value) in _SCALARS or b"null" not in _encode(value):
            return value
    except (TypeError, UnicodeEncodeError):  # not plain JSON, or not encodable
        pass
    if is_object(value):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def copy_json(value: Any) -> Any:
    """Return a copy that shares no dict and no list with `value`."""
    if isinstance(value, tuple):
        return [copy_json(item) for item in value]
    try:
        return to_builtins(value)
    except TypeError:  # not plain JSON: one of the caller's objects, or a mapping other than a dict
        if isinstance(value, Mapping):
            return {key: copy_json(item) for key, item in value.items()}
        return [copy_json(item) for item in value] if isinstance(value, list) else value


def plain_model(value: Any, format_time: Callable[[datetime], str]) -> Any:
    """Return a generated model of an official client under its wire names; its own ``to_dict`` uses Python's names."""
    names = getattr(value, "attribute_map", None)
    if isinstance(names, Mapping):
        members = ((wire, getattr(value, name)) for name, wire in names.items())
        return {wire: plain_model(member, format_time) for wire, member in members if member is not None}
    if isinstance(value, Mapping):
        return {str(key): plain_model(item, format_time) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_model(item, format_time) for item in value]
    return format_time(value) if isinstance(value, datetime) else copy_json(value)


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply `patch` to `target`, and return the result; neither argument is changed.

    Parts of `target` that the patch does not touch are shared with the result, not copied.
    """
    if not is_object(patch):
        return patch
    result = dict(target) if is_object(target) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif type(value) in _NO_OBJECTS:
            result[key] = value
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> JSONObject:
    """Compute the smallest merge patch that turns `old` into `new`; ``{}`` if they mean the same.

    Its members are in the order of `new`, followed by removals. Lists are replaced as a whole. Null members of `new`
    count as absent, which is how a server stores them.
    """
    patch: JSONObject = {}
    for key, after in new.items():
        before = old.get(key)
        if before is after or (before is not None and equal(before, after)):
            continue
        if type(after) in _SCALARS:
            patch[key] = after
        elif is_object(before) and is_object(after):
            patch[key] = merge_diff(before, after)
        else:
            patch[key] = without_nulls(after)
    for key, before in old.items():
        if before is not None and key not in new:
            patch[key] = None
    return patch


class PathError(ValueError):
    """A path that is empty, or that leads through a value other than an object."""


def parse_path(path: str | Sequence[str]) -> tuple[str, ...]:
    """Parse a path into its keys.

    Raises:
        PathError: the path is empty, or has a key that is empty, not a string, or cannot be sent (a lone surrogate).
    """
    keys = tuple(path.split(".")) if isinstance(path, str) else tuple(path)
    if not keys or not all(_is_key(key) for key in keys):
        raise PathError(f"{path!r} is not a valid path: write 'a.b', or a sequence of non-empty keys")
    return keys


def _is_key(key: object) -> bool:
    return isinstance(key, str) and bool(key) and encodable(key) == key


def format_path(keys: Sequence[str]) -> str:
    """Format a path for people, with keys that contain dots in brackets."""
    text = "".join(f"[{key}]" if "." in key else f".{key}" for key in keys)
    return text.removeprefix(".")


def get_path(document: Any, keys: Sequence[str], default: Any = None) -> Any:
    """Return the value at a path, or `default` if there is none."""
    value = document
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value


def set_path(document: JSONObject, keys: Sequence[str], value: Any) -> None:
    """Set the value at a path; create missing and null objects on the way.

    Raises:
        PathError: the path leads through a list or a scalar.
    """
    *parents, last = keys
    target = document
    for depth, key in enumerate(parents):
        child = target.get(key)
        if child is None:
            child = target[key] = {}
        if not isinstance(child, dict):
            raise PathError(
                f"{format_path(keys)!r} leads through {format_path(keys[: depth + 1])!r}, which is not an object"
            )
        target = child
    target[last] = value


def delete_path(document: JSONObject, keys: Sequence[str]) -> bool:
    """Remove the value at a path; return whether there was one."""
    *parents, last = keys
    target = get_path(document, parents, None) if parents else document
    if not isinstance(target, dict) or last not in target:
        return False
    del target[last]
    return True
