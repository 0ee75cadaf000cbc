"""The stream of a watch.

A `WatchResponse` has no queue: it is a position in the store's history and reads forward from it when its reader asks.
A slow reader costs nothing until the history has dropped what it had not read; then it is told 410. Frames are encoded
once for each event and shared. A watch that is dropped without being closed is garbage-collected like any object.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Self

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.kinds import shown_empty
from reconciler.apiserver.cluster import Endpoint
from reconciler.apiserver.conversion import ConversionNeeded, with_conversions
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.store import ADDED, DELETED, MODIFIED, Event, Stored, encode
from reconciler.apiserver.verbs.routing import Selector
from reconciler.apiserver.verbs.views import WholeView
from reconciler.errors import OutcomeUnknown

BOOKMARK_SECONDS = 60.0
"""The interval of bookmarks in a quiet watch that allows them; measured on kube-apiserver 1.36."""

_FRAMES_AT_ONCE = 128


class WatchHold:
    """Watches that receive no events until `release`, which delivers what they have missed, in order.

    Leaving its ``with`` block releases it, too.

    Args:
        covers: returns whether a watch that opens before the release is held, too.

    Attributes:
        released: whether it is over.
    """

    def __init__(self, covers: Callable[[WatchResponse], bool]) -> None:
        self.covers = covers
        self.released = False
        self._watches: weakref.WeakKeyDictionary[WatchResponse, None] = weakref.WeakKeyDictionary()  # in order

    def add(self, watch: WatchResponse, position: int) -> None:
        """Hide the events from a position in the history on from a watch."""
        watch.held[self] = position
        self._watches[watch] = None

    def release(self) -> None:
        """Let the watches receive their events; does nothing if it is over."""
        self.released = True
        for watch in list(self._watches):
            watch.release(self)
        self._watches.clear()

    def __len__(self) -> int:
        """Return how many open watches are held."""
        return sum(not watch.closed for watch in self._watches)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(eq=False)
class WatchResponse:
    """An asynchronous iterator over the chunks of a watch response.

    Attributes:
        endpoint: the kind and version.
        namespace: None for all.
        selector: the objects to show.
        view: how to show them.
        position: the position in the history to read from.
        after: the requested version; a watch from a future version receives nothing until that version has passed.
        initial: objects to start with, as ADDED.
        initial_done: the version of the bookmark that ends the initial objects; None for no such bookmark.
        bookmarks: whether to send bookmarks.
        timeout: seconds until the stream ends.
        version: returns the newest version up to which all events are known.
        closed: the stream has ended.
        held: the positions from which on events are hidden, by what hides them.
    """

    endpoint: Endpoint
    namespace: str | None
    selector: Selector
    view: WholeView
    _: KW_ONLY
    position: int
    after: int
    initial: list[Stored]
    initial_done: int | None
    bookmarks: bool
    timeout: float | None
    version: Callable[[], int]
    closed: bool = False
    held: dict[WatchHold, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._store = self.endpoint.store
        self._prefix = "" if self.namespace is None else f"{self.namespace}/"
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._deadline = None if self.timeout is None else now + self.timeout
        self._bookmark_at = now + BOOKMARK_SECONDS if self.bookmarks else None
        self._initial_at = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ending: bytes | None = None
        self._lost = False

    def __aiter__(self) -> WatchResponse:
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next frames.

        Cancellation loses no event: the position moves only when frames are returned.

        Raises:
            OutcomeUnknown: the connection was lost.
        """
        while not self.closed:
            try:
                chunk = await with_conversions(self._read)
            except Refusal as refusal:  # an object cannot be converted to the watched version
                self.expire(refusal)
                continue
            if chunk:
                return chunk
            if not self.endpoint.served and self.position >= self._store.end:
                self.end()
            if self._ending is not None:
                chunk, self.closed = self._ending, True
                if chunk:
                    return chunk
                break
            if self._deadline is not None and self._loop.time() >= self._deadline:
                self.closed = True
                break
            await self._wait()
        self.initial = []
        if self._lost:
            raise OutcomeUnknown("the connection was lost during the watch: the server has stopped")
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream and detach from the store; a waiting reader sees the end."""
        self.cut()

    @property
    def stalled(self) -> bool:
        """Return whether it sends nothing more."""
        return _STALL in self.held

    def stall(self) -> None:
        """Send nothing more, not even the initial objects, until the timeout."""
        self.initial, self.initial_done = [], None
        _STALL.add(self, self.position)

    def release(self, hold: WatchHold) -> None:
        """Show the events that a hold has hidden."""
        self.held.pop(hold, None)
        self._wake()

    def end(self, frame: bytes = b"") -> None:
        """End the stream after the unread events and an optional last frame."""
        self._ending = frame
        self._wake()

    def expire(self, refusal: Refusal) -> None:
        """End the stream with an ERROR event and nothing before it."""
        self.initial, self.initial_done = [], None
        self.position = self._store.end
        self.end(error_frame(refusal))

    def cut(self, *, lost: bool = False) -> None:
        """Break off the stream at once, without its unread events; its reader sees its end or a lost connection."""
        self.closed, self._lost, self.initial = True, lost, []
        self._wake()

    # what to send next

    async def _read(self) -> bytes:
        """Return the next frames, or empty; if an object must be converted first, the position stays."""
        start = self.position, self.initial, self._initial_at
        try:
            return self._next()
        except ConversionNeeded:
            self.position, self.initial, self._initial_at = start
            raise

    def _next(self) -> bytes:
        if self._initial_at < len(self.initial):
            return self._initial_chunk()
        if self.initial_done is not None:
            rv, self.initial_done = self.initial_done, None
            return self._bookmark(rv, {"k8s.io/initial-events-end": "true"})
        return self._events() or self._periodic_bookmark()

    def _initial_chunk(self) -> bytes:
        part = self.initial[self._initial_at : self._initial_at + _FRAMES_AT_ONCE]
        self._initial_at += len(part)
        if self._initial_at >= len(self.initial):
            self.initial, self._initial_at = [], 0
        return b"".join(_frame(ADDED, self.view.encode(self.endpoint, stored)) for stored in part)

    def _events(self) -> bytes:
        end = min(self.held.values(), default=self._store.end)
        frames: list[bytes] = []
        while self.position < end and not frames:
            stop = min(end, self.position + _FRAMES_AT_ONCE)
            events = self._store.events(self.position, stop)
            if events is None:
                self._ending, self.position = b"", self._store.end
                return error_frame(Refusal.expired("The resourceVersion for the provided watch is too old."))
            self.position = stop
            frames += filter(None, map(self._frame_of, events))
        return b"".join(frames)

    def _frame_of(self, event: Event) -> bytes:
        if event.rv <= self.after or (self._prefix and not event.new.key.startswith(self._prefix)):
            return b""
        if self.selector.empty:
            return self._cached_frame(event, event.type)
        before = event.old is not None and self.selector.matches(event.old.doc)
        after = event.type != DELETED and self.selector.matches(event.new.doc)
        changed = {(False, True): ADDED, (True, True): MODIFIED, (True, False): DELETED}.get((before, after))
        return b"" if changed is None else self._cached_frame(event, changed)

    def _cached_frame(self, event: Event, type: str) -> bytes:
        """Return the frame of an event, encoded once for all watches with the same view."""
        name = self.view.name
        if name is None:
            return _frame(type, self._content(event, type))
        key = (type, self.endpoint.api_version + name)
        if key not in event.frames:
            event.frames[key] = _frame(type, self._content(event, type))
        return event.frames[key]

    def _content(self, event: Event, type: str) -> bytes:
        if type == DELETED and event.type != DELETED and event.old is not None:
            # The object left the selector: the reader receives its last state, with the version of the change.
            old = event.old.doc
            return self.view.encode_document(
                self.endpoint, {**old, "metadata": {**old["metadata"], "resourceVersion": str(event.rv)}}
            )
        return self.view.encode(self.endpoint, event.new)

    # bookmarks, time

    def _periodic_bookmark(self) -> bytes:
        now = self._loop.time()
        if self._bookmark_at is None or self.held or now < self._bookmark_at:
            return b""
        self._bookmark_at = now + BOOKMARK_SECONDS
        return self._bookmark(self.version(), None)

    def _bookmark(self, rv: int, annotations: dict[str, str] | None) -> bytes:
        metadata: JSONObject = {"resourceVersion": str(rv)}
        if annotations:
            metadata["annotations"] = annotations
        info = self.endpoint.info
        document = {"kind": info.kind, "apiVersion": self.endpoint.api_version, "metadata": metadata}
        document |= shown_empty(info, self.endpoint.skeleton)
        return _frame("BOOKMARK", self.view.encode_bookmark(self.endpoint, document))

    async def _wait(self) -> None:
        """Wait for an event, the next bookmark, or the end."""
        self._waiter = self._loop.create_future()
        self._store.notify(id(self), self._wake)
        bookmark_at = None if self.held else self._bookmark_at
        due = min((t for t in (self._deadline, bookmark_at) if t is not None), default=None)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._waiter
        finally:
            self._waiter = None
            self._store.ignore(id(self))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_STALL = WatchHold(lambda _: False)
"""Holds the watches that send nothing more; never released."""


def _frame(type: str, content: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (type.encode(), content)


def error_frame(refusal: Refusal) -> bytes:
    """Return the frame that reports a refusal to a watch."""
    return _frame("ERROR", encode(refusal.status()))
