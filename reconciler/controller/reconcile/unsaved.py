"""Keep what cycles recorded and could not save, until a later cycle of the same object saves it.

Bounded: beyond the limit the oldest entry is dropped and counted. Callable from any thread, because a batcher may live
in a reconcile that runs in one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from reconciler.meta import Request

__all__ = ["UnsavedStatistics", "UnsavedStore"]

MAX_UNSAVED = 1000
"""Objects per controller whose unsaved mutations are kept."""


@dataclass(frozen=True, slots=True)
class UnsavedStatistics:
    """Count unsaved mutations.

    Attributes:
        kept: objects with unsaved mutations at this moment.
        blocked: those among them that the server refused, and would refuse again as they are.
        dropped: entries that were dropped because too many were kept, since the start.
    """

    kept: int
    blocked: int
    dropped: int


class UnsavedStore:
    """Map a key and a uid to the mutations that could not be saved; opaque here, the batcher's in truth.

    Args:
        limit: how many objects at most. Default 1000.
    """

    def __init__(self, *, limit: int = MAX_UNSAVED) -> None:
        self._limit = limit
        self._entries: OrderedDict[Request, tuple[str, object]] = OrderedDict()
        self._blocked: dict[Request, tuple[str, int | None]] = {}  # outlives the entry while a batcher has taken it
        self._dropped = 0
        self._lock = threading.Lock()

    def keep(self, request: Request, uid: str, mutations: object) -> None:
        """Keep the mutations of an object, in place of what was kept for its name before."""
        with self._lock:
            self._entries[request] = (uid, mutations)
            self._entries.move_to_end(request)
            while len(self._entries) > self._limit:
                oldest, _ = self._entries.popitem(last=False)
                self._blocked.pop(oldest, None)
                self._dropped += 1

    def block(self, request: Request, uid: str, generation: int | None) -> bool:
        """Note that the server refused what is kept for an object of a generation; say whether that is news."""
        with self._lock:
            if self._entries.get(request, ("",))[0] != uid:
                return False
            news = self._blocked.get(request) != (uid, generation)
            self._blocked[request] = uid, generation
            return news

    def unblock(self, request: Request) -> None:
        """Note that it was saved after all."""
        with self._lock:
            self._blocked.pop(request, None)

    def is_blocked(self, request: Request, uid: str, generation: int | None) -> bool:
        """Say whether something is kept for an object that the server refused, and the object asks for the same still.

        A new generation may be what cures it, and has a right to be looked at.
        """
        with self._lock:
            return request in self._entries and self._blocked.get(request) == (uid, generation)

    def take(self, request: Request, uid: str) -> object | None:
        """Give the mutations of an object, once; those of an earlier object of the same name are dropped."""
        if request not in self._entries:
            return None
        with self._lock:
            entry = self._entries.pop(request, None)
        return entry[1] if entry is not None and entry[0] == uid else None

    def forget(self, request: Request) -> None:
        """Drop what is kept for a name: its object is gone."""
        with self._lock:
            self._entries.pop(request, None)
            self._blocked.pop(request, None)

    def retain(self, request: Request, uid: str | None) -> None:
        """Drop what is kept for a name unless it is of this object; None if there is no object of that name.

        Called at the end of each reconcile of the key: an object that was deleted or replaced meanwhile may have left
        something after its event had come. What is blocked and not kept any more was saved.
        """
        with self._lock:
            if request in self._entries and self._entries[request][0] != uid:
                del self._entries[request]
            if request not in self._entries:
                self._blocked.pop(request, None)

    def __contains__(self, request: Request) -> bool:
        return request in self._entries

    def statistics(self) -> UnsavedStatistics:
        """Return the counts at this moment."""
        return UnsavedStatistics(len(self._entries), len(self._blocked), self._dropped)
