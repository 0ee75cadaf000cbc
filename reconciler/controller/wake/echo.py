"""The echo rule: distinguishes the watch event of a controller's own write from a change that it has not observed yet.

A watch event of a primary object is news if its version is newer than `seen`, the newest version of the object that a
reconcile of this controller has observed. While a key is in progress, four more values are kept:

``basis``
    the oldest version that the reconcile could have read: the one in the informer's store when it started, or a lower
    one that it reported reading;
``tip``
    the version that the reconcile's own writes have led to from there: each write was conditional on `tip`, and the
    version in its response is the new `tip`;
``late``
    the highest version in a watch event since then, with the wake-up that the events asked for;
``void``
    the object was absent at the start or was deleted, or history was rewritten: this reconcile does not raise
    `seen`.

*Why no change is lost.* An event is dropped only if its version is at most `seen`, and `seen` rises only from `basis`,
over writes that the server accepted on condition of the version before. No version exists between the two of such a
write. So a foreign version at most `seen` is at most some `basis`: whatever that reconcile read, and through whatever
client, it read that version or a later one. A version newer than `basis` has an event of its own.

*Why a `tip` may start at `seen`.* A store that is behind `seen` holds a version between an earlier `basis` and the own
writes that followed it, because a store never goes back. Only own writes lie between the two.

*Why a slow watch does not matter.* No version exists between the two of an own write, whatever `tip` was. Such links
are remembered until they are observed, and `tip` follows them. Without them, a key that writes in every
reconcile, and starts each time while the store is one version behind, would wake itself forever.

*Why there is no echo.* Without foreign writes the last own version is `tip`, and `late` cannot be beyond it.

*Why an echo leaves no trace.* Whether an event is an echo may be known only at the end of the reconcile. Until then the
event is held here, and the queue does not change: no timer or reason that somebody else set is lost.

Versions are integers of one history (KEP-5504). A server of an aggregated API may answer other strings, which cannot be
ordered: then `seen` is the chain of versions of the last reconcile, and an event is dropped only if it is in the chain.

No I/O, no queue, no time. One event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import msgspec

from reconciler.cache import CacheEvent
from reconciler.meta.documents import Version

K = TypeVar("K", bound=Hashable)

_MAX_OPAQUE = 64
"""How many opaque versions are remembered for a reconcile; a reconcile with more counts as overtaken, which
costs one more reconcile."""

_MAX_LINKS = 64
"""How many own writes of one object are remembered while they are not observed; beyond it the oldest is forgotten."""

_MAX_EVENTS = 8
"""How many of the events that are held for a key are remembered, to tell what woke it."""


@dataclass(frozen=True, slots=True)
class EchoStatistics:
    """Counters of the echo rule.

    Attributes:
        known: keys with an observed version.
        in_progress: keys in progress.
        dropped: events that were dropped because their version was observed already; the events that are held during
            one reconcile count once.
        overtaken: reconciles during which a newer version came than the one they observed.
    """

    known: int
    in_progress: int
    dropped: int
    overtaken: int


class Wake(NamedTuple):
    """The wake-up that an event asks for.

    Attributes:
        priority: of the key in the queue.
        due: monotonic second from which the key may be reconciled; None for at once.
        events: the events that ask for it; the latest eight if they are held.
    """

    priority: int = 0
    due: float | None = None
    events: tuple[CacheEvent, ...] = ()

    def merged(self, other: Wake) -> Wake:
        """Return the higher priority, the earlier time, and the events of two."""
        due = None if self.due is None or other.due is None else min(self.due, other.due)
        return Wake(max(self.priority, other.priority), due, (*self.events, *other.events)[-_MAX_EVENTS:])


class _InProgress(msgspec.Struct):
    """The state of an object while its key is in progress."""

    basis: Version | None = None
    tip: Version | None = None  # basis, moved on only by own writes conditional on it
    chain: list[str] = []  # opaque versions only: basis and own responses
    late: int | None = None
    late_opaque: set[str] = set()
    held: Wake | None = None  # of the events behind `late`
    overflow: bool = False
    void: bool = True  # until the basis is set


_Seen = int | tuple[str, ...]


class EchoTracker(Generic[K]):
    """The version of each object that one controller has observed.

    One per controller: what one controller has observed is news to another.

    Args:
        own_writes: whether own writes count as observed. False restores controller-runtime's behavior, where each own
            write wakes the controller.
        on_echo: called with the key of each event that is dropped; once for all events that are held during a
            reconcile. Default: nothing.
    """

    def __init__(self, *, own_writes: bool = True, on_echo: Sequence[Callable[[K], None]] = ()) -> None:
        self._own_writes = own_writes
        self._on_echo = on_echo
        self._seen: dict[K, _Seen] = {}
        self._links: dict[K, dict[Version, Version]] = {}  # own writes that are not observed: before to after
        self._in_progress: dict[K, _InProgress] = {}
        self._dropped = 0
        self._overtaken = 0

    def begin(self, key: K, version: Version | None = None) -> None:
        """Record that the key is in progress, so that its events are held until `finish`.

        Args:
            key: the key.
            version: as for `set_basis`. Default: not known yet.
        """
        progress = self._in_progress[key] = _InProgress()
        if version is not None:
            self._set_basis(key, progress, version)

    def set_basis(self, key: K, version: Version | None) -> None:
        """Record the version that the reconcile may read first.

        Args:
            key: the key; it is in progress.
            version: the version in the informer's store, which is the oldest that the reconcile can read; None if the
                store has no such object.
        """
        progress = self._in_progress.get(key)
        if progress is not None and version is not None:
            self._set_basis(key, progress, version)

    def _set_basis(self, key: K, progress: _InProgress, version: Version) -> None:
        progress.basis = progress.tip = version
        progress.void = False
        seen = self._seen.get(key)
        if isinstance(version, str):
            progress.chain = [version]
        elif isinstance(seen, int) and seen > version:
            progress.tip = seen
        if self._links:
            self._follow(key, progress)

    def record_read(self, key: K, version: Version) -> None:
        """Record that the reconcile read its object at this version, which may be older than the one in the store."""
        progress = self._in_progress.get(key)
        if progress is None or progress.void:
            return
        if isinstance(version, int) and isinstance(progress.basis, int):
            if version < progress.basis:
                progress.basis = progress.tip = version
        elif version not in progress.chain:  # nobody can tell which one is older
            progress.void = True

    def record_write(self, key: K, *, before: Version, after: Version, exact: bool) -> None:
        """Record a write of the reconcile to its own object, conditional on `before` and answered with `after`.

        It counts only if the response equals what was computed, and only once `tip` has reached `before`. The event of
        any other write may contain a foreign change, so it enqueues the key.
        """
        progress = self._in_progress.get(key)
        if progress is None or progress.void or not self._own_writes or not exact or before == after:
            return
        if before == progress.tip:
            self._advance(progress, after)
            if self._links:
                self._follow(key, progress)
            return
        links = self._links.setdefault(key, {})
        links[before] = after
        while len(links) > _MAX_LINKS:
            del links[next(iter(links))]

    def must_enqueue(self, key: K, version: Version, wake: Wake = Wake()) -> bool:  # noqa: B008 - immutable
        """Return whether a watch event for this version must enqueue the object now.

        False if a reconcile has already observed the version. Also False while the key is in progress: then `finish`
        returns the wake-up if no reconcile has observed the version by the end.

        Args:
            key: the object's key.
            version: the object's version in the event.
            wake: the wake-up that the event asks for.
        """
        seen = self._seen.get(key)
        if seen is not None and _covers(seen, version):
            self._drop(key)
            return False
        progress = self._in_progress.get(key)
        if progress is None:
            return True
        progress.held = wake if progress.held is None else progress.held.merged(wake)
        if isinstance(version, int):
            progress.late = version if progress.late is None else max(progress.late, version)
        elif len(progress.late_opaque) < _MAX_OPAQUE:
            progress.late_opaque.add(version)
        else:
            progress.overflow = True
        return False

    def finish(self, key: K) -> Wake | None:
        """Record the end of a reconcile, whatever its outcome.

        Returns:
            The wake-up for the events that were held, if one of them is newer than the observed version; it names only
            those that are newer and not own writes. None without events, or if all were echoes.
        """
        progress = self._in_progress.pop(key, None)
        if progress is None:
            return None
        self._raise_seen(key, progress)
        if progress.held is None:
            return None
        seen = self._seen.get(key)
        overtaken = (
            progress.overflow
            or (progress.late is not None and not _covers(seen, progress.late))
            or (bool(progress.late_opaque) and any(not _covers(seen, version) for version in progress.late_opaque))
        )
        if not overtaken:
            self._drop(key)
            return None
        self._overtaken += 1
        own = self._links.get(key, {}).values()  # after a foreign version, so they count as news; but they woke nothing
        versions = ((event, event.object.version) for event in progress.held.events)
        news = tuple(event for event, version in versions if not _covers(seen, version) and version not in own)
        return progress.held._replace(events=news)

    def forget(self, key: K) -> None:
        """Drop the versions of a key: its object was deleted, or another one has its name.

        The caller enqueues the key with its own reason. A reconcile in progress no longer raises `seen`.
        """
        self._seen.pop(key, None)
        self._links.pop(key, None)
        progress = self._in_progress.get(key)
        if progress is not None:
            progress.void = True

    def forget_all(self) -> None:
        """Drop everything: versions went backwards, so no known number is valid. The caller enqueues all keys."""
        self._seen.clear()
        self._links.clear()
        for progress in self._in_progress.values():
            progress.void = True

    def in_progress(self, key: K) -> bool:
        """Return whether the key is in progress."""
        return key in self._in_progress

    def seen(self, key: K) -> _Seen | None:
        """Return the observed version; the chain of opaque versions; None when nothing is known."""
        return self._seen.get(key)

    def statistics(self) -> EchoStatistics:
        """Return the counters at this moment."""
        return EchoStatistics(len(self._seen), len(self._in_progress), self._dropped, self._overtaken)

    def _drop(self, key: K) -> None:
        self._dropped += 1
        for notify in self._on_echo:
            notify(key)

    def _follow(self, key: K, progress: _InProgress) -> None:
        """Advance `tip` over the own writes that follow it."""
        links = self._links.get(key)
        while links and progress.tip in links and not progress.void:
            self._advance(progress, links[progress.tip])

    @staticmethod
    def _advance(progress: _InProgress, version: Version) -> None:
        progress.tip = version
        if isinstance(version, str):
            progress.chain.append(version)
            progress.void = len(progress.chain) > _MAX_OPAQUE

    def _raise_seen(self, key: K, progress: _InProgress) -> None:
        before = self._seen.get(key)
        if progress.void or progress.tip is None or (progress.tip == before and not self._links):
            return
        if isinstance(progress.tip, str):
            self._seen[key] = tuple(progress.chain)
            return
        seen = self._seen[key] = max(before, progress.tip) if isinstance(before, int) else progress.tip
        links = self._links.get(key)
        if links is not None:
            unseen: dict[Version, Version] = {
                low: high for low, high in links.items() if isinstance(high, int) and high > seen
            }
            self._links.pop(key)
            if unseen:
                self._links[key] = unseen


def _covers(seen: _Seen | None, version: Version) -> bool:
    if isinstance(seen, int):
        return isinstance(version, int) and version <= seen
    return seen is not None and version in seen
