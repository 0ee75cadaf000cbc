"""Understand the lines of one watch and hand them on.

---

Read a watch: lines of any length out of chunks, an eye on silence, and a breath for the rest of the loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.cache.decoding import Bookmark, WireReader, decode_line, read_bookmark
from reconciler.cache.errors import WatchTrouble, is_behind
from reconciler.cache.object import CachedObject
from reconciler.cache.sink import Sink
from reconciler.errors import APIError, TooManyRequests, error_from_response
from reconciler.http import HTTPResponse, LineSplitter
from reconciler.meta import UNDECODABLE, Request, Version, is_older, parse_version

__all__ = ["Filled", "Position", "ReflectorStatistics", "Session", "read_lines"]


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
        if is_older(version, self.version):
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


_REARM = 1.0
"""Seconds by which the alarm may ring early; moving it with every chunk would cost more than reading the chunk."""

_LINES_BETWEEN_YIELDS = 200
"""Lines handled before others get the loop: about 2 ms of work."""


async def read_lines(
    response: HTTPResponse, silence: Callable[[], float], handle: Callable[[bytes], Awaitable[None] | None]
) -> None:
    """Hand every line of a stream to `handle` until the stream ends.

    A line that the end cuts off is dropped: the watch is resumed before it. Cancellation stops between two lines; the
    caller closes the response.

    Args:
        response: the open stream.
        silence: gives the seconds without a byte after which the stream counts as dead; asked anew as bytes come.
        handle: takes a line; what it returns is awaited, and silence does not count meanwhile.

    Raises:
        WatchTrouble: the stream fell silent (kind ``"silent"``).
        InvalidResponse: a line is longer than 32 MiB.
    """
    if response.chunks is None:
        return
    limit = silence()
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            await _read(response, scope, silence, handle)
    except TimeoutError:
        if not scope.expired():
            raise
        raise WatchTrouble(f"no byte for {silence():.0f} s; the connection is taken for dead", kind="silent") from None


async def _read(
    response: HTTPResponse,
    scope: asyncio.Timeout,
    silence: Callable[[], float],
    handle: Callable[[bytes], Awaitable[None] | None],
) -> None:
    assert response.chunks is not None  # noqa: S101 - the caller has looked
    loop = asyncio.get_running_loop()
    splitter = LineSplitter()
    armed, handled = loop.time(), 0
    async for chunk in response.chunks:
        for line in splitter.feed(chunk):
            pending = handle(line)
            if pending is not None:
                scope.reschedule(None)
                await pending
                armed = -math.inf
            handled += 1
            if handled % _LINES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
        now = loop.time()
        if now - armed >= _REARM:
            # After the lines: a bookmark among them may have changed how long silence is borne.
            scope.reschedule(now + silence())
            armed = now
