"""Keep objects, their order, and the recent past.

One `Store` holds the objects of one kind. A write replaces the stored version and appends an event; stored documents
are never changed in place, so versions may share parts and be handed to readers. The past is a bounded run of events:
watches read it forward from a version, snapshots walk it backward. Work for a request grows with the size of what it
touches, never with the number of past requests.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from reconciler.wire import JSONObject

__all__ = ["ADDED", "DELETED", "MODIFIED", "Event", "Revisions", "Snapshot", "Store", "Stored", "encode"]

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


_MAX_BYTES = 64 * 1024 * 1024
"""How many bytes of old versions of one kind are kept for watches and paged lists, whatever their number."""


class Revisions:
    """Count the writes of a server: the one resourceVersion of all its kinds."""

    def __init__(self) -> None:
        self.current = 1
        self.compacted = 0


class Stored:
    """Hold one version of one object.

    Attributes:
        key: ``namespace/name``, or the name of a cluster-scoped object; etcd's order is the order of these.
        rv: the resourceVersion as an integer.
        doc: the document in the storage version. Never changed.
        size: the bytes of its JSON, once measured.
    """

    __slots__ = ("_bytes", "doc", "key", "rv", "size")

    def __init__(self, key: str, rv: int, doc: JSONObject) -> None:
        self.key = key
        self.rv = rv
        self.doc = doc
        self.size = 0
        self._bytes: dict[str, bytes] = {}

    def measure(self, view: str) -> int:
        """Return the bytes of the JSON in the storage version, which is made for readers by the way."""
        self.size = len(self.encoded(view, _as_it_is))
        return self.size

    def encoded(self, view: str, convert: Callable[[JSONObject], JSONObject]) -> bytes:
        """Return the JSON in one served version, made once."""
        found = self._bytes.get(view)
        if found is None:
            found = self._bytes[view] = encode(convert(self.doc))
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels; the empty dict when there are none."""
        return self.doc["metadata"].get("labels") or {}

    @property
    def uid(self) -> str:
        """Return the uid."""
        uid: str = self.doc["metadata"]["uid"]
        return uid


def _as_it_is(doc: JSONObject) -> JSONObject:
    return doc


class Event:
    """Hold one change: what was there before and what is there now.

    Attributes:
        type: ADDED, MODIFIED or DELETED.
        new: the version after the change; for DELETED the last content under the version of the deletion.
        old: the version before; None for ADDED.
        at: the monotonic time of the change, in seconds.
        frames: watch frames by type and view, encoded once and shared by all watches.
    """

    __slots__ = ("at", "frames", "new", "old", "rv", "type")

    def __init__(self, type: str, new: Stored, old: Stored | None, at: float) -> None:
        self.type = type
        self.rv = new.rv
        self.new = new
        self.old = old
        self.at = at
        self.frames: dict[tuple[str, str], bytes] = {}


class Snapshot(NamedTuple):
    """Hold the objects of one kind at one moment.

    Attributes:
        objects: by key.
        keys: in etcd's order.
    """

    objects: dict[str, Stored]
    keys: list[str]

    def span(self, namespace: str | None) -> tuple[int, int]:
        """Return where in `keys` those of a namespace, or all, begin and end."""
        if namespace is None:
            return 0, len(self.keys)
        # "0" follows "/" in ASCII, so it ends the range of keys that begin with "namespace/".
        return bisect.bisect_left(self.keys, f"{namespace}/"), bisect.bisect_left(self.keys, f"{namespace}0")


_MAX_SNAPSHOTS = 2
"""How many past moments are kept for the next page of a list."""


class Store:
    """Hold the objects of one kind and its recent events.

    Args:
        revisions: the server's counter.
        now: reads monotonic time, in seconds.
        capacity: how many events are kept at least.
    """

    def __init__(self, revisions: Revisions, now: Callable[[], float], *, capacity: int = 4096) -> None:
        self.revisions = revisions
        self.objects: dict[str, Stored] = {}
        self.dropped = 0
        self._time = now
        self._capacity = capacity
        self._keys: list[str] = []
        self._events: list[Event] = []
        self._first = 0
        self._weight = 0
        self._floor = revisions.current
        self._listeners: dict[int, Callable[[], None]] = {}
        self._held: list[int] = []
        self._past: dict[int, Snapshot] = {}

    # writing

    def put(self, new: Stored) -> None:
        """Store a new version of an object and record the event."""
        old = self.objects.get(new.key)
        self.objects[new.key] = new
        if old is None:
            bisect.insort(self._keys, new.key)
        self._record(Event(ADDED if old is None else MODIFIED, new, old, self._time()))

    def remove(self, gone: Stored) -> None:
        """Remove an object; `gone` is its final content under the version of the deletion."""
        old = self.objects.pop(gone.key)
        del self._keys[bisect.bisect_left(self._keys, gone.key)]
        self._record(Event(DELETED, gone, old, self._time()))

    def reshape(self, stored: Stored, doc: JSONObject) -> None:
        """Exchange the document of a version for the same in another shape; no version is made and no event."""
        self.objects[stored.key] = Stored(stored.key, stored.rv, doc)
        self._past.clear()

    def _record(self, event: Event) -> None:
        self._events.append(event)
        self._weight += event.new.size
        if len(self._events) > 2 * self._capacity:
            self._forget(len(self._events) - self._capacity)
        while self._weight > _MAX_BYTES and len(self._events) > 1:
            self._forget(len(self._events) // 2)
        if not self._held:
            self.wake()

    def wake(self) -> None:
        """Let every watch look again."""
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener()

    def _forget(self, count: int) -> None:
        if count <= 0:
            return
        self._floor = self._events[count - 1].rv
        self._weight -= sum(event.new.size for event in self._events[:count])
        del self._events[:count]
        self._first += count
        self._past.clear()
        self.dropped += count

    def compact(self, rv: int) -> None:
        """Forget the events up to a version."""
        self._forget(bisect.bisect_right(self._events, rv, key=lambda event: event.rv))
        self._floor = max(self._floor, rv)

    # reading

    @property
    def now(self) -> Snapshot:
        """Return the objects as they are; it changes with them."""
        return Snapshot(self.objects, self._keys)

    def keys(self, namespace: str | None) -> list[str]:
        """Return the keys of a namespace, or all, in etcd's order."""
        start, stop = self.now.span(namespace)
        return self._keys[start:stop]

    def at(self, rv: int) -> Snapshot | None:
        """Return the objects as they were at a version; None when history does not reach it.

        Work for a past version grows with the number of objects; it is done once for the pages of a list.
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
            found = self._past[position] = self._walked_back(position)
        return found

    def _walked_back(self, position: int) -> Snapshot:
        past = dict(self.objects)
        for event in reversed(self._events[position - self._first :]):
            if event.old is None:
                past.pop(event.new.key, None)
            else:
                past[event.new.key] = event.old
        return Snapshot(past, sorted(past))

    # watching

    @property
    def floor(self) -> int:
        """Return the oldest version that a watch can start from."""
        return self._floor

    @property
    def end(self) -> int:
        """Return the position after the last event."""
        return self._first + len(self._events)

    def position(self, rv: int) -> int | None:
        """Return the position of the first event after a version; None when it was forgotten."""
        if rv < self._floor:
            return None
        return self._first + bisect.bisect_right(self._events, rv, key=lambda event: event.rv)

    def events(self, position: int, stop: int) -> list[Event] | None:
        """Return the events of a span of positions; None when its beginning was forgotten."""
        if position < self._first:
            return None
        return self._events[position - self._first : stop - self._first]

    @property
    def visible(self) -> int:
        """Return the position up to which watches may read: the end, unless events are held back."""
        return min(self._held, default=self.end)

    def hold(self, position: int) -> None:
        """Hide the events from a position on from watches until `release`."""
        self._held.append(position)

    def release(self, position: int) -> None:
        """Show the events that `hold` hid."""
        self._held.remove(position)
        self.wake()

    def notify(self, key: int, listener: Callable[[], None]) -> None:
        """Call `listener` once at the next event; `key` takes it back."""
        self._listeners[key] = listener

    def ignore(self, key: int) -> None:
        """Take a listener back; harmless when it was called already."""
        self._listeners.pop(key, None)

    def recent(self) -> Iterator[Event]:
        """Yield the events from the newest to the oldest."""
        return reversed(self._events)
