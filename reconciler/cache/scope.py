"""The scope of an informer: kind, namespaces, selectors, and its part of a partitioned kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reconciler._core.wire import JSONObject
from reconciler.cache.store import CachedObject
from reconciler.meta import GroupVersionKind, Request

Transform = Callable[[JSONObject], JSONObject]
"""Change a decoded object before it is stored, possibly in place. Its name, namespace, uid and version are restored
afterwards."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The identity of an informer: two informers with equal scopes are one.

    Attributes:
        gvk: the kind.
        namespaces: the watched namespaces, sorted; None for all, and for cluster-scoped kinds.
        label_selector: in the API's syntax; None for no selector.
        field_selector: in the API's syntax; None for no selector.
        metadata_only: store only the metadata.
        managed_fields: store ``metadata.managedFields`` too.
        transform: applied to each object.
        partition: the part of the kind that this process is responsible for; None for all of it.
    """

    gvk: GroupVersionKind
    namespaces: tuple[str, ...] | None = None
    label_selector: str | None = None
    field_selector: str | None = None
    metadata_only: bool = False
    managed_fields: bool = False
    transform: Transform | None = None
    partition: Partition | None = None
    _labels: LabelSelector = field(init=False, repr=False, compare=False)
    _fields: tuple[tuple[str, str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_labels", LabelSelector(self.labels or ""))
        object.__setattr__(self, "_fields", parse_fields(self.field_selector or ""))

    @property
    def has_selector(self) -> bool:
        """Return whether a label or field selector is set; the partition does not count."""
        return bool(self.label_selector or self.field_selector)

    @property
    def streams(self) -> int:
        """Return the number of watches: one for each namespace."""
        return 1 if self.namespaces is None else len(self.namespaces)

    @property
    def labels(self) -> str | None:
        """Return the complete label selector, including the partition's."""
        of_partition = self.partition.labels if self.partition is not None else None
        return ",".join(text for text in (self.label_selector, of_partition) if text) or None

    @property
    def hashes(self) -> HashRange | None:
        """Return the partition's hash range; None for no such condition."""
        return self.partition.hashes if self.partition is not None else None

    @property
    def is_filtered(self) -> bool:
        """Return whether a live object can leave the watch: its labels or fields may stop matching."""
        return bool(self.labels or self.field_selector)

    def selects(self, cached: CachedObject) -> bool:
        """Return whether an object certainly matches.

        False if the field selector uses a field other than name and namespace.
        """
        return self._labels.matches(cached.labels) and bool(matches_fields(self._fields, cached.request))

    def excludes(self, cached: CachedObject) -> bool:
        """Return whether an object's labels do not match."""
        return not self._labels.matches(cached.labels)

    def selectors(self) -> list[tuple[str, str]]:
        """Return the selectors as query parameters."""
        given = (("labelSelector", self.labels), ("fieldSelector", self.field_selector))
        return [(name, text) for name, text in given if text]

    def __str__(self) -> str:
        parts = [str(self.gvk)]
        if self.namespaces is not None:
            parts.append(f"in {', '.join(self.namespaces)}")
        parts += [f"where {text}" for text in (self.labels, self.field_selector, self.hashes) if text]
        if self.metadata_only:
            parts.append("(metadata only)")
        if self.transform is not None:
            parts.append(f"through {getattr(self.transform, '__qualname__', 'a transform')}")
        return " ".join(parts)


HASHES = 1 << 64
"""The number of hash values."""

_OFFSET = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MASK = HASHES - 1


def fnv1a(text: str) -> int:
    """Return the 64-bit FNV-1a hash of a string."""
    found = _OFFSET
    for byte in text.encode():
        found = (found ^ byte) * _PRIME & _MASK
    return found


@dataclass(frozen=True, slots=True)
class HashRange:
    """The objects whose uid hashes into a range.

    Attributes:
        start: the first hash.
        end: one past the last hash, at most ``2**64``.
    """

    start: int
    end: int

    @classmethod
    def share(cls, index: int, of: int) -> HashRange:
        """Return one of `of` equal ranges that together cover everything.

        Args:
            index: the position of the range, from 0.
            of: the number of ranges.
        """
        return cls(index * HASHES // of, (index + 1) * HASHES // of)

    def contains(self, uid: str) -> bool:
        """Return whether an object with this uid is in the range. Takes about 4 µs."""
        return self.start <= fnv1a(uid) < self.end

    def __str__(self) -> str:
        """Return the range in hexadecimal numbers."""
        return f"0x{self.start:016x} <= hash of uid < 0x{self.end:016x}"


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a kind's objects.

    Attributes:
        labels: a label selector in the API's syntax; None for no such condition.
        hashes: a range of hashes; None for no such condition.
    """

    labels: str | None = None
    hashes: HashRange | None = None


_SPLIT = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"(?P<key>[^\s=!<>(),]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARISON = re.compile(r"(?P<key>[^\s=!<>]+)\s*(?P<operator>==|!=|=|<|>)\s*(?P<value>[^\s=!<>]*)")
_EXISTENCE = re.compile(r"(?P<not>!?)\s*(?P<key>[^\s=!<>(),]+)")
_FIELD = re.compile(r"(?P<path>[^=!]+)(?P<operator>==|!=|=)(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class _Requirement:
    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "exists":
            return value is not None
        if self.operator == "absent":
            return value is None
        if self.operator == "in":
            return value in self.values
        if self.operator == "notin":
            return value not in self.values
        return value is not None and _compares(value, self.operator, next(iter(self.values)))


class LabelSelector:
    """A label selector: ``a=b``, ``a!=b``, ``a in (b,c)``, ``a notin (b)``, ``a``, ``!a``, ``a>1``.

    It matches as the API server does.

    Args:
        text: comma-separated requirements, all of which must hold. ``""`` matches everything.

    Raises:
        ValueError: a requirement is malformed.
    """

    def __init__(self, text: str) -> None:
        self._requirements = tuple(_requirement(part.strip()) for part in _SPLIT.split(text)) if text.strip() else ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels matches."""
        return all(requirement.matches(labels) for requirement in self._requirements)


def format_labels(selector: str | Mapping[str, str] | None) -> str | None:
    """Format a label selector; None if it selects everything.

    A mapping requires each label to equal its value.
    """
    if isinstance(selector, Mapping):
        selector = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    return selector or None


def parse_fields(text: str) -> tuple[tuple[str, str, str], ...]:
    """Parse a field selector into requirements: path, ``=`` or ``!=``, value.

    Raises:
        ValueError: a requirement is malformed.
    """
    return tuple(_field(part.strip()) for part in text.split(",") if part.strip())


def matches_fields(fields: tuple[tuple[str, str, str], ...], request: Request) -> bool | None:
    """Return whether a name and namespace match a field selector; None if the selector uses other fields."""
    held = {"metadata.name": request.name, "metadata.namespace": request.namespace or ""}
    if any(path not in held for path, _, _ in fields):
        return None
    return all((held[path] == value) is (operator == "=") for path, operator, value in fields)


def _field(part: str) -> tuple[str, str, str]:
    match = _FIELD.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not a valid field requirement: write path=value or path!=value")
    return match["path"], "!=" if match["operator"] == "!=" else "=", match["value"]


def _requirement(part: str) -> _Requirement:
    if match := _SET.fullmatch(part):
        values = frozenset(value.strip() for value in match["values"].split(","))
        return _Requirement(match["key"], match["operator"], values)
    if match := _COMPARISON.fullmatch(part):
        operator = {"=": "in", "==": "in", "!=": "notin"}.get(match["operator"], match["operator"])
        return _Requirement(match["key"], operator, frozenset({match["value"]}))
    if match := _EXISTENCE.fullmatch(part):
        return _Requirement(match["key"], "absent" if match["not"] else "exists")
    raise ValueError(
        f"{part!r} is not a valid label requirement: write key=value, key!=value, key in (a,b), key or !key"
    )


def _compares(value: str, operator: str, bound: str) -> bool:
    try:
        left, right = int(value), int(bound)
    except ValueError:
        return False
    return left > right if operator == ">" else left < right
