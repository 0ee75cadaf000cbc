"""HandlerResult requests as the world sees them: under faults, with events in the wanted order, and remembered."""

from __future__ import annotations

import asyncio
import random
import weakref

from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.faults.faults import EventOrder, Faults, Strike
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.serving.handler import Handler, HandlerResult, refusal_response
from reconciler.apiserver.serving.logged_request import logged
from reconciler.apiserver.serving.request_log import RequestLog, ServerAction
from reconciler.apiserver.storage.registry import Resource
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.verbs.watch import Watch
from reconciler.clock import Clock
from reconciler.errors import OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse

__all__ = ["HandlerChain"]

_LATE_SECONDS = 0.05


class HandlerChain:
    """Stand between the requests of one server and its core.

    Args:
        core: answers them.
        clock: says when.
        rng: draws the order of events.
        log: how many requests are remembered.
        event_order: when watches see the event of a write.

    Attributes:
        core: the core; another one after the data was lost.
        faults: what goes wrong.
        log: what is remembered.
        answered: how many requests were answered.
    """

    def __init__(self, core: Handler, clock: Clock, rng: random.Random, *, log: int, event_order: EventOrder) -> None:
        self.faults = Faults(rng)
        self.log = RequestLog(log)
        self.answered = 0
        self._clock = clock
        self._rng = rng
        self._event_order: EventOrder = event_order
        # Dicts rather than sets: cutting in the order of arrival lets a seed repeat the same run.
        self._watches: weakref.WeakKeyDictionary[Watch, None] = weakref.WeakKeyDictionary()
        self._stalled: dict[asyncio.Future[None], None] = {}
        self._commits: list[tuple[Resource, Stored | None, Stored | None]] = []
        self.replace_core(core)

    def replace_core(self, core: Handler) -> None:
        """HandlerResult from another core from now on."""
        self.core = core
        core.cluster.commit_hooks.insert(0, self._committed)  # before those that commit in turn

    def _committed(self, resource: Resource, old: Stored | None, new: Stored | None) -> None:
        self._commits.append((resource, old, new))

    async def answer(self, request: HTTPRequest) -> HTTPResponse:
        """HandlerResult one request; a cancelled call may have had its effect.

        Raises:
            OutcomeUnknown: a fault withheld the answer, or the request's timeout passed.
        """
        try:
            call = self.core.understand(request)
        except Refusal as refusal:
            return self._remembered(request, None, HandlerResult(refusal_response(refusal), refusal.reason))
        strike = self.faults.strike(call, request)
        if strike is None:
            return await self._ordered(request, call)
        return await self._struck(request, call, strike)

    async def _struck(self, request: HTTPRequest, call: Call | None, strike: Strike) -> HTTPResponse:
        """HandlerResult a request under faults."""
        if strike.latency:
            await self._delay(request, call, strike)
        fault, watching = strike.answering, call is not None and call.verb == "watch"
        if fault is not None and fault.stall and not watching:
            await self._stall(request, call, strike)
        refusal = fault.refusal(call) if fault is not None and fault.refuses else None
        early = fault is not None and not fault.after_commit and not (watching and fault.expired)
        if early and fault is not None and fault.lost:
            self._remembered(request, call, HandlerResult(HTTPResponse(0)), strike)
            raise OutcomeUnknown(f"{request.method} {request.path}: a fault withheld the answer")
        if early and refusal is not None:
            return self._remembered(request, call, HandlerResult(refusal_response(refusal), refusal.reason), strike)
        response = await self._ordered(request, call, strike)
        if call is not None:
            plural = call.endpoint.info.plural
            if strike.cut_watches:
                self.cut_watches(plural)
            if strike.stall_watches:
                self.stall_watches(plural)
        if fault is not None and fault.after_commit:
            if fault.lost:
                raise OutcomeUnknown(f"{request.method} {request.path}: a fault withheld the answer")
            if refusal is not None:
                return refusal_response(refusal)
        return response

    async def _delay(self, request: HTTPRequest, call: Call | None, strike: Strike) -> None:
        if request.timeout is not None and request.timeout < strike.latency:
            await asyncio.sleep(request.timeout)
            self._remembered(request, call, HandlerResult(HTTPResponse(0)), strike)
            raise OutcomeUnknown(f"{request.method} {request.path}: no answer within {request.timeout} s")
        await asyncio.sleep(strike.latency)

    async def _stall(self, request: HTTPRequest, call: Call | None, strike: Strike) -> None:
        stalled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stalled[stalled] = None
        try:
            await asyncio.wait_for(stalled, request.timeout)
        except TimeoutError:
            raise OutcomeUnknown(f"{request.method} {request.path}: no answer within {request.timeout} s") from None
        finally:
            self._stalled.pop(stalled, None)
            self._remembered(request, call, HandlerResult(HTTPResponse(0)), strike)
        raise OutcomeUnknown(f"{request.method} {request.path}: the server was closed before it answered")

    async def _ordered(self, request: HTTPRequest, call: Call | None, strike: Strike | None = None) -> HTTPResponse:
        """HandlerResult a request and let its event be seen before the answer, after it, or late."""
        if call is None or call.verb in ("get", "list", "watch"):
            return self._read(request, call, strike)
        order: EventOrder = (strike.event_order if strike is not None else None) or self._event_order
        if order == "seeded":
            order = self._rng.choice(("before", "after", "late"))
        store = call.endpoint.store
        position = store.end
        if order == "late":
            store.hold(position)
            asyncio.get_running_loop().call_later(_LATE_SECONDS, store.release, position)
        response = self._remembered(request, call, self.core.answer(request, call), strike)
        if order == "before" and store.end != position:
            await _let_others_run()
        return response

    def _read(self, request: HTTPRequest, call: Call | None, strike: Strike | None) -> HTTPResponse:
        stale, fault = (None, None) if strike is None else (strike.stale, strike.answering)
        ends = fault is not None and fault.expired and call is not None and call.verb == "watch"
        expired = fault.refusal(call) if fault is not None and ends else None
        answer = self.core.answer(request, call, stale=stale, expired=expired)
        if answer.watch is not None:
            answer.watch.stalled = fault is not None and fault.stall
            self._watches[answer.watch] = None
        return self._remembered(request, call, answer, strike)

    def _remembered(
        self, request: HTTPRequest, call: Call | None, answer: HandlerResult, strike: Strike | None = None
    ) -> HTTPResponse:
        self.answered += 1
        written = answer.written
        before, after = (None, None) if written is None else (written.before, written.after)
        status, now = answer.response.status, self._clock.now()
        fault = "" if strike is None else strike.effect
        self.log.add(logged(now, request, call, status, answer.reason, before=before, after=after, fault=fault))
        if self._commits:
            self.tell_commits("by the server", before, after)
        return answer.response

    def tell_commits(self, whose: str, before: Stored | None = None, after: Stored | None = None) -> None:
        """Remember what was stored and removed since the last time, but for a request's own write."""
        commits, self._commits = self._commits, []
        for resource, old, new in commits:
            stored = new or old
            if stored is None or stored is after or (new is None and old is before):
                continue
            done = "removed" if new is None else "created" if old is None else "changed"
            info, metadata = resource.info, stored.doc["metadata"]
            namespace, name = metadata.get("namespace"), metadata["name"]
            where = f" in {namespace}" if namespace else ""
            what = f"{info.plural}/{name}{where} was {done} {whose}"
            self.log.note(ServerAction(self._clock.now(), what, info.group, info.plural, info.kind, namespace, name))

    # watches, and what happens beside requests

    @property
    def watches(self) -> int:
        """Return how many watches are open."""
        return sum(1 for watch in self._watches if not watch.closed)

    def cut_watches(self, resource: str | None = None) -> int:
        """Break watches off in the middle and return how many."""
        chosen = self._chosen(resource)
        for watch in chosen:
            watch.cut()
        if chosen:
            self.note(f"{len(chosen)} watches of {resource or 'all kinds'} were cut")
        return len(chosen)

    def stall_watches(self, resource: str | None = None) -> int:
        """Let watches stay open and say nothing more, and return how many."""
        chosen = [watch for watch in self._chosen(resource) if not watch.stalled]
        for watch in chosen:
            watch.stalled = True
        if chosen:
            self.note(f"{len(chosen)} watches of {resource or 'all kinds'} fell silent")
        return len(chosen)

    def _chosen(self, resource: str | None) -> list[Watch]:
        return [watch for watch in self._watches if not watch.closed and resource in (None, watch.plural)]

    def compact(self) -> None:
        """Forget all history."""
        cluster = self.core.cluster
        cluster.revisions.compacted = cluster.revisions.current
        for resource in cluster.registry.resources():
            resource.store.compact(cluster.revisions.current)
        self.note(f"history up to version {cluster.revisions.current} was forgotten")

    def note(self, what: str) -> None:
        """Remember what happened beside requests."""
        self.log.note(ServerAction(self._clock.now(), what))

    def close(self) -> None:
        """End all watches and let stalled requests fail."""
        for watch in self._chosen(None):
            watch.cut()
        for stalled in self._stalled:
            if not stalled.done():
                stalled.set_result(None)


async def _let_others_run() -> None:
    # A reader needs a few turns of the loop to take a frame and act on it.
    for _ in range(8):
        await asyncio.sleep(0)
