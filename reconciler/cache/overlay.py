"""Lay this process's own writes over a store until the watch has passed them: read your writes.

An entry holds the answer to a write. It is *passed*, and gone, as soon as the watch or a list has come to its version;
no event has to be hooked for that, since both facts can be read from the store when the entry is looked at.

Where no answer tells what is stored now (the answer was lost, many objects were deleted at once, a subresource was
written), the entry holds a *doubt*: the next reader has to ask the server.
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
"""Seconds that an own write is believed without a word from the watch; then the server is asked."""

CAPACITY = 10_000
"""Entries of one informer: what 160 writes a second make in 60 s while the watch is cut."""


@dataclass(frozen=True, slots=True)
class OverlayStatistics:
    """Count an overlay.

    Attributes:
        entries: own writes that the watch has not confirmed yet.
        expired: how often a reader met one that was 60 s old, or in doubt; each cost a live read.
        dropped: entries that had to go because there were too many.
    """

    entries: int
    expired: int
    dropped: int


class OverlayExpired(Exception):
    """Tell a reader that the server has to be asked: the watch is over 60 s behind an own write, or one is in doubt.

    Attributes:
        objects: the keys of which to read the object.
        namespaces: those of which to read everything; None stands for a cluster-scoped kind.
    """

    def __init__(self, objects: Mapping[Request, object], namespaces: Mapping[str | None, object]) -> None:
        super().__init__(f"own writes of {[*map(str, objects), *map(str, namespaces)]} are not confirmed")
        self.objects = objects
        self.namespaces = namespaces


class _Doubt(msgspec.Struct, frozen=True, eq=False):
    since: float
    version: Version | None = None  # of the write, where that is known


class _Entry(msgspec.Struct, frozen=True, eq=False):
    uid: str
    version: Version | None  # of a deletion: a version that is not after it, None when none is known
    cached: CachedObject | None  # None: deleted, or no more selected
    basis: CachedObject | None  # what the store held at the time
    since: float
    left: bool = False  # it lives on outside the selector, and may come back

    @property
    def final(self) -> bool:
        """Say whether the object is gone for good."""
        return self.cached is None and not self.left


class Overlay:
    """Hold the answers to own writes in front of a store.

    Args:
        store: what lies below.
        progress: gives the version that the watch over a key's namespace has come to, None before the first list.
        clock: measures ages. Default: the clock in force.

    Attributes:
        newest: the highest version that an own write, or a live read, was answered with; None for none so far.
    """

    def __init__(
        self, store: Store, progress: Callable[[Request], Version | None], *, clock: Clock | None = None
    ) -> None:
        self.newest: Version | None = None
        self._store = store
        self._progress = progress
        self._clock = clock or current_clock()
        self._entries: dict[Request, _Entry | _Doubt] = {}  # in the order of the writes
        self._doubts: dict[str | None, _Doubt] = {}  # of whole namespaces
        self._expired = 0
        self._dropped = 0

    def wrote(self, cached: CachedObject) -> None:
        """Take the object that a write, or a live read, was answered with."""
        self._put(cached.request, cached.uid, cached.version, cached)

    def deleted(self, request: Request, uid: str = "") -> None:
        """Take the deletion of an object.

        Args:
            request: its key.
            uid: its uid; when the answer did not tell it, the one of the object that a reader would have seen.
        """
        seen = self.seen(request)
        uid = uid or (seen.uid if seen is not None else "")
        if uid:
            self._put(request, uid, seen.version if seen is not None and seen.uid == uid else None, None)

    def left(self, cached: CachedObject) -> None:
        """Take an object that a write has put outside the selector; readers see it no more, until it comes back."""
        self._put(cached.request, cached.uid, cached.version, None, left=True)

    def doubt(self, request: Request, version: Version | None = None) -> None:
        """Take it that an object may have been written: nobody knows what is stored until the server is asked.

        Args:
            request: its key.
            version: of the write, if it is known: the doubt ends when the watch has come to it.
        """
        self._entries.pop(request, None)
        self._entries[request] = _Doubt(self._clock.monotonic(), version)
        self._shrink()

    def doubt_all(self, namespace: str | None) -> None:
        """Take it that any object of a namespace may have been written; None for those of a cluster-scoped kind."""
        self._doubts[namespace] = _Doubt(self._clock.monotonic())

    def settled(self, key: Request | str | None, what: object) -> None:
        """Take it that the server was asked about a key or a namespace that `OverlayExpired` told of.

        What was written meanwhile stays.
        """
        held: dict[Any, Any] = self._entries if isinstance(key, Request) else self._doubts
        if held.get(key) is what:
            del held[key]

    def absent(self, request: Request, what: object, before: CachedObject | None) -> None:
        """Take it that the server holds no object of a key that `OverlayExpired` told of; what came meanwhile stays.

        Args:
            request: the key.
            what: as told.
            before: what was `seen` when the server was asked; a later incarnation need not be gone.
        """
        if self._entries.get(request) is not what:
            return
        del self._entries[request]
        if before is not None:
            self._put(request, before.uid, before.version, None)
        elif isinstance(what, _Entry):
            self._put(request, what.uid, what.version, None)  # a deletion that the watch still has not told of

    def seen(self, request: Request) -> CachedObject | None:
        """Return what a reader would see under a key if nothing were too old or in doubt."""
        entry = self._current(request)
        return self._store.get(request) if entry is None else self._over(request, entry)

    def seen_in(self, namespace: str | None) -> Sequence[CachedObject]:
        """Return what a reader would see in a namespace, or in all, if nothing were too old or in doubt."""
        return self._merged(self._store.list(namespace), self._current_in(namespace), lambda _: True)

    def get(self, request: Request) -> CachedObject | None:
        """Return what a reader sees under a key.

        Raises:
            OverlayExpired: the watch is too far behind, or it is in doubt.
        """
        entry = self._current(request)
        self._check({} if entry is None else {request: entry}, request.namespace)
        return self._store.get(request) if entry is None else self._over(request, entry)

    def list(self, namespace: str | None = None) -> Sequence[CachedObject]:
        """Return what a reader sees in a namespace, or in all.

        Raises:
            OverlayExpired: the watch is too far behind, or something is in doubt.
        """
        entries = self._current_in(namespace)
        self._check(entries, namespace)
        return self._merged(self._store.list(namespace), entries, lambda _: True)

    def by_index(self, name: str, value: str, namespace: str | None = None) -> Sequence[CachedObject]:
        """Return what a reader sees by an index.

        Raises:
            OverlayExpired: the watch is too far behind, or something is in doubt.
            ValueError: there is no such index.
        """
        index = self._store.index(name)
        found = [cached for cached in index.find(value) if namespace is None or cached.namespace == namespace]
        entries = self._current_in(namespace)
        self._check(entries, namespace)
        return self._merged(found, entries, lambda cached: value in index.values_of(cached))

    def clear(self) -> None:
        """Forget everything: the server's versions have started anew."""
        self.newest = None
        self._entries.clear()
        self._doubts.clear()

    def statistics(self) -> OverlayStatistics:
        """Count the entries and what became of others."""
        self._forget_old_doubts()
        return OverlayStatistics(len(self._current_in(None)) + len(self._doubts), self._expired, self._dropped)

    def _put(
        self, request: Request, uid: str, version: Version | None, cached: CachedObject | None, *, left: bool = False
    ) -> None:
        if isinstance(version, int) and not (isinstance(self.newest, int) and self.newest >= version):
            self.newest = version
        entry = _Entry(uid, version, cached, self._store.get(request), self._clock.monotonic(), left)
        existing = self._current(request)
        if self._passed(request, entry) or (isinstance(existing, _Entry) and not _supersedes(entry, existing)):
            return
        self._entries.pop(request, None)
        self._entries[request] = entry
        self._shrink()

    def _shrink(self) -> None:
        """Forget passed entries that nobody reads: writes and the watch go in one order, so the oldest pass first."""
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
        entries: Mapping[Request, _Entry | _Doubt],
        belongs: Callable[[CachedObject], bool],
    ) -> Sequence[CachedObject]:
        if not entries:
            return below
        kept = [cached for cached in below if cached.request not in entries]
        laid_over = (self._over(request, entry) for request, entry in entries.items())
        return kept + [cached for cached in laid_over if cached is not None and belongs(cached)]

    def _over(self, request: Request, entry: _Entry | _Doubt) -> CachedObject | None:
        """Return what an entry shows; a deletion hides the object and what was before it, not its successor."""
        if isinstance(entry, _Doubt):
            return self._store.get(request)
        if entry.cached is not None:
            return entry.cached
        below = self._store.get(request)
        if below is None or entry.left or below.uid == entry.uid:
            return None
        return None if entry.version is not None and _reached(entry.version, below.version) else below

    def _current_in(self, namespace: str | None) -> dict[Request, _Entry | _Doubt]:
        requests = [request for request in self._entries if namespace in (None, request.namespace)]
        found = ((request, self._current(request)) for request in requests)
        return {request: entry for request, entry in found if entry is not None}

    def _current(self, request: Request) -> _Entry | _Doubt | None:
        entry = self._entries.get(request)
        if entry is not None and self._passed(request, entry):
            del self._entries[request]
            return None
        return entry

    def _passed(self, request: Request, entry: _Entry | _Doubt) -> bool:
        if isinstance(entry, _Doubt):
            progress = self._progress(request)
            if entry.version is not None and progress is not None and _reached(progress, entry.version):
                return True
            # No word of the watch says that it is the one about the write; but by then it has surely been there.
            return self._age(entry) > MAX_AGE
        progress = self._progress(request)
        if not entry.final and isinstance(progress, int) and isinstance(entry.version, int):
            return progress >= entry.version
        below = self._store.get(request)
        if entry.final:
            # The watch shows no such object: it has seen the deletion, unless it has not even come to the creation.
            gone = below is None or below.uid != entry.uid
            had_it = entry.basis is not None and entry.basis.uid == entry.uid
            reached = entry.version is None or (progress is not None and _reached(progress, entry.version))
            return gone and progress is not None and (had_it or reached)
        # Opaque versions have no order: the next word about the key replaces the write.
        return below is not entry.basis or (below is not None and below.version == entry.version)

    def _check(self, entries: Mapping[Request, _Entry | _Doubt], namespace: str | None) -> None:
        if not entries and not self._doubts:
            return
        objects = {
            request: entry
            for request, entry in entries.items()
            if isinstance(entry, _Doubt) or self._age(entry) > MAX_AGE
        }
        self._forget_old_doubts()
        namespaces = {name: doubt for name, doubt in self._doubts.items() if namespace in (None, name)}
        if objects or namespaces:
            self._expired += len(objects) + len(namespaces)
            raise OverlayExpired(objects, namespaces)

    def _forget_old_doubts(self) -> None:
        for name in [name for name, doubt in self._doubts.items() if self._age(doubt) > MAX_AGE]:
            del self._doubts[name]

    def _age(self, entry: _Entry | _Doubt) -> float:
        return self._clock.monotonic() - entry.since


def _reached(progress: Version, version: Version) -> bool:
    """Say whether one version is surely not before another; opaque versions have no order."""
    return isinstance(progress, int) and isinstance(version, int) and progress >= version


def _supersedes(entry: _Entry, existing: _Entry) -> bool:
    """Say whether an answer is later than one that came before it; answers may come in any order."""
    if entry.final:
        return existing.uid == entry.uid or existing.cached is None
    if existing.final and existing.uid == entry.uid:
        return False
    return existing.version is None or entry.version is None or not _reached(existing.version, entry.version)
