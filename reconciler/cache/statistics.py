"""Count what reflectors and informers did."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.cache.store.overlay import OverlayStatistics
from reconciler.cache.store.store import StoreStatistics

__all__ = ["InformerStatistics", "ReflectorStatistics"]


@dataclass(slots=True)
class ReflectorStatistics:
    """Count what one reflector, or all those of an informer, did. What is handed out is a copy.

    Attributes:
        lists: complete lists, streamed ones included.
        watches: streams opened.
        events: lines read, bookmarks included.
        bookmarks: how many of them.
        failures: of every kind.
        expired: versions that were compacted away (410).
        silent: streams given up because nothing came.
        behind: answers of a server that had not come to the version asked for.
        stale_lists: lists thrown away because they were older than what was known.
        restarts: times that the server's versions fell.
    """

    lists: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    failures: int = 0
    expired: int = 0
    silent: int = 0
    behind: int = 0
    stale_lists: int = 0
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class InformerStatistics:
    """Count what one informer holds and did.

    Attributes:
        scope: what it watches, for people.
        synced: whether the initial list is complete.
        handlers: how many are registered.
        events: how many were told.
        handler_errors: how often a handler failed.
        restart_errors: how often a callback of `Informer.on_restart` failed.
        stale: objects and events left out because the store had a newer version.
        unexpected: objects left out because they are of another kind or cannot be read.
        transform_errors: objects kept as they came because the transform failed.
        reflectors: what the reflectors did, together.
        store: what is held.
        overlay: own writes that the watch has not confirmed.
        last_error: what went wrong last; None while all is well.
        elsewhere: objects and events left out because another replica answers for them.
        server_filters: whether the server leaves those out itself; None where nothing is shared out by hash, and until
            the server's answer says so.
    """

    scope: str
    synced: bool
    handlers: int
    events: int
    handler_errors: int
    restart_errors: int
    stale: int
    unexpected: int
    transform_errors: int
    reflectors: ReflectorStatistics
    store: StoreStatistics
    overlay: OverlayStatistics
    last_error: str | None
    elsewhere: int = 0
    server_filters: bool | None = None
