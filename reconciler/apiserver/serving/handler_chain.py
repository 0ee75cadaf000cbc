"""The handler chain of a server: faults, the order of events, and the request log, around its handler."""

from __future__ import annotations

import asyncio
import inspect
import random
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import cast

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cluster import APIResource
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.faults import NO_STRIKE, EventOrder, Faults, RequestCallback, RequestMatch, Strike, matches
from reconciler.apiserver.serving.handler import Handler, HandlerResult, refusal_response
from reconciler.apiserver.serving.request_log import RequestLog, ServerAction, log_entry
from reconciler.apiserver.state import DataDirectory
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import AccessDenied
from reconciler.apiserver.verbs.read import PastState
from reconciler.apiserver.verbs.routing import Call
from reconciler.apiserver.verbs.watch import WatchHold, WatchResponse
from reconciler.apiserver.verbs.write_rules import WriteResult
from reconciler.clock import Clock
from reconciler.errors import ConfigurationError, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse

_LATE_SECONDS = 0.05

ChangeFollower = Callable[[JSONObject | None, JSONObject | None], None]
"""Called with the documents of an object before and after a change, which it must not modify."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """The size of a server, and what it has dropped.

    Attributes:
        objects: stored objects.
        resource_version: the newest resourceVersion.
        watches: open watches.
        requests: answered requests.
        requests_dropped: how many of them the log no longer holds.
        events_dropped: watch events that the history no longer holds.
    """

    objects: int
    resource_version: int
    watches: int
    requests: int
    requests_dropped: int
    events_dropped: int


class HandlerChain:
    """The handler of a server with what is around it: faults, the order of events, the request log, open watches.

    Attributes:
        handler: the handler; replaced when the server loses its data.
        faults: the faults.
        log: the request log.
        data: where commits are kept beyond the process, or None.
        followers: called with each change of an object.
    """

    def __init__(
        self, handler: Handler, clock: Clock, rng: random.Random, *, log: int, event_order: EventOrder
    ) -> None:
        self.faults = Faults(rng)
        self.log = RequestLog(log)
        self._answered = 0
        self.data: DataDirectory | None = None
        self._clock = clock
        self._rng = rng
        self._event_order: EventOrder = event_order
        # Dicts rather than sets: watches are cut in the order of arrival, so that a seed repeats the same run.
        self._watches: weakref.WeakKeyDictionary[WatchResponse, tuple[Call, HTTPRequest]] = weakref.WeakKeyDictionary()
        self._holds: list[WatchHold] = []
        self._stalled: dict[asyncio.Future[None], None] = {}
        self._starts = 1
        self.followers: list[ChangeFollower] = []
        self._commits: list[tuple[APIResource, Stored | None, Stored | None]] = []
        self.replace_handler(handler)

    def restart(self) -> None:
        """Break off watches, drop the history, and answer none of the writes that are waiting for webhooks."""
        self.cut_watches({})
        self._starts += 1
        self.compact()
        self.note("the server restarted")

    def replace_handler(self, handler: Handler) -> None:
        """Use another handler from now on; the watches and connections to the one before break off.

        Raises:
            ConfigurationError: its data cannot be kept, and nothing was replaced.
        """
        if self.data is not None:
            self.data.replace(handler.cluster)
        for watch in self._open_watches(self._matching({})):
            watch.cut(lost=True)
        self._starts += 1
        self.handler, self._commits = handler, []
        handler.cluster.commit_hooks.insert(0, self._committed)  # before the hooks that commit in turn

    def _committed(self, resource: APIResource, old: Stored | None, new: Stored | None) -> None:
        self._commits.append((resource, old, new))
        for follower in self.followers:
            follower(None if old is None else old.doc, None if new is None else new.doc)

    async def handle(self, request: HTTPRequest) -> HTTPResponse:
        """Return the response to a request; a cancelled call may have taken effect.

        Raises:
            OutcomeUnknown: a fault withheld the response, or the request's timeout passed.
        """
        request = _without_surrogates(request)
        try:
            call = self.handler.parse(request)
        except Refusal as refusal:
            denied = self.handler.routed(request, refusal.user) if isinstance(refusal, AccessDenied) else None
            return self._log(request, denied, HandlerResult(refusal_response(refusal), refusal.reason))
        strike = self.faults.strike(call, request) if self.faults.active else NO_STRIKE
        handle = self._handle_with_faults if strike.faults else self._handle_in_order
        return await handle(request, call, strike)

    async def _handle_with_faults(self, request: HTTPRequest, call: Call | None, strike: Strike) -> HTTPResponse:
        if strike.delay:
            await self._delay(request, call, strike)
        await _call([fault.effects.get("before") for fault in strike.faults], request)
        watching = call is not None and call.verb == "watch"
        answer, refusal = strike.answer, strike.refusal(call)
        if "stall" in answer and not watching:
            await self._stall(request, call, strike)
        lost, after_commit = "lost" in answer, "after_commit" in answer
        if not (after_commit or (watching and "expired" in answer)):
            if lost:
                raise self._unanswered(request, call, strike, "a fault withheld the response")
            if refusal is not None:
                return self._log(request, call, HandlerResult(refusal_response(refusal), refusal.reason), strike)
        response = await self._handle_in_order(request, call, strike)
        await _call([fault.effects.get("after") for fault in strike.faults], request)
        if call is not None and "cut_watches" in strike.effects:
            self.cut_watches({"resource": call.endpoint.info.plural})
        if call is not None and "stall_watches" in strike.effects:
            self.stall_watches({"resource": call.endpoint.info.plural})
        if lost and after_commit:
            raise _unknown(request, "a fault withheld the response")
        if refusal is not None and after_commit:
            return refusal_response(refusal)
        return response

    async def _delay(self, request: HTTPRequest, call: Call | None, strike: Strike) -> None:
        if request.timeout is not None and request.timeout < strike.delay:
            await asyncio.sleep(request.timeout)
            raise self._unanswered(request, call, strike, f"no response within {request.timeout} s")
        await asyncio.sleep(strike.delay)

    def _unanswered(self, request: HTTPRequest, call: Call | None, strike: Strike, why: str) -> OutcomeUnknown:
        """Log a request that gets no response, and return the error for its client."""
        self._log(request, call, HandlerResult(HTTPResponse(0)), strike)
        return _unknown(request, why)

    async def _stall(self, request: HTTPRequest, call: Call | None, strike: Strike) -> None:
        stalled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stalled[stalled] = None
        try:
            async with asyncio.timeout(request.timeout):  # `wait_for` of Python 3.11 may swallow a cancellation
                await stalled
        except TimeoutError:
            raise _unknown(request, f"no response within {request.timeout} s") from None
        finally:
            self._stalled.pop(stalled, None)
            self._log(request, call, HandlerResult(HTTPResponse(0)), strike)
        raise _unknown(request, "the server was closed before it answered")

    async def _handle_in_order(self, request: HTTPRequest, call: Call | None, strike: Strike) -> HTTPResponse:
        """Handle a request so that watches receive its event before the response, after it, or late."""
        if call is None or call.verb in ("get", "list", "watch"):
            return await self._read(request, call, strike)
        order: EventOrder = strike.effects.get("event_order") or self._event_order
        if order == "seeded":
            order = self._rng.choice(("before", "after", "late"))
        store = call.endpoint.store
        position = store.end
        if order == "late":
            hold = self._hold(lambda watch: watch.endpoint.store is store)
            for watch in self._open_watches(hold.covers):
                hold.add(watch, position)
            asyncio.get_running_loop().call_later(_LATE_SECONDS, hold.release)
        starts = self._starts
        result = await self.handler.handle(request, call)
        if starts != self._starts:
            raise self._unanswered(request, call, strike, "the server restarted before it answered")
        response = self._log(request, call, result, strike)
        if order == "before" and store.end != position:
            # A reader needs a few iterations of the event loop to take a frame and act on it.
            for _ in range(8):
                await asyncio.sleep(0)
        return response

    async def _read(self, request: HTTPRequest, call: Call | None, strike: Strike) -> HTTPResponse:
        watching = call is not None and call.verb == "watch"
        expired = strike.refusal(call) if watching and "expired" in strike.answer else None
        age, version = cast("float | None", strike.effects.get("stale")), strike.effects.get("stale_version")
        past: PastState | None = None if age is None and version is None else (age or 0.0, version)
        result = await self.handler.handle(request, call, stale=past, expired=expired)
        if result.watch is not None and call is not None:
            self._watches[result.watch] = call, request
            if "stall" in strike.answer:
                result.watch.stall()
            for hold in self._holds:
                if not hold.released and hold.covers(result.watch):
                    hold.add(result.watch, result.watch.position)
        return self._log(request, call, result, strike)

    def _log(
        self, request: HTTPRequest, call: Call | None, result: HandlerResult, strike: Strike = NO_STRIKE
    ) -> HTTPResponse:
        self._answered += 1
        self.log.add(log_entry(self._clock.now(), request, call, result, strike.text))
        if self._commits:
            try:
                self.log_commits("by the server", result.written)
            except ConfigurationError as error:
                return refusal_response(Refusal.internal_error(str(error)))
        return result.response

    def log_commits(self, actor: str, own: WriteResult | None = None) -> None:
        """Log the commits since the last call, except that of the request's own write.

        The actor stands at the end of each line, such as ``"by the server"``.

        Raises:
            ConfigurationError: the commits cannot be kept.
        """
        commits, self._commits = self._commits, []
        for resource, old, new in commits:
            stored = new or old
            if stored is None or (own and (stored is own.after or (new is None and old is own.before))):
                continue
            done = "removed" if new is None else "created" if old is None else "changed"
            info, metadata = resource.info, stored.doc["metadata"]
            namespace, name = metadata.get("namespace"), metadata["name"]
            where = f" in {namespace}" if namespace else ""
            what = f"{info.plural}/{name}{where} was {done} {actor}"
            self.log.note(ServerAction(self._clock.now(), what, info.group, info.plural, info.kind, namespace, name))
        if self.data is not None:
            self.data.write(self.handler.cluster, commits)

    # watches, and what happens besides requests

    def statistics(self) -> ServerStatistics:
        """Return the current counts."""
        cluster = self.handler.cluster
        stores = {resource.store for resource in cluster.registry.resources()}
        return ServerStatistics(
            objects=sum(len(store.objects) for store in stores),
            resource_version=cluster.revisions.current,
            watches=len(self._open_watches(self._matching({}))),
            requests=self._answered,
            requests_dropped=self.log.dropped,
            events_dropped=sum(store.dropped for store in stores),
        )

    def cut_watches(self, match: RequestMatch) -> int:
        """Break off watches and return how many."""
        chosen = self._open_watches(self._matching(match))
        for watch in chosen:
            watch.cut()
        return self._note_watches(len(chosen), match, "cut")

    def stall_watches(self, match: RequestMatch) -> int:
        """Keep watches open but silent, and return how many."""
        chosen = [watch for watch in self._open_watches(self._matching(match)) if not watch.stalled]
        for watch in chosen:
            watch.stall()
        return self._note_watches(len(chosen), match, "stalled")

    def hold_watches(self, match: RequestMatch, *, later: bool) -> WatchHold:
        """Hide events from open watches, and perhaps from those that open before the release."""
        covers = self._matching(match)
        hold = self._hold(covers) if later else WatchHold(lambda _: False)
        for watch in self._open_watches(covers):
            hold.add(watch, watch.position)
        self._note_watches(len(hold), match, "held")
        return hold

    def _hold(self, covers: Callable[[WatchResponse], bool]) -> WatchHold:
        self._holds = [hold for hold in self._holds if not hold.released]
        self._holds.append(WatchHold(covers))
        return self._holds[-1]

    def _matching(self, match: RequestMatch) -> Callable[[WatchResponse], bool]:
        return lambda watch: matches(match, *self._watches[watch])

    def _note_watches(self, count: int, match: RequestMatch, done: str) -> int:
        if count:
            agent, kind = match.get("user_agent"), match.get("resource") or "all kinds"
            self.note(f"{count} watches of {kind}{f' by {agent}' if agent else ''} were {done}")
        return count

    def _open_watches(self, covers: Callable[[WatchResponse], bool]) -> list[WatchResponse]:
        return [watch for watch in self._watches if not watch.closed and covers(watch)]

    def compact(self) -> None:
        """Drop the history of all kinds."""
        cluster = self.handler.cluster
        cluster.revisions.compacted = cluster.revisions.current
        for resource in cluster.registry.resources():
            resource.store.compact(cluster.revisions.current)
        self.note(f"history up to version {cluster.revisions.current} was compacted")

    def note(self, what: str) -> None:
        """Log what the server did besides answering requests."""
        self.log.note(ServerAction(self._clock.now(), what))

    def close(self) -> None:
        """End all watches and fail stalled requests; keep the commits of cancelled requests.

        Raises:
            ConfigurationError: they cannot be kept.
        """
        for watch in self._open_watches(self._matching({})):
            watch.cut()
        for stalled in self._stalled:
            if not stalled.done():
                stalled.set_result(None)
        self.log_commits("by the server")


async def _call(callbacks: Iterable[RequestCallback | None], request: HTTPRequest) -> None:
    for callback in callbacks:
        result = None if callback is None else callback(request)
        if inspect.isawaitable(result):
            await result


def _unknown(request: HTTPRequest, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{request.method} {request.path}: {why}")


def _without_surrogates(request: HTTPRequest) -> HTTPRequest:
    """Return a request with U+FFFD in place of lone surrogates, which UTF-8 cannot encode."""
    texts = chain((request.path,), *request.query, request.headers.values())
    if all(map(str.isascii, texts)):
        return request
    query = tuple((_replaced(name), _replaced(value)) for name, value in request.query)
    headers = {name: _replaced(value) for name, value in request.headers.items()}
    return replace(request, path=_replaced(request.path), query=query, headers=headers)


def _replaced(text: str) -> str:
    return text.encode(errors="surrogatepass").decode(errors="replace")
