"""`ChangeLog`: the latest changes that enqueued each key, in bounded memory.

An event costs one entry that refers to documents of the cache.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from reconciler.cache import CacheEvent, EventType
from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver
from reconciler.controller.wake.change import FieldWriters, ObjectChange
from reconciler.meta import GroupVersionKind, Request

if TYPE_CHECKING:
    from reconciler.controller.reconcile.cycle import Reconcile

_MAX_OBJECTS = 5
"""Objects that are remembered for a reconcile; further ones are counted."""

_MAX_RECONCILES = 3
"""Reconciles of a key whose changes are remembered, so that a busy key does not displace the others."""

_BUDGET = 2**20
"""Bytes of all changes that are kept for a controller.

They are documents that the cache would have dropped, of objects that somebody may ask about soon after they changed: a
hundred changes of objects of 5 KiB are enough, and ten controllers have 10 MiB.
"""


class Creation(NamedTuple):
    """The creation of the object of a key, which enqueued it: shared by all keys, since each object is created once.

    Attributes:
        gvk: the kind.
        managers: the field managers of the new object.
    """

    gvk: GroupVersionKind
    managers: tuple[str, ...]

    def told(self, request: Request, at: datetime) -> tuple[ObjectChange, ...]:
        """Return the change.

        Args:
            request: the key.
            at: when it was enqueued, as far as known.
        """
        return (ObjectChange(gvk=self.gvk, request=request, at=at, type="added", managers=self.managers),)


class WakingChanges:
    """The changes that enqueued a key for one reconcile.

    Attributes:
        objects: one for each object, in the order of their first events; five at most. Empty if they were forgotten.
        left_out: how many events of further objects came.
    """

    __slots__ = ("left_out", "objects")

    def __init__(self, change: ObjectChange) -> None:
        self.objects: tuple[ObjectChange, ...] = (change,)
        self.left_out = 0

    def told(self, _request: Request, _at: datetime) -> tuple[ObjectChange, ...]:
        """Return the changes."""
        return self.objects

    def has(self, event: CacheEvent) -> bool:
        """Return whether the last change is that of an event."""
        if not self.objects or event.rewritten:
            return False
        last, found = self.objects[-1], event.object
        return last.version == found.version and last.uid == found.uid

    def add(self, change: ObjectChange) -> int:
        """Add a change, or extend that of the same object; return by how many bytes they grew."""
        for number, known in enumerate(self.objects):
            if known.uid == change.uid:
                change = change.after(known)
                self.objects = (*self.objects[:number], change, *self.objects[number + 1 :])
                return change.size - known.size
        if len(self.objects) >= _MAX_OBJECTS:
            self.left_out += 1
            return 0
        self.objects = (*self.objects, change)
        return change.size

    def forget(self) -> int:
        """Drop the changes; return how many bytes they had."""
        size = sum(change.size for change in self.objects)
        self.objects = ()
        return size


class ChangeLog(ReconcileObserver):
    """The changes that enqueued the keys of a controller.

    Args:
        gvk: the kind of the keys.
        clock: dates the changes.
        budget: bytes of all changes. Beyond it, the changes of the keys that were not enqueued for longest are
            dropped. Default: 1 MiB.
    """

    def __init__(self, gvk: GroupVersionKind, clock: Clock, *, budget: int = _BUDGET) -> None:
        self._gvk = gvk
        self._now = clock.now
        self._budget = budget
        self._bytes = 0
        self._pending: dict[Request, Creation | WakingChanges] = {}  # of keys that are not reconciled yet
        self._current: dict[Request, Creation | WakingChanges] = {}  # of keys in progress
        self._kept: OrderedDict[Request, list[WakingChanges]] = OrderedDict()  # last enqueued: at the end

    def event(self, key: Request, gvk: GroupVersionKind, event: CacheEvent, /) -> None:
        """Record that an event of an object enqueued a key; one of an object that was there before is not a change."""
        if event.initial or event.type is EventType.RESYNC:
            return
        changes = self._pending.get(key)
        is_own = gvk == self._gvk and event.object.request == key
        if changes is None or (is_own and event.new is None and isinstance(changes, Creation)):
            if is_own and event.old is None:
                self._pending[key] = _creation(gvk, FieldWriters(event.received).all_writers())
                return
            change = ObjectChange.of(gvk, event, self._now())
            changes = self._pending[key] = WakingChanges(change)
            self._keep(key, changes, change.size)
        elif isinstance(changes, WakingChanges) and not changes.has(event):
            self._keep(key, changes, changes.add(ObjectChange.of(gvk, event, self._now())))

    def begun(self, reconcile: Reconcile, /) -> None:
        """Set the changes that enqueued the key of a reconcile."""
        changes = reconcile.changes = self._pending.pop(reconcile.request, None)
        if changes is not None:
            self._current[reconcile.request] = changes

    def ended(self, reconcile: Reconcile, /) -> None:
        """Record the end of a reconcile."""
        if reconcile.changes is not None:
            self._current.pop(reconcile.request, None)

    def current(self, key: Request) -> tuple[ObjectChange, ...]:
        """Return the changes that enqueued a key for the reconcile in progress."""
        return self._told(self._current, key)

    def pending(self, key: Request) -> tuple[ObjectChange, ...]:
        """Return the changes that enqueued a key for its next reconcile."""
        return self._told(self._pending, key)

    def _keep(self, key: Request, changes: WakingChanges, size: int) -> None:
        """Count what changes grew by, and make their key the last one; they may have been dropped in the meantime."""
        kept = self._kept.setdefault(key, [])
        self._kept.move_to_end(key)
        if changes not in kept:
            kept.append(changes)
            if len(kept) > _MAX_RECONCILES:
                self._bytes -= kept.pop(0).forget()
        self._bytes += size
        while self._bytes > self._budget:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= sum(each.forget() for each in oldest)

    def _told(self, changes: Mapping[Request, Creation | WakingChanges], key: Request) -> tuple[ObjectChange, ...]:
        return changes[key].told(key, self._now()) if key in changes else ()


_creation = functools.lru_cache(maxsize=256)(Creation)
