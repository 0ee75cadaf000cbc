"""This process's own writes, laid over the store until the watch delivers them: read-your-writes.

An entry contains the response to a write. It is *passed*, and removed, as soon as the watch or a list reaches its
version. No event hook is needed: both facts can be read from the store when the entry is looked up.

If no response tells what is stored now (the response was lost, many objects were deleted at once, a subresource was
written), the entry is an *invalidation*: the next reader must ask the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.cache.object import CachedObject
from reconciler.cache.store import Store
from reconciler.clock import Clock, current_clock
from reconciler.meta import Request, Version

__all__ = ["Overlay", "OverlayExpired", "OverlayStatistics"]


MAX_AGE = 60.0
"""Seconds that an own write is trusted without confirmation by the watch; after that, the server is asked."""

CAPACITY = 10_000
"""Entries per informer: 160 writes per second for 60 s while the watch is interrupted."""


@dataclass(frozen=True, slots=True)
class OverlayStatistics:
    """Counters of an overlay.

    Attributes:
        entries: own writes that the watch has not confirmed yet.
        expired: how often a reader met an entry that was 60 s old, or an invalidation; each cost a read from the
            server.
        dropped: entries removed because there were too many.
    """

    entries: int
    expired: int
    dropped: int


class OverlayExpired(Exception):
    """The reader must ask the server: the watch is over 60 s behind an own write, or an object was invalidated.

    Attributes:
        objects: the keys whose objects to read.
        namespaces: the namespaces to read completely; None stands for a cluster-scoped kind.
    """

    def __init__(self, objects: Mapping[Request, object], namespaces: Mapping[str | None, object]) -> None:
        super().__init__(f"own writes of {[*map(str, objects), *map(str, namespaces)]} are not confirmed")
        self.objects = objects
        self.namespaces = namespaces


class _Invalidation(msgspec.Struct, frozen=True, eq=False):
    since: float
    version: Version | None = None  # of the write, if known


class _Entry(msgspec.Struct, frozen=True, eq=False):
    uid: str
    version: Version | None  # of a deletion: a version not after it, None if unknown
    cached: CachedObject | None  # None: deleted, or no longer selected
    basis: CachedObject | None  # what the store contained at the time
    since: float
    left: bool = False  # still exists outside the selector, and may come back

    @property
    def final(self) -> bool:
        """Return whether the object is gone permanently."""
        return self.cached is None and not self.left


class Overlay:
    """The responses to own writes, in front of a store.

    Args:
        store: the underlying store.
        progress: returns the version that the watch of a key's namespace has reached, None before the first list.
        clock: measures ages. Default: the current clock.

    Attributes:
        newest: the highest version in the responses to own writes and reads from the server; None if there were none.
    """

    def __init__(
        self, store: Store, progress: Callable[[Request], Version | None], *, clock: Clock | None = None
    ) -> None:
        self.newest: int | None = None
        self._store = store
        self._progress = progress
        self._clock = clock or current_clock()
        self._entries: dict[Request, _Entry | _Invalidation] = {}  # in the order of the writes
        self._invalid_namespaces: dict[str | None, _Invalidation] = {}  # of whole namespaces
        self._expired = 0
        self._dropped = 0

    def record_write(self, cached: CachedObject) -> None:
        """Record the object returned by a write, or by a read from the server."""
        self._put(cached.request, cached.uid, cached.version, cached)

    def record_deletion(self, request: Request, uid: str = "") -> None:
        """Record the deletion of an object.

        Args:
            request: its key.
            uid: its uid. If the response did not contain it, the uid of the object that a reader would see.
        """
        seen = self.peek(request)
        uid = uid or (seen.uid if seen is not None else "")
        if uid:
            self._put(request, uid, seen.version if seen is not None and seen.uid == uid else None, None)

    def record_departure(self, cached: CachedObject) -> None:
        """Record an object that a write moved out of the selector; it is hidden until it matches again."""
        self._put(cached.request, cached.uid, cached.version, None, left=True)

    def invalidate(self, request: Request, version: Version | None = None) -> None:
        """Mark an object as possibly written: its state is unknown until the server is asked.

        Args:
            request: its key.
            version: the version of the write, if known. The invalidation ends when the watch reaches it.
        """
        self._entries.pop(request, None)
        self._entries[request] = _Invalidation(self._clock.monotonic(), version)
        self._shrink()

    def invalidate_all(self, namespace: str | None) -> None:
        """Mark every object of a namespace as possibly written; None for a cluster-scoped kind."""
        self._invalid_namespaces[namespace] = _Invalidation(self._clock.monotonic())

    def resolve(self, key: Request | str | None, what: object) -> None:
        """Remove an entry or invalidation from `OverlayExpired` after the server was asked.

        A write recorded since then is kept.
        """
        held: dict[Any, Any] = self._entries if isinstance(key, Request) else self._invalid_namespaces
        if held.get(key) is what:
            del held[key]

    def resolve_absent(self, request: Request, what: object, before: CachedObject | None) -> None:
        """Record that the server has no object under a key from `OverlayExpired`; a write recorded since then is kept.

        Args:
            request: the key.
            what: the entry from the exception.
            before: the result of `peek` when the server was asked; a later object under the same name may exist.
        """
        if self._entries.get(request) is not what:
            return
        del self._entries[request]
        if before is not None:
            self._put(request, before.uid, before.version, None)
        elif isinstance(what, _Entry):
            self._put(request, what.uid, what.version, None)  # a deletion that the watch has not delivered yet

    def peek(self, request: Request) -> CachedObject | None:
        """Return what a reader would see under a key if nothing were expired or invalidated."""
        entry = self._current(request)
        return self._store.get(request) if entry is None else self._over(request, entry)

    def peek_all(self, namespace: str | None) -> Sequence[CachedObject]:
        """Return what a reader would see in a namespace (None for all) if nothing were expired or invalidated."""
        return self._merged(self._store.list(namespace), self._current_in(namespace), lambda _: True)

    def get(self, request: Request) -> CachedObject | None:
        """Return what a reader sees under a key.

        Raises:
            OverlayExpired: the watch is too far behind, or the object was invalidated.
        """
        entry = self._current(request) if self._entries else None
        if entry is None and not self._invalid_namespaces:  # nearly always
            return self._store.get(request)
        self._check({} if entry is None else {request: entry}, request.namespace)
        return self._store.get(request) if entry is None else self._over(request, entry)

    def list(self, namespace: str | None = None) -> Sequence[CachedObject]:
        """Return what a reader sees in a namespace; None for all.

        Raises:
            OverlayExpired: the watch is too far behind, or an object was invalidated.
        """
        entries = self._current_in(namespace)
        self._check(entries, namespace)
        return self._merged(self._store.list(namespace), entries, lambda _: True)

    def by_index(self, name: str, value: str, namespace: str | None = None) -> Sequence[CachedObject]:
        """Return what a reader sees through an index.

        Raises:
            OverlayExpired: the watch is too far behind, or an object was invalidated.
            ValueError: there is no index with this name.
        """
        index = self._store.index(name)
        found = [cached for cached in index.find(value) if namespace is None or cached.namespace == namespace]
        entries = self._current_in(namespace)
        self._check(entries, namespace)
        return self._merged(found, entries, lambda cached: value in index.values_of(cached))

    def clear(self) -> None:
        """Remove everything: the server's versions have started again."""
        self.newest = None
        self._entries.clear()
        self._invalid_namespaces.clear()

    def statistics(self) -> OverlayStatistics:
        """Return the number of current entries, and the counts of earlier ones by how they ended."""
        self._forget_old_invalidations()
        return OverlayStatistics(
            len(self._current_in(None)) + len(self._invalid_namespaces), self._expired, self._dropped
        )

    def _put(
        self, request: Request, uid: str, version: Version | None, cached: CachedObject | None, *, left: bool = False
    ) -> None:
        if isinstance(version, int):
            self.newest = version if self.newest is None else max(self.newest, version)
        entry = _Entry(uid, version, cached, self._store.get(request), self._clock.monotonic(), left)
        existing = self._current(request)
        if self._passed(request, entry) or (isinstance(existing, _Entry) and not _supersedes(entry, existing)):
            return
        self._entries.pop(request, None)
        self._entries[request] = entry
        self._shrink()

    def _shrink(self) -> None:
        """Remove passed entries that nobody reads.

        Writes and the watch have the same order, so the oldest pass first.
        """
        while self._entries:
            request, entry = next(iter(self._entries.items()))
            if not self._passed(request, entry):
                if len(self._entries) <= CAPACITY:
                    return
                self._dropped += 1
            del self._entries[request]

    def _merged(
        self,
        below: Sequence[CachedObject],
        entries: Mapping[Request, _Entry | _Invalidation],
        belongs: Callable[[CachedObject], bool],
    ) -> Sequence[CachedObject]:
        if not entries:
            return below
        kept = [cached for cached in below if cached.request not in entries]
        laid_over = (self._over(request, entry) for request, entry in entries.items())
        return kept + [cached for cached in laid_over if cached is not None and belongs(cached)]

    def _over(self, request: Request, entry: _Entry | _Invalidation) -> CachedObject | None:
        """Return what an entry shows; a deletion hides the object and its predecessors, not its successor."""
        if isinstance(entry, _Invalidation):
            return self._store.get(request)
        if entry.cached is not None:
            return entry.cached
        below = self._store.get(request)
        if below is None or entry.left or below.uid == entry.uid:
            return None
        return None if entry.version is not None and _reached(entry.version, below.version) else below

    def _current_in(self, namespace: str | None) -> dict[Request, _Entry | _Invalidation]:
        requests = [request for request in self._entries if namespace in (None, request.namespace)]
        found = ((request, self._current(request)) for request in requests)
        return {request: entry for request, entry in found if entry is not None}

    def _current(self, request: Request) -> _Entry | _Invalidation | None:
        entry = self._entries.get(request)
        if entry is not None and self._passed(request, entry):
            del self._entries[request]
            return None
        return entry

    def _passed(self, request: Request, entry: _Entry | _Invalidation) -> bool:
        if isinstance(entry, _Invalidation):
            progress = self._progress(request)
            if entry.version is not None and progress is not None and _reached(progress, entry.version):
                return True
            # No event identifies itself as the one of the write, but it has certainly arrived by then.
            return self._age(entry) > MAX_AGE
        progress = self._progress(request)
        if not entry.final and isinstance(progress, int) and isinstance(entry.version, int):
            return progress >= entry.version
        below = self._store.get(request)
        if entry.final:
            # The store has no such object: the watch has passed the deletion, or not even reached the creation.
            gone = below is None or below.uid != entry.uid
            had_it = entry.basis is not None and entry.basis.uid == entry.uid
            reached = entry.version is None or (progress is not None and _reached(progress, entry.version))
            return gone and progress is not None and (had_it or reached)
        # Opaque versions have no order: the next event of the key replaces the write.
        return below is not entry.basis or (below is not None and below.version == entry.version)

    def _check(self, entries: Mapping[Request, _Entry | _Invalidation], namespace: str | None) -> None:
        if not entries and not self._invalid_namespaces:
            return
        objects = {
            request: entry
            for request, entry in entries.items()
            if isinstance(entry, _Invalidation) or self._age(entry) > MAX_AGE
        }
        self._forget_old_invalidations()
        namespaces = {name: entry for name, entry in self._invalid_namespaces.items() if namespace in (None, name)}
        if objects or namespaces:
            self._expired += len(objects) + len(namespaces)
            raise OverlayExpired(objects, namespaces)

    def _forget_old_invalidations(self) -> None:
        for name in [name for name, entry in self._invalid_namespaces.items() if self._age(entry) > MAX_AGE]:
            del self._invalid_namespaces[name]

    def _age(self, entry: _Entry | _Invalidation) -> float:
        return self._clock.monotonic() - entry.since


def _reached(progress: Version, version: Version) -> bool:
    """Return whether a version is certainly not older than another; opaque versions have no order."""
    return isinstance(progress, int) and isinstance(version, int) and progress >= version


def _supersedes(entry: _Entry, existing: _Entry) -> bool:
    """Return whether a response is later than one that arrived before it; responses may arrive in any order."""
    if entry.final:
        return existing.uid == entry.uid or existing.cached is None
    if existing.final and existing.uid == entry.uid:
        return False
    return existing.version is None or entry.version is None or not _reached(existing.version, entry.version)
