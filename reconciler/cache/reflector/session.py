"""Understand the lines of one watch and hand them on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from reconciler.cache.reflector.failures import WatchTrouble, is_behind
from reconciler.cache.reflector.wire import Bookmark, WireReader, decode_line, read_bookmark
from reconciler.cache.statistics import ReflectorStatistics
from reconciler.cache.store.object import CachedObject
from reconciler.errors import APIError, TooManyRequests, error_from_response
from reconciler.meta import UNDECODABLE, Request, Version, parse_version

__all__ = ["Filled", "Position", "Session", "Sink", "is_lower"]

SILENCE_MARGIN = 10.0
"""Seconds past its timeout after which a silent watch is dead: the server should have ended it."""

BOOKMARK_SILENCE = 180.0
"""Seconds of silence after which a watch is dead where bookmarks come: kube-apiserver 1.36 sends one a minute (60.1 s
apart), so three are missing."""

INITIAL_SILENCE = 10.0
"""Seconds of silence before the end mark after which a server is taken for one that knows no streamed lists; client-go
begins to warn at that point."""


Filled = Callable[[Sequence[CachedObject], Version], Awaitable[None]]
"""Take a complete list and its version."""


class Sink(Protocol):
    """Take what a reflector learns, in order."""

    async def replace(self, objects: Sequence[CachedObject], version: Version, *, restarted: bool) -> bool:
        """Take a complete list; return whether the server's history was rewritten.

        It was if `restarted` says so (the list's version is below what was known), and also if the list has an object
        that is older than the one which was taken before: etcd was restored, and its versions have risen since.
        """
        ...

    def apply(self, type: str, cached: CachedObject) -> None:
        """Take an event: ADDED, MODIFIED or DELETED."""
        ...

    def advance(self, version: Version) -> None:
        """Take a bookmark: nothing else happened up to this version."""
        ...

    def newest(self, most: int) -> Sequence[CachedObject]:
        """Return the objects that were changed last, at most so many."""
        ...

    def written(self) -> Version | None:
        """Return the highest version that the server answered to a write of this process; None for no write."""
        ...


@dataclass(slots=True)
class Position:
    """Say how far a reflector has come.

    Attributes:
        version: the newest version heard of; outlives `current`. 0 or ``""`` for a server whose lists tell none.
        current: whether a watch can go on from there; else a list is needed.
        exact: the next list must be consistent, whatever is known.
        bookmarks_come: the server was seen to send bookmarks by itself.
    """

    version: Version | None = None
    current: bool = False
    exact: bool = False
    bookmarks_come: bool = False

    def lose(self, *, exact: bool = False) -> None:
        """Let the next step be a list."""
        self.current = False
        self.exact = self.exact or exact

    def move(self, version: Version) -> None:
        """Go on to the version of an event or a bookmark.

        Raises:
            WatchTrouble: versions go backwards, as they do when etcd was restored from a backup.
        """
        if not self.version or not version:
            return
        if is_lower(version, self.version):
            raise WatchTrouble(
                f"an event of version {version} after {self.version}; was etcd restored?", kind="fallen", lost=True
            )
        self.version = version


class Session:
    """Be the reader of one stream.

    Args:
        position: moved by what is read.
        sink: takes what is read.
        reader: makes cached objects.
        counts: counts it.
        timeout: seconds that the server was asked to keep the stream open.
        filled: takes the initial events when they are complete; None when the stream begins without them.

    Attributes:
        initial: the initial events so far; None once they are complete, or when there are none.
        lines: how many were read.
        opened: whether the server has opened the stream.
        timeout: as given.
    """

    def __init__(
        self,
        *,
        position: Position,
        sink: Sink,
        reader: WireReader,
        counts: ReflectorStatistics,
        timeout: int,
        filled: Filled | None = None,
    ) -> None:
        self.initial: dict[Request, CachedObject] | None = {} if filled is not None else None
        self.lines = 0
        self.opened = False
        self.timeout = timeout
        self._filled = filled
        self._position = position
        self._sink = sink
        self._reader = reader
        self._counts = counts

    def silence(self) -> float:
        """Return the seconds without a byte after which the stream is dead."""
        if self.initial is not None:
            return INITIAL_SILENCE
        return BOOKMARK_SILENCE if self._position.bookmarks_come else self.timeout + SILENCE_MARGIN

    def handle(self, line: bytes) -> Awaitable[None] | None:
        """Take a line; return what has to be awaited before the next one.

        Raises:
            APIError: the line is an error of the server's.
            WatchTrouble: it is no event, or contradicts what came before.
        """
        self.lines += 1
        self._counts.events += 1
        try:
            event = decode_line(line)
            if event.type == "BOOKMARK":
                return self._bookmark(read_bookmark(event.object))
        except ValueError as error:
            raise WatchTrouble(f"a line that is no event ({error})", kind="garbled", lost=True) from None
        if event.type == "ERROR":
            raise self._error(event.object)
        cached = self._reader.read(event.object)
        if cached is not None:
            self._change(event.type, cached)
        elif self.initial is None and (version := self._reader.version_of(event.object)) is not None:
            self._position.move(version)
            self._sink.advance(version)
        return None

    def _change(self, type: str, cached: CachedObject) -> None:
        if self.initial is None:
            self._position.move(cached.version)
            self._sink.apply(type, cached)
        elif type == "DELETED":
            self.initial.pop(cached.request, None)
        else:
            self.initial[cached.request] = cached

    def _bookmark(self, bookmark: Bookmark) -> Awaitable[None] | None:
        self._counts.bookmarks += 1
        version = parse_version(bookmark.resource_version)
        if self.initial is None:
            self._position.bookmarks_come = True
            self._position.move(version)
            self._sink.advance(version)
        elif bookmark.ends_initial_events and self._filled is not None:
            objects, self.initial = list(self.initial.values()), None
            return self._filled(objects, version)
        return None

    def _error(self, raw: msgspec.Raw) -> APIError:
        try:
            status: Any = msgspec.json.decode(raw)
        except UNDECODABLE:
            status = None
        body = status if isinstance(status, dict) else {}
        code = body.get("code")
        error = error_from_response(code if isinstance(code, int) else 500, body)
        if not isinstance(error, TooManyRequests) and not is_behind(error):
            # The server ended the watch for a reason of its own; the same watch might end in the same way for ever.
            self._position.lose()
        return error


def is_lower(version: Version, than: Version | None) -> bool:
    """Say whether a version is before another; opaque ones have no order."""
    return isinstance(version, int) and isinstance(than, int) and version < than
