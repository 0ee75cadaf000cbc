"""Status mutations that could not be saved, until a later reconcile of the same object saves them.

Bounded: beyond the limit the oldest entry is dropped and counted. Thread-safe, because a reconcile and its batcher may
run in a thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from reconciler.meta import Request

__all__ = ["UnsavedStatistics", "UnsavedStore"]

MAX_UNSAVED = 1000
"""The highest number of objects per controller whose unsaved mutations are kept."""


@dataclass(frozen=True, slots=True)
class UnsavedStatistics:
    """Counters of unsaved mutations.

    Attributes:
        kept: objects with unsaved mutations now.
        blocked: those that the server refused, and would refuse again unchanged.
        dropped: entries that were dropped since the start because too many were kept.
    """

    kept: int
    blocked: int
    dropped: int


class UnsavedStore:
    """The unsaved mutations by key and uid. Only the batcher knows what they are.

    Args:
        limit: the highest number of objects. Default 1000.
    """

    def __init__(self, *, limit: int = MAX_UNSAVED) -> None:
        self._limit = limit
        self._entries: OrderedDict[Request, tuple[str, object]] = OrderedDict()
        self._blocked: dict[Request, tuple[str, int | None]] = {}  # outlives the entry while a batcher has taken it
        self._dropped = 0
        self._lock = threading.Lock()

    def keep(self, request: Request, uid: str, mutations: object) -> None:
        """Keep the mutations of an object; they replace what was kept for its key before."""
        with self._lock:
            self._entries[request] = (uid, mutations)
            self._entries.move_to_end(request)
            while len(self._entries) > self._limit:
                oldest, _ = self._entries.popitem(last=False)
                self._blocked.pop(oldest, None)
                self._dropped += 1

    def block(self, request: Request, uid: str, generation: int | None) -> bool:
        """Record that the server refused the mutations of an object at this generation; return whether that is new."""
        with self._lock:
            if self._entries.get(request, ("",))[0] != uid:
                return False
            is_new = self._blocked.get(request) != (uid, generation)
            self._blocked[request] = uid, generation
            return is_new

    def unblock(self, request: Request) -> None:
        """Record that refused mutations are saved now."""
        with self._lock:
            self._blocked.pop(request, None)

    def is_blocked(self, request: Request, uid: str, generation: int | None) -> bool:
        """Return whether the server refused the mutations of an object at this generation.

        A new generation may fix the cause, so it is reconciled, and is not blocked until the server refuses it, too.
        """
        with self._lock:
            if request not in self._entries:
                return False
            if self._blocked.get(request) != (uid, generation):
                self._blocked.pop(request, None)
            return request in self._blocked

    def blocks(self, request: Request) -> bool:
        """Return whether the object of a key is not reconciled, because the server refuses its mutations."""
        return request in self._blocked

    def take(self, request: Request, uid: str) -> object | None:
        """Return, once, the mutations of an object; those of an earlier object of the same name are dropped."""
        if request not in self._entries:
            return None
        with self._lock:
            entry = self._entries.pop(request, None)
        return entry[1] if entry is not None and entry[0] == uid else None

    def forget(self, request: Request) -> None:
        """Drop the mutations of an object that is gone."""
        with self._lock:
            self._entries.pop(request, None)
            self._blocked.pop(request, None)

    def retain(self, request: Request, uid: str | None) -> None:
        """Drop the mutations kept for a key unless they belong to the object with this uid; None if there is no object.

        Called at the end of each reconcile of the key: an object that was deleted or replaced in between may have left
        mutations after its event. Mutations that are blocked and no longer kept were saved.
        """
        if not self._entries and not self._blocked:
            return
        with self._lock:
            if request in self._entries and self._entries[request][0] != uid:
                del self._entries[request]
            if request not in self._entries:
                self._blocked.pop(request, None)

    def __contains__(self, request: Request) -> bool:
        return request in self._entries

    def statistics(self) -> UnsavedStatistics:
        """Return the current counters."""
        return UnsavedStatistics(len(self._entries), len(self._blocked), self._dropped)
