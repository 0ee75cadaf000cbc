"""One open watch: reads its lines, detects silence, decodes its events; and the backoff after failures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec

from reconciler._core.backoff import Backoff, retry_after_delay
from reconciler._core.durations import DurationLike, optional_seconds
from reconciler._core.wire import UNDECODABLE
from reconciler.cache.decoding import Bookmark, LoopTurns, WireReader, decode_line, read_bookmark
from reconciler.cache.handlers import Listing, Sink
from reconciler.cache.store import CachedObject
from reconciler.clock import Clock, current_clock
from reconciler.errors import (
    APIError,
    Expired,
    ReconcilerError,
    ServerTimeout,
    TooManyRequests,
    error_from_response,
    error_text,
)
from reconciler.http import HTTPResponse, LineSplitter
from reconciler.meta.documents import Version, is_older, parse_version
from reconciler.meta.metadata import ResourceType


class NotCached(ReconcilerError):
    """No informer holds the object or kind; ``client.live`` reads it from the server."""


class CacheNotSynced(ReconcilerError):
    """The initial list is incomplete; the message names the informers and the server's last response."""


@contextlib.asynccontextmanager
async def in_time(timeout: DurationLike | None, what: str, why: Callable[[], str]) -> AsyncIterator[None]:  # noqa: ASYNC109
    """Limit the time of a block.

    Args:
        timeout: a duration: seconds, a timedelta or ``"30s"``; None for no limit.
        what: what has not happened when the time is over.
        why: returns what is known of the reason.

    Raises:
        CacheNotSynced: the time is over.
    """
    seconds = optional_seconds("timeout", timeout, zero=True)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise  # of something in the block
        raise CacheNotSynced(f"{what} after {seconds:g} s: {why()}") from None


BACKOFF = Backoff(base=0.8, factor=2.0, maximum=30.0, jitter=0.5)
"""The delays after failures: 800 ms, factor 2, at most 30 s, as in client-go's reflector and kube-rs' watcher."""

HEALTHY_AFTER = 120.0
"""Seconds without a failure after which the backoff starts again at the shortest delay, as in client-go."""

_logger = logging.getLogger("reconciler.cache")


class WatchError(ReconcilerError):
    """A list or watch that the server accepted but whose content is unusable.

    Attributes:
        kind: a short label for logs and decisions.
        must_relist: whether only a new, consistent list can help.
    """

    def __init__(self, message: str, *, kind: str, must_relist: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.must_relist = must_relist


@dataclass(frozen=True, slots=True)
class WatchFailure:
    """The last failure of a list or watch; ``str()`` gives a readable text.

    Attributes:
        action: the verb and its target (``"list databases.example.com in namespace prod"``).
        error: the exception.
        at: the time of the failure.
    """

    action: str
    error: Exception
    at: datetime

    def __str__(self) -> str:
        return f"{self.action}: {_describe(self.error)}"


def action_on(verb: str, resource: ResourceType, namespace: str | None) -> str:
    """Return verb, resource and scope as the subject of an error message."""
    plural = f"{resource.plural}.{resource.gvk.group}" if resource.gvk.group else resource.plural
    if not resource.namespaced:
        return f"{verb} {plural}"
    return f"{verb} {plural} in {f'namespace {namespace}' if namespace else 'all namespaces'}"


def is_behind(error: Exception) -> bool:
    """Return whether the server answered that it has not reached the requested version yet."""
    if not isinstance(error, ServerTimeout):
        return False
    return "Too large resource version" in error.message or any(
        cause.reason == "ResourceVersionTooLarge" for cause in error.causes
    )


def _describe(error: Exception) -> str:
    if isinstance(error, APIError):
        try:
            reason = error.reason or HTTPStatus(error.status).phrase
        except ValueError:
            reason = "failed"
        return f"{error.status} {reason}: {error.message}"
    return error_text(error)


class BackoffManager:
    """The delays between one reflector's attempts.

    Every failure is followed by a jittered delay that doubles up to a maximum, or by the server's Retry-After if that
    is longer. An expired version is retried immediately, but only the first time.

    Args:
        clock: measures the time without failures. Default: the current clock.
        rng: source of the jitter.
    """

    def __init__(self, *, clock: Clock | None = None, rng: random.Random) -> None:
        self._clock = clock or current_clock()
        self._rng = rng
        self._failures = 0
        self._resumed = self._clock.monotonic()
        self._logged: set[Hashable] = set()

    def delay(self, error: Exception) -> float:
        """Record a failure and return the seconds to wait."""
        now = self._clock.monotonic()
        if now - self._resumed >= HEALTHY_AFTER:
            self._failures = 0
            self._logged.clear()
        earlier, self._failures = self._failures, self._failures + 1
        delay = self._delay(error, earlier)
        self._resumed = now + delay
        return delay

    def _delay(self, error: Exception, earlier: int) -> float:
        asked = error.retry_after if isinstance(error, ReconcilerError) else None
        if asked and is_behind(error):
            return retry_after_delay(asked, self._rng)  # not a failure: the server itself waited before it answered
        if isinstance(error, Expired) and not earlier and not asked:
            return 0.0
        return BACKOFF.delay(earlier, self._rng, retry_after=asked)

    def log(self, failure: WatchFailure, delay: float) -> None:
        """Log a failure: at WARNING for the first of its kind since the last healthy period, else at DEBUG."""
        error = failure.error
        detail = error.status if isinstance(error, APIError) else getattr(error, "kind", None)
        kind = (type(error), detail)
        level = logging.DEBUG if kind in self._logged else logging.WARNING
        self._logged.add(kind)
        unexpected = None if isinstance(error, ReconcilerError) else error
        _logger.log(level, "%s; next attempt in %.1f s", failure, delay, exc_info=unexpected)


SILENCE_MARGIN = 10.0
"""Seconds after a silent watch's own timeout at which it is considered dead: the server should have ended it."""

BOOKMARK_SILENCE = 180.0
"""Seconds of silence after which a watch with bookmarks is considered dead. kube-apiserver 1.36 sends one a minute
(60.1 s apart), so three are missing."""

INITIAL_SILENCE = 10.0
"""Seconds without the mark that ends the initial events, whether nothing comes or only changes, after which a server is
assumed not to support streamed lists. client-go starts to warn after as many seconds of silence."""


_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})

OnListed = Callable[[Version], Awaitable[None]]
"""Called with the version of a complete list."""


@dataclass(slots=True)
class ReflectorStatistics:
    """Counters of one reflector, or the sum over an informer's reflectors. Callers get a copy.

    Attributes:
        lists: complete lists, including streamed ones.
        watches: opened streams.
        events: lines read, including bookmarks.
        bookmarks: bookmarks.
        failures: failures of every kind.
        expired: versions that had been compacted (410).
        silent: streams closed because no data arrived.
        behind: responses of a server that had not reached the requested version.
        stale_lists: lists discarded because they were older than what was known.
        restarts: how often the server's versions decreased.
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
    """The position of a reflector in the history of its kind.

    Attributes:
        version: the newest version received; kept when `current` becomes False. 0 or ``""`` for a server whose lists
            have no version.
        current: whether a watch can continue from there; if not, a list is needed.
        exact: whether the next list must be consistent.
        bookmarks_come: whether the server has sent a bookmark on its own.
    """

    version: Version | None = None
    current: bool = False
    exact: bool = False
    bookmarks_come: bool = False

    def require_list(self, *, exact: bool = False) -> None:
        """Make the next step a list."""
        self.current = False
        self.exact = self.exact or exact

    def advance(self, version: Version) -> None:
        """Move to the version of an event or bookmark.

        Raises:
            WatchError: the version decreased, as it does when etcd was restored from a backup.
        """
        if not self.version or not version:
            return
        if is_older(version, self.version):
            raise WatchError(
                f"an event has version {version}, after {self.version}; was etcd restored?",
                kind="version decreased",
                must_relist=True,
            )
        self.version = version


class WatchStream:
    """The state of one open watch.

    Args:
        position: advanced by the events read.
        sink: receives the objects.
        reader: decodes the objects.
        counts: counts events and bookmarks.
        timeout: seconds the server was asked to keep the stream open.
        initial: receives the initial events; None if the stream has none.
        on_listed: called when the initial events are complete.

    Attributes:
        initial: as given; None once the initial events are complete.
        lines: number of lines read.
        opened: whether the server opened the stream.
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
        initial: Listing | None = None,
        on_listed: OnListed | None = None,
    ) -> None:
        self.initial = initial
        self.lines = 0
        self.opened = False
        self.timeout = timeout
        self._on_listed = on_listed
        self._changes_since: float | None = None  # when the first change came before the end of the initial events
        self._position = position
        self._sink = sink
        self._reader = reader
        self._counts = counts

    def silence_limit(self) -> float:
        """Return the seconds without data after which the stream is considered dead."""
        if self.initial is not None:
            return INITIAL_SILENCE
        return BOOKMARK_SILENCE if self._position.bookmarks_come else self.timeout + SILENCE_MARGIN

    def handle(self, line: bytes) -> Awaitable[None] | None:
        """Process a line; return an awaitable to complete before the next line, if any.

        Raises:
            APIError: the line is an error from the server.
            WatchError: the line is not an event, or contradicts earlier ones.
        """
        self.lines += 1
        self._counts.events += 1
        try:
            event = decode_line(line)
            if event.type == "BOOKMARK":
                return self._bookmark(read_bookmark(event.object))
        except ValueError as error:
            raise WatchError(f"malformed watch event: {error}", kind="malformed", must_relist=True) from None
        if event.type == "ERROR":
            raise self._error(event.object)
        cached = None
        if event.type in _CHANGES:
            cached = self._reader.read(event.object)
        else:  # as in client-go's reflector
            self._reader.refuse(f"an event of the type {event.type[:100]!r}", "the type is unknown")
        if cached is not None:
            self._change(event.type, cached, event.object)
        elif self.initial is None and (version := self._reader.version_of(event.object)) is not None:
            self._position.advance(version)
            self._sink.advance(version)
        return None

    def _change(self, type: str, cached: CachedObject, received: msgspec.Raw) -> None:
        if self.initial is None:
            self._position.advance(cached.version)
            self._sink.apply(type, cached, received)
            return
        if type != "ADDED":
            self._check_end()
        if type == "DELETED":
            self.initial.discard(cached.request)
        else:
            self.initial.add(cached)

    def _check_end(self) -> None:
        """Raise if changes, which follow the initial events, have come for long without the mark of their end.

        A server that ignores ``sendInitialEvents`` sends changes only; while they come, it is never silent. One that
        supports it sends the mark as soon as it has caught up with the changes up to the start of the watch.
        """
        now = asyncio.get_running_loop().time()
        if self._changes_since is None:
            self._changes_since = now
        if now - self._changes_since > INITIAL_SILENCE:
            raise WatchError(
                f"changes have come for {INITIAL_SILENCE:.0f} s, but not the end of the initial events", kind="no end"
            )

    def _bookmark(self, bookmark: Bookmark) -> Awaitable[None] | None:
        self._counts.bookmarks += 1
        version = parse_version(bookmark.resource_version)
        if self.initial is None:
            self._position.bookmarks_come = True
            self._position.advance(version)
            self._sink.advance(version)
        elif bookmark.ends_initial_events and self._on_listed is not None:
            self.initial = None
            return self._on_listed(version)
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
            # The server ended the watch for a reason of its own; the same watch might end the same way again and again.
            self._position.require_list()
        return error


_REARM = 1.0
"""Seconds by which the alarm may fire early: moving it with every chunk would cost more than reading the chunk."""


async def read_lines(
    response: HTTPResponse, silence_limit: Callable[[], float], handle: Callable[[bytes], Awaitable[None] | None]
) -> None:
    """Pass every line of a stream to `handle` until the stream ends.

    A line cut off by the end of the stream is dropped; the watch resumes before it. Cancellation stops between two
    lines; the caller closes the response.

    Args:
        response: the open stream.
        silence_limit: returns the seconds without data after which the stream is considered dead; called again as data
            arrives.
        handle: processes a line. Its result is awaited if not None, and that time does not count as silence.

    Raises:
        WatchError: the stream went silent (kind ``"silent"``).
        InvalidResponse: a line is longer than 32 MiB.
    """
    if response.chunks is None:
        return
    limit = silence_limit()
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            await _read(response, scope, silence_limit, handle)
    except TimeoutError:
        if not scope.expired():
            raise
        raise WatchError(
            f"no data for {silence_limit():.0f} s; the connection is considered dead", kind="silent"
        ) from None


async def _read(
    response: HTTPResponse,
    scope: asyncio.Timeout,
    silence_limit: Callable[[], float],
    handle: Callable[[bytes], Awaitable[None] | None],
) -> None:
    assert response.chunks is not None  # noqa: S101 - the caller has checked
    loop = asyncio.get_running_loop()
    splitter, turns = LineSplitter(), LoopTurns()
    armed = loop.time()
    async for chunk in response.chunks:
        for line in splitter.feed(chunk):
            pending = handle(line)
            if pending is not None:
                scope.reschedule(None)
                await pending
                armed = -math.inf
            if turns.ends(len(line)):
                await asyncio.sleep(0)
        now = loop.time()
        if now - armed >= _REARM:
            # After the lines, since a bookmark among them may have changed the limit.
            scope.reschedule(now + silence_limit())
            armed = now
