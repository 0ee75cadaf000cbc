"""This process's own writes, laid over the store until the watch has passed them: read-your-writes.

The rule: the server's history is one sequence of versions, and the store is its state at the version that the watch has
reached. An *entry* says what a key's object was at a later version. A reader sees the entry until the watch has
*passed* it, and the store from then on. There are three kinds of entries:

* A *state*: an object, or none, at a version; from the response to a write or a list. The watch has passed it when it
  has reached its version, or when the store has a newer version of the object.
* A *deletion* of a uid, whose version no response tells. What is known is a version at which the object still existed.
  The watch has passed the deletion when it has passed that version and the store does not contain the uid.
* *Unknown*: a write may have taken effect. A reader must ask the server, whose list is a state. The watch passes it
  only if the version of the write is known.

A response replaces an entry that was there when its request was sent. Between others, a deletion replaces each state of
its uid, a higher version replaces a lower one, and unknown is not replaced.

The proof that a reader never goes back in time:

1. A state at version V was the server's state at V, and the store is the server's state at its own version P. If P < V,
   the entry is newer. If not, the store is.
2. A uid never returns. So if the uid is not in the store at P, and existed at V <= P, then it was deleted at or before
   P. An object with another uid is a predecessor below V, and a successor above it.
3. The server answers a request with a state that is not older than the moment at which the request was sent. An entry
   that was there by then came from an earlier response, so it is older.
4. A response whose request was sent before a write was lost may not contain that write, so unknown remains. It counts
   as recorded anew, because a response to a request that was sent meanwhile may be older than this one.

Versions that are not integers have no order. There, the next event of a key passes its entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from reconciler.cache.store import CachedObject, IdleObject, Store
from reconciler.clock import Clock, current_clock
from reconciler.meta import Request
from reconciler.meta.documents import Version

MAX_AGE = 60.0
"""Seconds that an entry is trusted without confirmation by the watch; after that, the server is asked."""

CAPACITY = 10_000
"""Entries per informer: 160 writes per second for 60 s while the watch is interrupted."""


@dataclass(frozen=True, slots=True)
class OverlayStatistics:
    """Counters of an overlay.

    Attributes:
        entries: own writes that the watch has not confirmed yet.
        expired: how often a reader met an entry that was 60 s old, or unknown; each cost a read from the server.
        dropped: entries removed because there were too many; the next read waits for a list of everything.
    """

    entries: int
    expired: int
    dropped: int


class OverlayExpired(Exception):
    """The reader must ask the server: the watch is over 60 s behind an own write, or an object is unknown.

    Attributes:
        objects: the keys whose objects to read.
        namespaces: the namespaces to read completely; None stands for a cluster-scoped kind.
        everything: whether all objects must be listed again.
    """

    def __init__(
        self, objects: Collection[Request], namespaces: Collection[str | None] = (), *, everything: bool = False
    ) -> None:
        super().__init__(f"own writes of {[*map(str, objects), *map(str, namespaces)]} are not confirmed")
        self.objects = objects
        self.namespaces = namespaces
        self.everything = everything


class _OverlayEntry(msgspec.Struct, frozen=True, eq=False):
    version: Version | None  # None: unknown, and no watch passes it
    since: float
    cached: CachedObject | None = None  # None: no object that this informer watches
    known: bool = True
    deleted: str | None = None  # the uid of an object that existed at `version` and was deleted later
    basis: CachedObject | None = None  # what the store contained when the request was sent


class Baseline(NamedTuple):
    """The entry and the object in the store of a key when a request was sent; the response is newer."""

    entry: _OverlayEntry | None = None
    stored: CachedObject | None = None


class ListBaseline(NamedTuple):
    """The entries of an overlay when a list was requested; the list is newer.

    Attributes:
        namespace: the listed namespace; None for all, or a cluster-scoped kind.
        name: the only name that is listed; None for all.
        entries: all entries.
        unknown: the namespaces in which any object may have been written.
        overflow: stands for entries that were dropped.
    """

    namespace: str | None
    name: str | None
    entries: Mapping[Request, _OverlayEntry]
    unknown: Mapping[str | None, object]
    overflow: object | None


class _Listed(NamedTuple):
    absent: _OverlayEntry  # the state of every other key
    present: Collection[Request]


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
        self._entries: dict[Request, _OverlayEntry] = {}  # in the order of the responses
        self._listed: dict[str | None, _Listed] = {}  # namespaces that were read completely
        self._unknown: dict[str | None, object] = {}  # namespaces in which any object may have been written
        self._overflow: object | None = None  # stands for all entries that were dropped
        self._expired = 0
        self._dropped = 0

    # requests and their responses

    def baseline(self, request: Request) -> Baseline:
        """Return what is known of a key before a request is sent, for recording the response."""
        return Baseline(self._current(request), self._store.get(request))

    def list_baseline(self, namespace: str | None = None, name: str | None = None) -> ListBaseline:
        """Return what is known before a namespace, or one name in it, is listed, for recording the response."""
        return ListBaseline(namespace, name, dict(self._entries), dict(self._unknown), self._overflow)

    def record_write(self, cached: CachedObject, baseline: Baseline | None = None) -> None:
        """Record the object returned by a write.

        Args:
            cached: the object.
            baseline: what was known when the write was sent. Default: no entry, so that only versions decide.
        """
        self._put(cached.request, baseline, cached.version, cached=cached)

    def record_departure(self, cached: CachedObject, baseline: Baseline | None = None) -> None:
        """Record an object that a write moved out of the selector; it is hidden until it matches again."""
        self._put(cached.request, baseline, cached.version)

    def record_deletion(
        self, request: Request, uid: str = "", version: Version | None = None, baseline: Baseline | None = None
    ) -> None:
        """Record the deletion of an object.

        Args:
            request: its key.
            uid: its uid; ``""`` if the response did not contain it.
            version: a version at which it existed, if the response contained one.
            baseline: what was known when the deletion was sent; see `record_write`.
        """
        if version is None:
            entry, stored = baseline or Baseline(None, self._store.get(request))
            found = (self.peek(request), stored, entry.cached if entry is not None else None)
            version = next((seen.version for seen in found if seen is not None and seen.uid == uid), None)
        if uid and version is not None:
            self._put(request, baseline, version, deleted=uid)
        else:
            self.invalidate(request)  # the store cannot show whether the watch has passed the deletion

    def invalidate(self, request: Request, version: Version | None = None, baseline: Baseline | None = None) -> None:
        """Mark an object as possibly written: its state is unknown until the server is asked.

        Args:
            request: its key.
            version: the version of the write, if known. The mark ends when the watch reaches it.
            baseline: what was known when the write was sent; see `record_write`.
        """
        self._put(request, baseline, version, known=False)

    def invalidate_all(self, namespace: str | None) -> None:
        """Mark every object of a namespace as possibly written; None for a cluster-scoped kind."""
        self._unknown[namespace] = object()
        self._shrink()

    def record_list(
        self, version: Version, found: Iterable[CachedObject], present: Collection[Request], baseline: ListBaseline
    ) -> None:
        """Record what the server has in a namespace, or under one name.

        Args:
            version: the version of the list; an int if it is not of one name.
            found: the objects.
            present: the keys of all objects, also those that this informer does not show.
            baseline: what was known when the list was requested.
        """
        namespace, name, entries = baseline.namespace, baseline.name, baseline.entries
        for cached in found:
            request = cached.request
            self._put(request, Baseline(entries.get(request), self._store.get(request)), cached.version, cached=cached)
        for request in self._requests_in(namespace) if name is None else [Request(name, namespace)]:
            if request in present:
                _remove(self._entries, {request: entries.get(request)})
            else:
                self._put(request, Baseline(entries.get(request), self._store.get(request)), version)
        if name is None:
            listed = self._listed.get(namespace)
            if listed is None or not _reached(listed.absent.version, version):
                # It hides only what is older than the list, so it needs no confirmation.
                self._listed[namespace] = _Listed(_OverlayEntry(version, since=math.inf), present)
            _remove(self._unknown, {namespace: baseline.unknown.get(namespace)})

    def record_refresh(self, baseline: ListBaseline) -> None:
        """Remove what was known before a list of everything was requested: the store is newer."""
        _remove(self._entries, baseline.entries)
        _remove(self._unknown, baseline.unknown)
        if self._overflow is baseline.overflow:
            self._overflow = None

    def clear(self) -> None:
        """Remove everything: the server's versions have started again."""
        self.newest = self._overflow = None
        self._entries.clear()
        self._listed.clear()
        self._unknown.clear()

    # reads

    def peek(self, request: Request) -> CachedObject | None:
        """Return what a reader would see under a key if nothing were expired or unknown."""
        entry = self._current(request)
        return entry.cached if entry is not None and entry.known else self._store.peek(request)

    def written(self, request: Request) -> CachedObject | None:
        """Return the object of an own write that the watch has not passed, or None."""
        entry = self._current(request) if self._entries or self._listed else None
        return entry.cached if entry is not None and entry.known else None

    def get(self, request: Request) -> CachedObject | None:
        """Return what a reader sees under a key.

        Raises:
            OverlayExpired: the watch is too far behind, or the object is unknown.
        """
        entry = self._current(request) if self._entries or self._listed else None
        if entry is not None or self._unknown or self._overflow is not None:  # rarely
            self._check({} if entry is None else {request: entry}, request.namespace)
        return self._store.get(request) if entry is None else entry.cached

    def list(self, namespace: str | None = None) -> Sequence[CachedObject | IdleObject]:
        """Return what a reader sees in a namespace; None for all.

        Raises:
            OverlayExpired: the watch is too far behind, or an object is unknown.
        """
        return self._merged(self._store.find(namespace), namespace, lambda _: True)

    def by_index(self, name: str, value: str, namespace: str | None = None) -> Sequence[CachedObject | IdleObject]:
        """Return what a reader sees through an index.

        Raises:
            OverlayExpired: the watch is too far behind, or an object is unknown.
            ValueError: there is no index with this name.
        """
        index = self._store.index(name)
        found = [each for each in self._store.by_index(name, value) if namespace is None or each.namespace == namespace]
        return self._merged(found, namespace, lambda cached: value in index.values_of(cached))

    def statistics(self) -> OverlayStatistics:
        """Return the number of current entries, and the counts of earlier ones by how they ended."""
        unconfirmed = len(self._current_in(None)) + len(self._unknown) + (self._overflow is not None)
        return OverlayStatistics(unconfirmed, self._expired, self._dropped)

    def _merged(
        self, below: Sequence[CachedObject | IdleObject], namespace: str | None, belongs: Callable[[CachedObject], bool]
    ) -> Sequence[CachedObject | IdleObject]:
        entries = self._current_in(namespace)
        self._check(entries, namespace)
        if not entries and not self._listed:
            return below
        kept = [cached for cached in below if self._current(cached.request) is None]
        laid_over = (entry.cached for entry in entries.values())
        return kept + [cached for cached in laid_over if cached is not None and belongs(cached)]

    def _check(self, entries: Mapping[Request, _OverlayEntry], namespace: str | None) -> None:
        oldest = self._clock.monotonic() - MAX_AGE
        objects = [request for request, entry in entries.items() if not entry.known or entry.since < oldest]
        namespaces = [name for name in self._unknown if namespace in (None, name)]
        if objects or namespaces or self._overflow is not None:
            self._expired += (len(objects) + len(namespaces)) or 1
            raise OverlayExpired(objects, namespaces, everything=self._overflow is not None)

    # the rule

    def _put(
        self,
        request: Request,
        baseline: Baseline | None,
        version: Version | None,
        *,
        cached: CachedObject | None = None,
        known: bool = True,
        deleted: str | None = None,
    ) -> None:
        """Record a response, unless what is there is newer or the watch has passed it."""
        if isinstance(version, int):
            self.newest = version if self.newest is None or version > self.newest else self.newest
        before = baseline or Baseline(None, self._store.get(request))
        entry = _OverlayEntry(version, self._clock.monotonic(), cached, known, deleted, before.stored)
        existing = self._current(request)
        if existing is None or existing is before.entry or version is None or _is_newer(entry, existing):
            self._entries.pop(request, None)
            if not self._passed(request, entry):
                self._entries[request] = entry
                if len(self._entries) > 1 or self._listed or self._unknown:
                    self._shrink()
        elif existing.version is None:
            self.invalidate(request)  # from now on, only a request that is newer than this response, too, ends it

    def _current(self, request: Request) -> _OverlayEntry | None:
        """Return the entry of a key that the watch has not passed."""
        entry = self._entries.get(request)
        if entry is not None:
            if not self._passed(request, entry):
                return entry
            del self._entries[request]
        listed = self._listed.get(request.namespace)
        if listed is None or request in listed.present:
            return None
        if _reached(self._progress(request), listed.absent.version):
            del self._listed[request.namespace]
            return None
        return None if self._passed(request, listed.absent) else listed.absent

    def _passed(self, request: Request, entry: _OverlayEntry) -> bool:
        progress, version = self._progress(request), entry.version
        if version is None or progress is None:
            return False
        reached = _reached(progress, version)
        if reached and entry.deleted is None:  # nearly every entry ends like this, without a look into the store
            return True
        stored = self._store.peek(request)
        if stored is not None and stored.uid == entry.deleted:
            return False
        if isinstance(version, int) and isinstance(progress, int):
            return reached or (stored is not None and _reached(stored.version, version))
        return stored is not entry.basis or (stored is not None and stored.version == version)

    def _current_in(self, namespace: str | None) -> dict[Request, _OverlayEntry]:
        found = ((request, self._current(request)) for request in self._requests_in(namespace))
        return {request: entry for request, entry in found if entry is not None}

    def _requests_in(self, namespace: str | None) -> Sequence[Request]:
        return [request for request in self._entries if namespace in (None, request.namespace)]

    def _shrink(self) -> None:
        """Remove passed entries that nobody reads; the oldest pass first. If there are too many, all are unknown."""
        while self._entries:
            request, entry = next(iter(self._entries.items()))
            if not self._passed(request, entry):
                break
            del self._entries[request]
        held = len(self._entries) + len(self._listed) + len(self._unknown)
        if held > CAPACITY:
            self._dropped += held
            newest = self.newest
            self.clear()
            self.newest, self._overflow = newest, object()


def _reached(progress: Version | None, version: Version | None) -> bool:
    """Return whether a version is certainly not older than another; opaque versions have no order."""
    return isinstance(progress, int) and isinstance(version, int) and progress >= version


def _is_newer(entry: _OverlayEntry, existing: _OverlayEntry) -> bool:
    """Return whether an entry is newer than one that was not there when its request was sent."""
    if existing.version is None or (entry.cached is not None and entry.cached.uid == existing.deleted):
        return False
    if existing.cached is not None and existing.cached.uid == entry.deleted:
        return True
    return not _reached(existing.version, entry.version)


def _remove(held: dict[Any, Any], what: Mapping[Any, object]) -> None:
    """Remove what is still the same."""
    for key, value in what.items():
        if value is not None and held.get(key) is value:
            del held[key]
