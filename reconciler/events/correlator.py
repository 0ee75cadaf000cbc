"""The event correlator: decides whether an occurrence becomes a new Event, raises a count, or is dropped.

The three steps (aggregation, counting, spam filter) and all numbers are those of client-go's event correlator. Times
are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from reconciler._core.lru import LRU

__all__ = ["Correlator", "Decision", "Occurrence", "Subject"]

CACHE_SIZE = 4096
"""Entries in each of the three caches; the least recently used entry is evicted."""

SIMILAR_LIMIT = 10
"""Different messages of similar events after which they are combined."""

SIMILAR_INTERVAL = 600.0
"""Seconds without a similar event after which the count of similar events is reset."""

BURST = 25
"""Token bucket size: events of one object and type that pass in a burst."""

REFILL = 1 / 300
"""Token bucket rate: events per second of one object and type."""

COMBINED = "(combined from similar events): "


class Subject(NamedTuple):
    """The object that an event is about, as in ``involvedObject``."""

    api_version: str
    kind: str
    name: str
    namespace: str | None
    uid: str
    resource_version: str


class _SimilarKey(msgspec.Struct, frozen=True, gc=False):
    """The fields that similar events have in common."""

    api_version: str
    kind: str
    name: str
    namespace: str | None
    uid: str
    type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event as reported by a caller."""

    subject: Subject
    type: str
    reason: str
    message: str
    at: datetime
    monotonic: float

    @property
    def similar(self) -> _SimilarKey:
        """Return the key of similar events: all fields but the message and the object's version."""
        s = self.subject
        return _SimilarKey(s.api_version, s.kind, s.name, s.namespace, s.uid, self.type, self.reason)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The decision how to store an occurrence.

    Attributes:
        name: the Event's name.
        message: the occurrence's message, or the combined one.
        count: 1 to create the Event; higher to patch the Event of this name.
        first: time of the first occurrence.
    """

    name: str
    message: str
    count: int
    first: datetime


class _Messages(msgspec.Struct, gc=False):
    last: float
    seen: set[str] = msgspec.field(default_factory=set)


class _Bucket(msgspec.Struct, gc=False):
    tokens: float
    last: float


class Correlator:
    """A correlator of events, with a bounded memory of earlier occurrences.

    Args:
        new_name: returns the name of a new Event.
        size: entries in each cache. Default 4096, client-go's number.
    """

    def __init__(self, new_name: Callable[[Occurrence], str], *, size: int = CACHE_SIZE) -> None:
        self._new_name = new_name
        self._messages: LRU[_SimilarKey, _Messages] = LRU(size)
        self._stored: LRU[tuple[_SimilarKey, str | None], Decision] = LRU(size)
        self._buckets: LRU[_SimilarKey, _Bucket] = LRU(size)

    def decide(self, occurrence: Occurrence) -> Decision | None:
        """Return how to store an occurrence; None to drop it, because its object has reported too many events."""
        combined = self._must_combine(occurrence)
        decision = self._count(occurrence, combined=combined)
        return decision if self._take_token(occurrence) else None

    def _must_combine(self, occurrence: Occurrence) -> bool:
        messages = self._messages.get(occurrence.similar)
        if messages is None or occurrence.monotonic - messages.last > SIMILAR_INTERVAL:
            messages = _Messages(occurrence.monotonic)
        self._messages[occurrence.similar] = messages
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
        self._stored[key] = decision
        return decision

    def _take_token(self, occurrence: Occurrence) -> bool:
        key = replace(occurrence.similar, reason="")
        bucket = self._buckets[key] = self._buckets.get(key) or _Bucket(BURST, occurrence.monotonic)
        elapsed = max(0.0, occurrence.monotonic - bucket.last)
        bucket.tokens = min(BURST, bucket.tokens + elapsed * REFILL)
        bucket.last = occurrence.monotonic
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
