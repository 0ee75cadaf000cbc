"""Decide what becomes of an event: a new Event, a higher count on an old one, or nothing.

The three steps and all numbers are those of client-go's event correlator. Time is that of the occurrence, in monotonic
seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Correlator", "Decision", "Occurrence", "Subject"]

CACHE_SIZE = 4096
"""Entries kept in each of the three memories; the least recently used goes."""

SIMILAR_LIMIT = 10
"""Different messages of one kind of event from which on they are combined."""

SIMILAR_INTERVAL = 600.0
"""Seconds without a similar event after which counting them starts anew."""

BURST = 25
"""Events of one object and type that pass at once."""

REFILL = 1 / 300
"""Events of one object and type that pass per second in the long run."""

COMBINED = "(combined from similar events): "


class Subject(NamedTuple):
    """Name the object that an event is about, as ``involvedObject`` has it."""

    api_version: str
    kind: str
    name: str
    namespace: str | None
    uid: str
    resource_version: str


class _Similar(NamedTuple):
    """Be what similar events have in common."""

    api_version: str
    kind: str
    name: str
    namespace: str | None
    uid: str
    type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Hold one event as it was reported."""

    subject: Subject
    type: str
    reason: str
    message: str
    at: datetime
    monotonic: float

    @property
    def similar(self) -> _Similar:
        """Return what similar events share: all but the message and the object's version."""
        s = self.subject
        return _Similar(s.api_version, s.kind, s.name, s.namespace, s.uid, self.type, self.reason)


@dataclass(frozen=True, slots=True)
class Decision:
    """Say how to store an occurrence.

    Attributes:
        name: the Event's name.
        message: the occurrence's own, or the combined one.
        count: 1 for a new Event; above, the Event of this name is to be patched.
        first: when the first of them occurred.
    """

    name: str
    message: str
    count: int
    first: datetime


@dataclass(slots=True)
class _Messages:
    last: float
    seen: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    last: float


K = TypeVar("K")
V = TypeVar("V")


class _Memory(Generic[K, V]):
    """Keep the most recently used values of a bounded number of keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> V:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._values)


class Correlator:
    """Remember what was reported lately, and decide what becomes of the next occurrence.

    Args:
        new_name: makes the name of a new Event from the occurrence.
        size: entries kept in each memory. Defaults to client-go's 4096.
    """

    def __init__(self, new_name: Callable[[Occurrence], str], *, size: int = CACHE_SIZE) -> None:
        self._new_name = new_name
        self._messages: _Memory[_Similar, _Messages] = _Memory(size)
        self._stored: _Memory[tuple[_Similar, str | None], Decision] = _Memory(size)
        self._buckets: _Memory[_Similar, _Bucket] = _Memory(size)

    def decide(self, occurrence: Occurrence) -> Decision | None:
        """Return how to store an occurrence; None when the object has reported too much."""
        combined = self._is_one_too_many(occurrence)
        decision = self._count(occurrence, combined=combined)
        return decision if self._passes(occurrence) else None

    def _is_one_too_many(self, occurrence: Occurrence) -> bool:
        messages = self._messages.get(occurrence.similar)
        if messages is None or occurrence.monotonic - messages.last > SIMILAR_INTERVAL:
            messages = self._messages.put(occurrence.similar, _Messages(occurrence.monotonic))
        messages.last = occurrence.monotonic
        messages.seen.add(occurrence.message)
        if len(messages.seen) < SIMILAR_LIMIT:
            return False
        messages.seen.remove(occurrence.message)
        return True

    def _count(self, occurrence: Occurrence, *, combined: bool) -> Decision:
        key = (occurrence.similar, None if combined else occurrence.message)
        message = COMBINED + occurrence.message if combined else occurrence.message
        last = self._stored.get(key)
        if last is None:
            decision = Decision(self._new_name(occurrence), message, 1, occurrence.at)
        else:
            decision = Decision(last.name, message, last.count + 1, last.first)
        return self._stored.put(key, decision)

    def _passes(self, occurrence: Occurrence) -> bool:
        key = occurrence.similar._replace(reason="")
        bucket = self._buckets.get(key) or self._buckets.put(key, _Bucket(BURST, occurrence.monotonic))
        elapsed = max(0.0, occurrence.monotonic - bucket.last)
        bucket.tokens = min(BURST, bucket.tokens + elapsed * REFILL)
        bucket.last = occurrence.monotonic
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
