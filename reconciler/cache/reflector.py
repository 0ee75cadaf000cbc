"""Follow one kind in one namespace: list, watch from there, and get over everything that can go wrong.

The states and what leads from one to the next::

    no version ──▶ streamed list ──end mark──▶ watching (the same stream)
        ▲  │            │ refused: pages from now on
        │  │            │ broken: pages the next time
        │  └──────▶ list in pages ───────────▶ watching ──410, ERROR, versions that fall──▶ no version
        │                                       ▲    │
        └── 410, anything else                  └────┘ end, cut, silence, 429, 5xx: the same version, no list

After trouble of the server (no connection, a broken stream, 5xx) the object that was changed last is listed before the
watch goes on, to find out whether the server still has the history that is known.

Nothing but cancellation ends it. A list is consistent or not older than what is known: version ``"0"``, "whatever you
have", is never asked for, since a lagging server would answer it with the past.


---

Say what a reflector needs of a client.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Sequence
from typing import Protocol

from reconciler.cache.decoding import ListPage, WireReader, decode_list
from reconciler.cache.errors import Failure, Pacer, WatchTrouble, action_on, is_behind
from reconciler.cache.object import CachedObject
from reconciler.cache.sink import Sink
from reconciler.cache.watch import Filled, Position, ReflectorStatistics, Session, read_lines
from reconciler.clock import Clock, current_clock
from reconciler.errors import (
    APIError,
    BadRequest,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from reconciler.http import HTTPResponse
from reconciler.meta import ResourceType, Version, is_older, parse_version

__all__ = ["Reflector", "Source"]


PAGE = 500
"""Objects a page, as in client-go's pager."""

WATCH_SECONDS = (300, 600)
"""Bounds of the timeout asked for a watch, drawn anew each time so that watches do not end together; client-go's."""

SHORTEST_WATCH = 1.0
"""Seconds; a watch that ends earlier and without an event counts as a failure, as in client-go. With an event it does
not, but the next one is opened only when they are over."""

BEHIND_AT_MOST = 5
"""Answers "I am behind" in a row before a consistent list decides whether the server's versions fell. The server waits
3 s itself before it answers so, hence about 20 s."""

PROBES = 5
"""Objects that are looked at after trouble of the server, until one is found unchanged."""

_STREAM_REFUSED = (BadRequest, Invalid, MethodNotAllowed, NotAcceptable)
_SAYS_NOTHING_OF_THE_VERSION = (ServerError, TooManyRequests, Unauthorized, Forbidden)
_OBJECTS_BETWEEN_YIELDS = 500

_logger = logging.getLogger("reconciler.cache")


class Reflector:
    """Mirror the objects of one kind in one namespace, or in all, into a sink.

    Args:
        source: sends lists and watches.
        resource: how the kind is served.
        namespace: None for all, and for cluster-scoped kinds.
        sink: takes what is learned.
        reader: makes cached objects of raw ones.
        selectors: query parameters that narrow list and watch.
        metadata_only: ask for metadata alone.
        sharded: the selectors ask for a shard. The first list comes in pages then, since only their answer says whether
            the server has heeded it.
        in_pages: list in pages although the server may know streamed lists. Who may not list gets streamed ones all the
            same.
        clock: the clock in force by default.
        rng: source of jitter and watch timeouts.

    Attributes:
        last_failure: what went wrong last; None while all is well.
    """

    def __init__(
        self,
        source: Source,
        resource: ResourceType,
        namespace: str | None,
        *,
        sink: Sink,
        reader: WireReader,
        selectors: Sequence[tuple[str, str]] = (),
        metadata_only: bool = False,
        sharded: bool = False,
        in_pages: bool = False,
        clock: Clock | None = None,
        rng: random.Random,
    ) -> None:
        self.last_failure: Failure | None = None
        self._source = source
        self._resource = resource
        self._namespace = namespace
        self._sink = sink
        self._reader = reader
        self._selectors = tuple(selectors)
        self._metadata_only = metadata_only
        self._clock = clock or current_clock()
        self._rng = rng
        self._pacer = Pacer(clock=self._clock, rng=rng)
        self._counts = ReflectorStatistics()
        self._position = Position()
        self._verb = "list"
        self._streams: bool | None = None  # whether the server knows streamed lists; None until one came or was refused
        self._sharded = sharded
        self._in_pages = in_pages
        self._pages_next = sharded or in_pages  # although the server may know streamed lists
        self._whole_next = False  # the next list comes without pages
        self._behind = 0
        self._away = False  # the server was in trouble; who answers next may have been set up without its data
        self._task: asyncio.Task[None] | None = None
        self._refreshing: list[asyncio.Future[None]] = []
        self._interrupted = False

    async def run(self) -> None:
        """List and watch for ever. Cancellation ends it and closes the stream."""
        self._task = task = asyncio.current_task()
        while True:
            try:
                await self._go_on()
            except asyncio.CancelledError:
                interrupted, self._interrupted = self._interrupted, False
                if not interrupted or task is None or task.uncancel():
                    raise

    async def _go_on(self) -> None:
        while True:
            delay = 0.0
            try:
                await self._step()
            except Exception as error:  # noqa: BLE001 - whatever it is, the mirror must go on
                delay = self._after(error)
            if delay:
                await asyncio.sleep(delay)

    async def refresh(self) -> None:
        """Wait for a consistent list that is begun after this call; it is begun at once.

        Cancellation ends the waiting, not the list.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._refreshing.append(waiter)
        self.relist()
        try:
            await waiter
        finally:
            if waiter in self._refreshing:
                self._refreshing.remove(waiter)

    def relist(self) -> None:
        """Begin a consistent list now; a list or a watch that is in progress is given up."""
        self._position.lose(exact=True)
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def statistics(self) -> ReflectorStatistics:
        """Count what was done."""
        return dataclasses.replace(self._counts)

    async def _step(self) -> None:
        if self._position.current and self._away:
            await self._recognize()
        elif self._position.current:
            await self._watch()
        elif self._streams is False or self._pages_next:
            await self._list()
        else:
            await self._stream()

    # lists

    def _heard(self) -> Version | None:
        """Return the newest version that this process has heard of: from this reflector or as the answer to a write.

        A consistent list that is begun now cannot be older, unless history was rewritten.
        """
        version, written = self._position.version, self._sink.written()
        return written if version is None or is_older(version, written) else version

    def _not_older(self, heard: Version | None) -> list[tuple[str, str]]:
        """Return what makes a list not older than what is known; nothing, which means consistent, at the beginning."""
        if self._position.exact or not self._position.version:
            return []
        return [("resourceVersion", str(heard)), ("resourceVersionMatch", "NotOlderThan")]

    async def _list(self) -> None:
        self._verb = "list"
        heard = self._heard()
        not_older = self._not_older(heard)
        whole, self._whole_next = self._whole_next, False  # for this list only, even if it fails
        query = [*self._selectors] if whole else [*self._selectors, ("limit", str(PAGE))]
        objects: list[CachedObject] = []
        try:
            page = await self._page([*query, *not_older], self._namespace)
        except Forbidden:
            self._pages_next = False  # a streamed list is a watch, which may be allowed all the same
            raise
        version = parse_version(page.metadata.resource_version)
        try:
            while page.metadata.continue_:
                page = await self._read(page, objects, [*query, ("continue", page.metadata.continue_)])
        except Expired:
            self._whole_next = True
            raise
        await self._take(page, objects)
        await self._filled(objects, version, exact=not not_older, heard=heard)

    async def _read(self, page: ListPage, objects: list[CachedObject], query: Sequence[tuple[str, str]]) -> ListPage:
        """Take the objects of a page while the server writes the next one, which takes it longer; return that one."""
        following = asyncio.create_task(self._page(query, self._namespace))
        try:
            await asyncio.sleep(0)  # so that it is asked for now
            await self._take(page, objects)
            return await following
        except BaseException:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)  # nothing runs on, and no error of it is left over
            raise

    async def _page(self, query: Sequence[tuple[str, str]], namespace: str | None) -> ListPage:
        body = await self._source.raw_list(self._resource, namespace, query, metadata_only=self._metadata_only)
        try:
            page = decode_list(body)
        except ValueError as error:
            raise WatchTrouble(f"the answer is no list ({error})", kind="garbled") from None
        if self._sharded:
            self._reader.server_filters = page.metadata.shard_info is not None
        return page

    async def _take(self, page: ListPage, objects: list[CachedObject]) -> None:
        for number, raw in enumerate(page.items or (), 1):
            cached = self._reader.read(raw)
            if cached is not None:
                objects.append(cached)
            if number % _OBJECTS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)

    async def _filled(
        self, objects: Sequence[CachedObject], version: Version, *, exact: bool, heard: Version | None
    ) -> None:
        position = self._position
        fell = is_older(version, heard)
        if fell and not exact:
            self._counts.stale_lists += 1
            raise WatchTrouble(
                f"the list is of version {version}, but {heard} is known already; it is left out",
                kind="stale list",
                lost=True,
            )
        if await self._sink.replace(objects, version, restarted=fell):
            self._counts.restarts += 1
            _logger.warning(
                "%s: the server's history was rewritten between versions %s and %s, as by a restore of etcd; "
                "starting again",
                self._action,
                heard,
                version,
            )
        self._counts.lists += 1
        position.version = version
        position.current, position.exact = True, False
        self._pages_next, self._whole_next = self._in_pages, False
        self._well()
        if exact:
            self._end_refresh()

    def _end_refresh(self) -> None:
        waiting, self._refreshing = self._refreshing, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _stream(self) -> None:
        self._verb = "list"
        heard = self._heard()
        not_older = self._not_older(heard) or [("resourceVersionMatch", "NotOlderThan")]
        exact = len(not_older) == 1

        async def filled(objects: Sequence[CachedObject], version: Version) -> None:
            await self._filled(objects, version, exact=exact, heard=heard)
            self._streams, self._verb = True, "watch"

        session = self._session(filled)
        try:
            await self._follow(session, [("sendInitialEvents", "true"), *not_older])
            if session.initial is not None:
                raise WatchTrouble("the stream ended before the initial events were complete", kind="incomplete")
        except Exception as error:
            if session.initial is None or not self._falls_back(error, session):
                raise

    def _falls_back(self, error: Exception, session: Session) -> bool:
        """Decide what a failed streamed list means for the next one; say whether it is no failure at all."""
        if isinstance(error, _STREAM_REFUSED):
            _logger.info("%s: streamed lists are refused (%s); using pages", self._action, error)
            self._streams = False
            return True
        silent = isinstance(error, WatchTrouble) and error.kind == "silent"
        if silent and self._streams is None:
            self._streams = False
        if isinstance(error, APIError):
            self._pages_next = not isinstance(error, (TooManyRequests, Expired)) and not is_behind(error)
        else:
            self._pages_next = session.opened
        return False

    async def _recognize(self) -> None:
        """Check whether the server still has the known history; if not, the next step is a consistent list.

        A server that lost its data, or was restored from a backup, counts its versions on from an earlier one, and once
        they have passed the version that is known a watch goes on from there as if nothing had happened. An object that
        is found at the version at which it was left proves that no change up to there was taken back. The newest one
        proves most; where it was changed meanwhile, which proves nothing, the next one is looked at.
        """
        self._verb = "list"
        heard = self._heard()
        try:
            known = await self._proves(heard)
        except Forbidden:
            known = True  # who may only watch cannot know
        self._away = False
        if not known:
            self._position.lose(exact=True)

    async def _proves(self, heard: Version | None) -> bool:
        newest = self._sink.newest(PROBES)
        if not newest:
            found, version = await self._probe(self._namespace, [*self._selectors, ("limit", "1")])
            return found is None and not is_older(version, heard)
        for held in newest:
            found, version = await self._probe(held.namespace, self._naming(held.name))
            if found is None or found.uid != held.uid or is_older(version, heard):
                return False
            if found.version == held.version or isinstance(found.version, str):
                return True
            if not is_older(self._position.version or 0, found.version):
                return False  # a change up to here would have been told
        return False

    async def _probe(
        self, namespace: str | None, query: Sequence[tuple[str, str]]
    ) -> tuple[CachedObject | None, Version]:
        page = await self._page(query, namespace)
        objects: list[CachedObject] = []
        await self._take(page, objects)
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
        await self._follow(self._session(), [("resourceVersion", str(version))] if version else [])
        if not version:
            self._position.lose()  # a server that versions no lists: there is nothing to go on from

    def _session(self, filled: Filled | None = None) -> Session:
        return Session(
            position=self._position,
            sink=self._sink,
            reader=self._reader,
            counts=self._counts,
            timeout=self._rng.randint(*WATCH_SECONDS),
            filled=filled,
        )

    async def _follow(self, session: Session, query: Sequence[tuple[str, str]]) -> None:
        began = self._clock.monotonic()
        asked = [("allowWatchBookmarks", "true"), ("timeoutSeconds", str(session.timeout)), *query]
        response = await self._source.open_watch(
            self._resource, self._namespace, [*self._selectors, *asked], metadata_only=self._metadata_only
        )
        session.opened = True
        self._counts.watches += 1
        try:
            if session.initial is None:
                self._well()
            await read_lines(response, session.silence, session.handle)
        finally:
            await response.close()
        short = SHORTEST_WATCH - (self._clock.monotonic() - began)
        if short > 0 and not session.lines:
            raise WatchTrouble("the stream ended at once, without an event", kind="very short")
        await asyncio.sleep(max(0.0, short))  # a server that ends each watch after an event is not asked in a hot loop

    # failures

    @property
    def _action(self) -> str:
        return action_on(self._verb, self._resource, self._namespace)

    def _well(self) -> None:
        self._away = False
        self.last_failure = None
        self._behind = 0

    def _after(self, error: Exception) -> float:
        """Draw the conclusions from a failure; return the seconds to wait."""
        delay = self._pacer.delay(error)
        if is_behind(error):
            self._counts.behind += 1
            self._behind += 1
            if self._behind >= BEHIND_AT_MOST:
                self._position.lose(exact=True)
            _logger.debug("%s: the server is behind; next attempt in %.1f s", self._action, delay)
            return delay
        self._counts.failures += 1
        self._away = self._away or isinstance(error, (TransportError, ServerError))
        self._reposition(error)
        self.last_failure = Failure(self._action, error, self._clock.now())
        self._pacer.log(self.last_failure, delay)
        error.__traceback__ = None  # it would keep half a list alive for as long as the failure is remembered
        return delay

    def _reposition(self, error: Exception) -> None:
        position = self._position
        if isinstance(error, Expired):
            self._counts.expired += 1
            # A list cannot expire by the version it must not be older than; if one did, ask without.
            position.lose(exact=self._verb == "list")
        elif isinstance(error, WatchTrouble):
            if error.kind == "silent":
                self._counts.silent += 1
                position.bookmarks_come = False
            if error.lost:
                position.lose(exact=True)
        elif isinstance(error, APIError) and not isinstance(error, _SAYS_NOTHING_OF_THE_VERSION):
            position.lose()


class Source(Protocol):
    """Be what a reflector needs of a client: bytes, one request a call, typed errors."""

    async def raw_list(
        self,
        rt: ResourceType,
        namespace: str | None = None,
        query: Sequence[tuple[str, str]] = (),
        *,
        metadata_only: bool = False,
    ) -> bytes:
        """Return one page of a list."""
        ...

    async def open_watch(
        self,
        rt: ResourceType,
        namespace: str | None = None,
        query: Sequence[tuple[str, str]] = (),
        *,
        metadata_only: bool = False,
    ) -> HTTPResponse:
        """Return an open watch, which the caller closes."""
        ...
