"""The objects of one kind, their order, and their recent history.

A write replaces the stored version and appends an event. Stored documents are never changed in place, so versions may
share parts and be handed to readers. The history is a bounded list of events: watches read it forward from a version,
snapshots walk it backward. The cost of a request grows with the size of what it touches, never with the number of past
requests.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from reconciler._core.wire import JSONObject

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_encode_sorted: Callable[[Any], bytes] = msgspec.json.Encoder(order="sorted").encode


_MAX_BYTES = 64 * 1024 * 1024
"""The bytes of earlier versions that are kept for watches and paged lists, for each kind."""
_MAX_SNAPSHOTS = 2
"""How many past snapshots are kept for the next pages of lists."""


class Revisions:
    """The server's write counter: the resourceVersion that all its kinds share."""

    def __init__(self) -> None:
        self.current = 1
        self.compacted = 0


@dataclass(slots=True, eq=False)
class Stored:
    """One version of an object.

    Attributes:
        key: ``namespace/name``, or the name of a cluster-scoped object; sorting keys gives etcd's order.
        rv: the resourceVersion as an integer.
        doc: the document in the storage version. Never changed.
        custom: whether its kind is a custom one, whose objects Go writes with sorted members.
        size: the size of its JSON in bytes; 0 before it is measured.
        encodings: its JSON in each view that was encoded.
    """

    key: str
    rv: int
    doc: JSONObject
    custom: bool = False
    size: int = 0
    encodings: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)

    def measure(self, view: str) -> int:
        """Measure the JSON in the storage version, which is then cached for readers, and return its size in bytes."""
        self.size = len(self.encoded(view))
        return self.size

    def encoded(self, view: str, convert: Callable[[JSONObject], JSONObject] | None = None) -> bytes:
        """Return the JSON in one view, encoded once; by default, that of the document itself."""
        found = self.encodings.get(view)
        if found is None:
            write = _encode_sorted if self.custom else encode
            found = self.encodings[view] = write(self.doc if convert is None else convert(self.doc))
        return found

    @property
    def uid(self) -> str:
        """Return the uid."""
        return str(self.doc["metadata"]["uid"])


@dataclass(slots=True, eq=False)
class Event:
    """One change of an object.

    Attributes:
        type: ADDED, MODIFIED or DELETED.
        rv: the resourceVersion of the change.
        new: the version after the change; for DELETED the last content with the version of the deletion.
        old: the version before; None for ADDED.
        at: the monotonic time of the change, in seconds.
        frames: watch frames by type and view, encoded once and shared by all watches.
    """

    type: str
    rv: int
    new: Stored
    old: Stored | None
    at: float
    frames: dict[tuple[str, str], bytes] = field(default_factory=dict)


class ObjectSnapshot(NamedTuple):
    """The objects of one kind at one moment by key, and the keys in etcd's order."""

    objects: dict[str, Stored]
    keys: list[str]

    def span(self, namespace: str | None) -> tuple[int, int]:
        """Return the range of `keys` that belong to a namespace, or all: start and stop."""
        if namespace is None:
            return 0, len(self.keys)
        # "0" follows "/" in ASCII, so it ends the range of keys that start with "namespace/".
        return bisect.bisect_left(self.keys, f"{namespace}/"), bisect.bisect_left(self.keys, f"{namespace}0")


class ObjectStore:
    """The objects of one kind and its recent events.

    Attributes:
        objects: the objects by key.
        dropped: how many events were dropped.
        floor: the oldest version that a watch can start from.
        complete: False if a forked cluster may have objects that are not copied.
    """

    def __init__(self, revisions: Revisions, now: Callable[[], float], *, capacity: int = 4096) -> None:
        self.revisions = revisions
        self.objects: dict[str, Stored] = {}
        self.dropped = 0
        self.complete = True
        self._time = now
        self._capacity = capacity
        self._keys: list[str] = []
        self._events: list[Event] = []
        self._first = 0
        self._weight = 0
        self.floor = revisions.current
        self._room = 2 * capacity
        self._listeners: dict[int, Callable[[], None]] = {}
        self._woken = False
        self._past: dict[int, ObjectSnapshot] = {}

    # writing

    def load(self, objects: Iterable[Stored]) -> None:
        """Add objects of earlier versions, without events."""
        self.objects |= {stored.key: stored for stored in objects}
        self._keys = sorted(self.objects)

    def put(self, new: Stored) -> None:
        """Store a new version of an object and record the event."""
        old = self.objects.get(new.key)
        self.objects[new.key] = new
        if old is None:
            bisect.insort(self._keys, new.key)
        self._record(Event(ADDED if old is None else MODIFIED, new.rv, new, old, self._time()))

    def remove(self, gone: Stored) -> None:
        """Remove an object; `gone` is its final content with the version of the deletion."""
        old = self.objects.pop(gone.key)
        del self._keys[bisect.bisect_left(self._keys, gone.key)]
        self._record(Event(DELETED, gone.rv, gone, old, self._time()))

    def reshape(self, stored: Stored, doc: JSONObject) -> None:
        """Replace the document of a version by an equivalent one, without a new version or an event."""
        self.objects[stored.key] = Stored(stored.key, stored.rv, doc, stored.custom)
        self._past.clear()

    def _record(self, event: Event) -> None:
        self._events.append(event)
        self._weight += event.new.size
        if not self._woken:  # of the events of one cascade only the first counts: no watch can read in between
            self._room -= 1
        if self._room < 0:
            self._drop(len(self._events) - self._capacity)
            self._room = self._capacity
        while self._weight > _MAX_BYTES and len(self._events) > 1:
            self._drop(len(self._events) // 2)
        self.wake()

    def wake(self) -> None:
        """Wake every watch, so that it reads again."""
        listeners, self._listeners = self._listeners, {}
        self._woken = self._woken or bool(listeners)
        for listener in listeners.values():
            listener()

    def _drop(self, count: int) -> None:
        if count <= 0:
            return
        self.floor = self._events[count - 1].rv
        self._weight -= sum(event.new.size for event in self._events[:count])
        del self._events[:count]
        self._first += count
        self._past.clear()
        self.dropped += count

    def compact(self, rv: int) -> None:
        """Drop the events up to a version."""
        self._drop(bisect.bisect_right(self._events, rv, key=lambda event: event.rv))
        self.floor = max(self.floor, rv)

    # reading

    @property
    def now(self) -> ObjectSnapshot:
        """Return the current objects; the result changes with them."""
        return ObjectSnapshot(self.objects, self._keys)

    def keys(self, namespace: str | None) -> list[str]:
        """Return the keys of a namespace, or all, in etcd's order."""
        start, stop = self.now.span(namespace)
        return self._keys[start:stop]

    def at(self, rv: int) -> ObjectSnapshot | None:
        """Return the objects at a version; None if the history does not reach it.

        The cost for a past version grows with the number of objects; it is paid once for all pages of a list.
        """
        position = self.position(rv)
        if position is None:
            return None
        if position == self.end:
            return self.now
        found = self._past.get(position)
        if found is None:
            while len(self._past) >= _MAX_SNAPSHOTS:
                del self._past[next(iter(self._past))]
            found = self._past[position] = self._walk_back(position)
        return found

    def _walk_back(self, position: int) -> ObjectSnapshot:
        past = dict(self.objects)
        for event in reversed(self._events[position - self._first :]):
            if event.old is None:
                past.pop(event.new.key, None)
            else:
                past[event.new.key] = event.old
        return ObjectSnapshot(past, sorted(past))

    # watching

    @property
    def end(self) -> int:
        """Return the position after the last event."""
        return self._first + len(self._events)

    def position(self, rv: int) -> int | None:
        """Return the position of the first event after a version; None if it was dropped."""
        if rv < self.floor:
            return None
        return self._first + bisect.bisect_right(self._events, rv, key=lambda event: event.rv)

    def events(self, position: int, stop: int) -> list[Event] | None:
        """Return the events of a range of positions; None if its beginning was dropped."""
        if position < self._first:
            return None
        return self._events[position - self._first : stop - self._first]

    def notify(self, key: int, listener: Callable[[], None]) -> None:
        """Call `listener` once at the next event; `ignore` with the same key cancels that."""
        self._listeners[key] = listener

    def ignore(self, key: int) -> None:
        """Remove a listener, or notice that one that was called reads again."""
        self._woken = False
        self._listeners.pop(key, None)

    def recent(self) -> Iterator[Event]:
        """Return an iterator over the events, newest first."""
        return reversed(self._events)
