"""The reflector: lists one kind in one namespace, watches from there, and recovers from every failure.

The states and the transitions between them::

    no version ──▶ streamed list ──end mark──▶ watching (the same stream)
        ▲  │            │ refused: pages from now on
        │  │            │ broken: pages the next time
        │  └──────▶ list in pages ───────────▶ watching ──410, ERROR, decreasing versions──▶ no version
        │                                       ▲    │
        └── 410, anything else                  └────┘ end, cut, silence, 429, 5xx: the same version, no list

Only a list, and a watch that ran for the time asked for, show that the server still has the known history. After any
other end of a watch, and after trouble with the server (no connection, 5xx), the most recent changes are looked up
once the next watch is open, before its events are read.

Only cancellation ends a reflector. A list is consistent, or not older than what is known: version ``"0"``, "any
version", is never requested, since a lagging server would answer with the past.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Sequence, Sized

from reconciler._core.user_code import is_cancelled
from reconciler.cache.decoding import ListPage, LoopTurns, WireReader, decode_list, split_list
from reconciler.cache.handlers import Listing, Sink
from reconciler.cache.store import CachedObject, same_content
from reconciler.cache.watch import (
    BackoffManager,
    OnListed,
    Position,
    ReflectorStatistics,
    WatchError,
    WatchFailure,
    WatchStream,
    action_on,
    is_behind,
    read_lines,
)
from reconciler.client.session import ClientSession
from reconciler.clock import Clock, current_clock
from reconciler.errors import (
    APIError,
    BadRequest,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotServed,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from reconciler.meta.documents import Version, is_older, parse_version
from reconciler.meta.metadata import ResourceType

PAGE = 500
"""Objects per page, as in client-go's pager."""

WATCH_SECONDS = (300, 600)
"""Bounds of the requested watch timeout, drawn each time so that watches do not end together; client-go's values."""

CLOCK_SKEW = 0.1
"""Seconds by which a watch may seem to end before its timeout, since the server measures it with another clock."""

SHORTEST_WATCH = 1.0
"""Seconds. A watch that ends earlier and without an event counts as a failure, as in client-go. If there was an
event it does not, but the next watch is opened only after this time."""

MAX_BEHIND = 5
"""Consecutive "I am behind" responses before a consistent list decides whether the server's versions decreased. The
server itself waits 3 s before each such response, so this takes about 20 s."""

PROBES = 5
"""Objects to check when history must be verified, until an unchanged one is found."""

_STREAMING_REFUSED = (BadRequest, Invalid, MethodNotAllowed, NotAcceptable)
_KEEPS_POSITION = (ServerError, TooManyRequests, Unauthorized, Forbidden)
_logger = logging.getLogger("reconciler.cache")


class Reflector:
    """A mirror of one kind's objects, in one namespace or all, that delivers into a sink.

    Args:
        source: sends lists and watches.
        resource: how the kind is served.
        namespace: None for all, and for cluster-scoped kinds.
        sink: receives the objects and events.
        reader: decodes the objects.
        selectors: query parameters that narrow list and watch.
        metadata_only: request only the metadata.
        in_pages: whether to list in pages. Default None: if the server answers pages from memory. If listing is
            forbidden, streamed lists are used anyway.
        on_not_served: called when the server serves nothing at the kind's path.
        clock: default: the current clock.
        rng: source of jitter and watch timeouts.

    Attributes:
        last_failure: the last failure; None while all is well.
    """

    def __init__(
        self,
        source: ClientSession,
        resource: ResourceType,
        namespace: str | None,
        *,
        sink: Sink,
        reader: WireReader,
        selectors: Sequence[tuple[str, str]] = (),
        metadata_only: bool = False,
        in_pages: bool | None = None,
        on_not_served: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        rng: random.Random,
    ) -> None:
        self.last_failure: WatchFailure | None = None
        self.listing: Sized = ()  # the objects of the list in progress that are not stored yet
        self._source = source
        self._resource = resource
        self._namespace = namespace
        self._sink = sink
        self._reader = reader
        self._selectors = tuple(selectors)
        self._metadata_only = metadata_only
        self._clock = clock or current_clock()
        self._rng = rng
        self._backoff = BackoffManager(clock=self._clock, rng=rng)
        self._counts = ReflectorStatistics()
        self._position = Position()
        self._verb = "list"
        # Whether the server supports streamed lists; None until one succeeded or was refused.
        self._streaming: bool | None = None
        self._in_pages = in_pages
        self._on_not_served = on_not_served
        # Whether the next list is paged even if the server supports streamed lists; None if the server decides.
        self._pages_next = in_pages
        self._unpaged_next = False  # the next list is not paged
        self._behind = 0
        self._unverified = False  # the next server to answer may have another history
        self._task: asyncio.Task[None] | None = None
        self._refresh_waiters: list[asyncio.Future[None]] = []
        self._interrupted = False

    async def run(self) -> None:
        """List and watch until cancelled, which closes the stream."""
        self._task = task = asyncio.current_task()
        while True:
            try:
                await self._loop()
            except asyncio.CancelledError:
                interrupted, self._interrupted = self._interrupted, False
                if not interrupted or task is None or task.uncancel():
                    raise

    async def _loop(self) -> None:
        while True:
            delay = 0.0
            try:
                await self._step()
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                text = "it was cancelled, but not by the cache: something that it awaited was cancelled"
                delay = self._handle_failure(WatchError(text, kind="cancelled"))
            except Exception as error:  # noqa: BLE001 - the reflector survives every failure
                delay = self._handle_failure(error)
            if delay:
                await asyncio.sleep(delay)

    async def refresh(self) -> None:
        """Start a consistent list immediately and wait for it.

        Cancellation ends the waiting, not the list.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._refresh_waiters.append(waiter)
        self.relist()
        try:
            await waiter
        finally:
            if waiter in self._refresh_waiters:
                self._refresh_waiters.remove(waiter)

    def relist(self) -> None:
        """Start a consistent list now; a list or watch in progress is abandoned."""
        self._position.require_list(exact=True)
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def statistics(self) -> ReflectorStatistics:
        """Return a copy of the counters."""
        return dataclasses.replace(self._counts)

    async def _step(self) -> None:
        if self._position.current:
            await self._watch()
        elif self._streaming is False or await self._prefers_pages():
            await self._list()
        else:
            await self._stream_list()

    # lists

    async def _prefers_pages(self) -> bool:
        if self._pages_next is None:
            self._verb = "list"
            return await self._source.pages_are_cached()
        return self._pages_next

    def _newest_known(self) -> Version | None:
        """Return the newest version that this process knows, from this reflector or from the response to a write.

        A consistent list that starts now cannot be older, unless history was rewritten.
        """
        version, written = self._position.version, self._sink.written()
        return written if version is None or is_older(version, written) else version

    def _not_older(self, known: Version | None) -> list[tuple[str, str]]:
        """Return the parameters that make a list not older than what is known.

        There are none, which means consistent, for the first list.
        """
        if self._position.exact or not self._position.version:
            return []
        return [("resourceVersion", str(known)), ("resourceVersionMatch", "NotOlderThan")]

    async def _list(self) -> None:
        self._verb = "list"
        known = self._newest_known()
        not_older = self._not_older(known)
        unpaged, self._unpaged_next = self._unpaged_next, False  # for this list only, even if it fails
        query = [*self._selectors] if unpaged else [*self._selectors, ("limit", str(PAGE))]
        self.listing = listing = await self._sink.begin_list(at_once=known is None)
        try:
            page = await self._page([*query, *not_older], self._namespace)
        except Forbidden:
            self._pages_next = False  # a streamed list is a watch, which may be allowed
            raise
        version = parse_version(page.metadata.resource_version)
        try:
            while token := page.metadata.continue_:
                page = await self._read_page_while_fetching(page, listing, [*query, ("continue", token)])
                if page.metadata.continue_ == token:  # it would be the same page, forever
                    self._unpaged_next = True
                    raise WatchError("two pages have the same continue token: it is ignored", kind="repeated page")
        except Expired:
            self._unpaged_next = True
            raise
        await self._read_items(page, listing.add)
        await self._finish(listing, version, exact=not not_older, known=known)
        self._unverified = False

    async def _read_page_while_fetching(
        self, page: ListPage, listing: Listing, query: Sequence[tuple[str, str]]
    ) -> ListPage:
        """Decode a page while the server prepares the next one, which takes longer; return the next page."""
        following = asyncio.create_task(self._page(query, self._namespace))
        try:
            await asyncio.sleep(0)  # starts the request
            await self._read_items(page, listing.add)
            return await following
        except BaseException:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)  # leave no running task and no unread error
            raise

    async def _page(self, query: Sequence[tuple[str, str]], namespace: str | None) -> ListPage:
        body = await self._source.raw_list(self._resource, namespace, query, metadata_only=self._metadata_only)
        try:
            return decode_list(body)
        except ValueError as error:
            found = await split_list(body)
            if found is None:
                raise WatchError(f"the response is not a list: {error}", kind="malformed") from None
            return found

    async def _read_items(self, page: ListPage, add: Callable[[CachedObject], None]) -> None:
        turns = LoopTurns()
        for raw in page.items or ():
            cached = self._reader.read(raw)
            if cached is not None:
                add(cached)
            if turns.ends(len(raw)):
                await asyncio.sleep(0)

    async def _finish(self, listing: Listing, version: Version, *, exact: bool, known: Version | None) -> None:
        position = self._position
        decreased = is_older(version, known)
        if decreased and not exact:
            self._counts.stale_lists += 1
            raise WatchError(
                f"the list has version {version}, older than the known {known}; it is ignored",
                kind="stale list",
                must_relist=True,
            )
        if await listing.finish(version, restarted=decreased, exact=exact):
            self._counts.restarts += 1
            _logger.warning(
                "%s: the server's history was rewritten between versions %s and %s, as by a restore of etcd; "
                "starting again",
                self._action,
                known,
                version,
            )
        self._counts.lists += 1
        self.listing = ()
        position.version = version
        position.current, position.exact = True, False
        self._pages_next, self._unpaged_next = self._in_pages, False
        self._recovered()
        if exact:
            self._finish_refresh()

    def _finish_refresh(self) -> None:
        waiting, self._refresh_waiters = self._refresh_waiters, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _stream_list(self) -> None:
        self._verb = "list"
        known = self._newest_known()
        not_older = self._not_older(known) or [("resourceVersionMatch", "NotOlderThan")]
        exact = len(not_older) == 1

        self.listing = listing = await self._sink.begin_list(at_once=known is None)

        async def on_listed(version: Version) -> None:
            await self._finish(listing, version, exact=exact, known=known)
            self._streaming, self._verb = True, "watch"

        stream = self._new_stream(listing, on_listed)
        try:
            await self._follow(stream, [("sendInitialEvents", "true"), *not_older])
            if stream.initial is not None:
                raise WatchError("the stream ended before the initial events were complete", kind="incomplete")
        except Exception as error:
            if stream.initial is None or not self._fall_back(error, stream):
                raise

    def _fall_back(self, error: Exception, stream: WatchStream) -> bool:
        """Decide what a failed streamed list means for the next one; return whether it does not count as a failure."""
        if isinstance(error, _STREAMING_REFUSED):
            _logger.info("%s: the server refuses streamed lists, listing in pages instead: %s", self._action, error)
            self._streaming = False
            return True
        endless = isinstance(error, WatchError) and error.kind in ("silent", "no end")
        if endless and self._streaming is None:
            self._streaming = False
        if isinstance(error, APIError):
            self._pages_next = not isinstance(error, (TooManyRequests, Expired)) and not is_behind(error)
        else:
            self._pages_next = stream.opened
        return False

    async def _verify_history(self) -> bool:
        """Return whether the server still has the known history, as far as can be checked.

        A server that lost its data, or was restored from a backup, continues its versions from an earlier one. Once
        they have passed the known version, a watch continues as if nothing had happened. What was undone are the last
        changes. So an object found at its last known version proves that no change up to there was undone. The newest
        object proves most; if it was changed since, which proves nothing, the next one is checked. If the last known
        change is a deletion, the deleted object must not have come back.
        """
        self._verb = "list"
        try:
            intact = await self._history_is_intact(self._newest_known())
        except Forbidden:
            intact = True  # a client that may only watch cannot check
        self._verb = "watch"
        return intact

    async def _history_is_intact(self, known: Version | None) -> bool:
        newest, deleted = self._sink.newest(PROBES), self._sink.deleted
        if not newest:
            found, version = await self._probe(self._namespace, [*self._selectors, ("limit", "1")])
            return found is None and not is_older(version, known)
        if deleted is not None and is_older(newest[0].version, deleted.version):
            found, _ = await self._probe(deleted.namespace, self._naming(deleted.name))
            if found is not None and (found.uid == deleted.uid or self._has_passed(found.version)):
                return False
        for held in newest:
            found, version = await self._probe(held.namespace, self._naming(held.name))
            if is_older(version, known):
                return False
            proof = self._compare(held, found)
            if proof is not None:
                return proof
        return False

    def _compare(self, held: CachedObject, found: CachedObject | None) -> bool | None:
        """Return whether an object proves that the history is intact; None if it proves nothing."""
        if found is None or found.uid != held.uid:
            return False
        if found.version == held.version:  # which a restored server may use a second time, for other content
            comparable = found.problem is None or found.data == held.data
            return same_content(found, held) if comparable else None
        if isinstance(found.version, str):
            return True
        return False if self._has_passed(found.version) else None

    def _has_passed(self, version: Version) -> bool:
        """Return whether the watch would have delivered a change at this version."""
        return not is_older(self._position.version or 0, version)

    async def _probe(
        self, namespace: str | None, query: Sequence[tuple[str, str]]
    ) -> tuple[CachedObject | None, Version]:
        page = await self._page(query, namespace)
        objects: list[CachedObject] = []
        await self._read_items(page, objects.append)
        return objects[0] if objects else None, parse_version(page.metadata.resource_version)

    def _naming(self, name: str) -> list[tuple[str, str]]:
        """Return the selectors narrowed to one name."""
        selectors = dict(self._selectors)
        fields = (selectors.get("fieldSelector"), f"metadata.name={name}")
        return [*(selectors | {"fieldSelector": ",".join(text for text in fields if text)}).items()]

    # watches

    async def _watch(self) -> None:
        self._verb = "watch"
        version = self._position.version
        await self._follow(self._new_stream(), [("resourceVersion", str(version))] if version else [])
        if not version:
            self._position.require_list()  # lists without a version: no position to resume from

    def _new_stream(self, initial: Listing | None = None, on_listed: OnListed | None = None) -> WatchStream:
        return WatchStream(
            position=self._position,
            sink=self._sink,
            reader=self._reader,
            counts=self._counts,
            timeout=self._rng.randint(*WATCH_SECONDS),
            initial=initial,
            on_listed=on_listed,
        )

    async def _follow(self, stream: WatchStream, query: Sequence[tuple[str, str]]) -> None:
        began = self._clock.monotonic()
        asked = [("allowWatchBookmarks", "true"), ("timeoutSeconds", str(stream.timeout)), *query]
        response = await self._source.open_watch(
            self._resource, self._namespace, [*self._selectors, *asked], metadata_only=self._metadata_only
        )
        stream.opened = True
        self._counts.watches += 1
        try:
            # After the watch was opened: what is restored from now on ends it.
            if stream.initial is None and self._unverified and not await self._verify_history():
                self._position.require_list(exact=True)
                return
            self._unverified = True
            if stream.initial is None:
                self._recovered()
            await read_lines(response, stream.silence_limit, stream.handle)
        finally:
            await response.close()
        lasted = self._clock.monotonic() - began
        if lasted > stream.timeout - CLOCK_SKEW:
            self._unverified = False
        short = SHORTEST_WATCH - lasted
        if short > 0 and not stream.lines:
            raise WatchError("the watch ended immediately, without an event", kind="very short")
        await asyncio.sleep(max(0.0, short))  # no hot loop if each watch ends after one event

    # failures

    @property
    def _action(self) -> str:
        return action_on(self._verb, self._resource, self._namespace)

    def _recovered(self) -> None:
        self.last_failure = None
        self._behind = 0

    def _handle_failure(self, error: Exception) -> float:
        """Draw the conclusions from a failure; return the seconds to wait."""
        delay = self._backoff.delay(error)
        if is_behind(error):
            self._counts.behind += 1
            self._behind += 1
            if self._behind >= MAX_BEHIND:
                self._position.require_list(exact=True)
            _logger.debug("%s: the server is behind; next attempt in %.1f s", self._action, delay)
            return delay
        self._counts.failures += 1
        self._unverified = self._unverified or isinstance(error, (TransportError, ServerError))
        self._reposition(error)
        self.last_failure = WatchFailure(self._action, error, self._clock.now())
        self._backoff.log(self.last_failure, delay)
        error.__traceback__ = None  # it would keep half a list in memory as long as the failure
        return delay

    def _reposition(self, error: Exception) -> None:
        position = self._position
        if isinstance(error, Expired):
            self._counts.expired += 1
            # NotOlderThan should not make a list expire; if it did, list without it.
            position.require_list(exact=self._verb == "list")
        elif isinstance(error, WatchError):
            if error.kind == "silent":
                self._counts.silent += 1
                position.bookmarks_come = False
            if error.must_relist:
                position.require_list(exact=True)
        elif isinstance(error, APIError) and not isinstance(error, _KEEPS_POSITION):
            position.require_list()
            if isinstance(error, NotServed):
                self._on_not_served()
