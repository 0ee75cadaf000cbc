"""Be an API server: one object that turns requests into answers, with or without sockets."""

from __future__ import annotations

import asyncio
import hmac
import random
import weakref
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.apiserver._core import Answer, Core, refusal_response
from reconciler.apiserver._faults import EventOrder, Faults, Strike
from reconciler.apiserver._files import documents_of
from reconciler.apiserver._log import LoggedRequest, RequestLog, logged
from reconciler.apiserver._routing import Call
from reconciler.apiserver._sockets import Listener
from reconciler.apiserver._status import Refusal
from reconciler.apiserver._storage import Store, encode
from reconciler.apiserver._watch import Watch
from reconciler.clock import Clock, current_clock
from reconciler.errors import NotSent, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse

__all__ = ["APIServer", "ServerStatistics"]

_LATE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Count what a server holds and has let go.

    Attributes:
        objects: stored objects.
        resource_version: the newest version.
        watches: open watches.
        requests: answered requests.
        requests_dropped: how many of them the log no longer holds.
        events_dropped: events that history no longer holds.
    """

    objects: int
    resource_version: int
    watches: int
    requests: int
    requests_dropped: int
    events_dropped: int


class APIServer:
    """Serve the Kubernetes API from memory.

    It is a `Transport`: hand it to a client, or `send` requests. Other programs reach it through `url` or
    `write_kubeconfig`. Use it with ``async with``; leaving the block ends all watches and sockets.

    Args:
        clock: gives stamps and bookmark times; the clock in force by default.
        seed: of uids, generated names, the token and all chance in faults; 0 by default.
        history: how many events of each kind are kept for watches and paged lists at least; 4096 by default.
        log: how many requests are remembered; 10,000 by default.
        event_order: whether watches see the event of a write before its answer is given, after (the default), late or
            "seeded", one of them drawn for each write. A real server shows both orders.
        provision_namespaces: make the namespace of an object that is created where there is none, as a real server does
            with the admission plugin NamespaceAutoProvision; True by default, so that a test need not. False answers
            404, as a real server without that plugin.

    Attributes:
        faults: what goes wrong; see `Faults.add`.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        history: int = 4096,
        log: int = 10_000,
        event_order: EventOrder = "after",
        provision_namespaces: bool = True,
    ) -> None:
        self._clock = clock or current_clock()
        self._rng = random.Random(seed)  # noqa: S311 - reproducible on purpose; the token guards loopback only
        self._history = history
        self._event_order: EventOrder = event_order
        self._provision_namespaces = provision_namespaces
        self._token = f"{random.SystemRandom().getrandbits(128):032x}"
        self._log = RequestLog(log)
        self._answered = 0
        self._open = False
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._listener = Listener(self._serve_socket, self._clock)
        self._stalled: set[asyncio.Future[None]] = set()
        self.faults = Faults(self._rng)
        self._core = self._new_core()

    def _new_core(self) -> Core:
        return Core(self._clock, self._rng, history=self._history, provision_namespaces=self._provision_namespaces)

    # life

    async def __aenter__(self) -> Self:
        self._open = True
        self._listener.attach(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all watches, let stalled requests fail, stop to listen.

        Cancellation may leave sockets to the event loop, which closes them.
        """
        self._open = False
        self.cut_watches()
        for stalled in self._stalled:
            if not stalled.done():
                stalled.set_result(None)
        await self._listener.close()

    async def restart(self, *, wipe: bool = False) -> None:
        """Break watches and connections off, as a restart of the real server does; the history for resuming is lost.

        Cancellation leaves a server that was restarted.

        Args:
            wipe: lose the data as well: versions start anew, as after etcd was restored from nothing.
        """
        self.cut_watches()
        self._listener.break_off()
        if wipe:
            self._core = self._new_core()
        else:
            self.compact()
        await asyncio.sleep(0)

    def compact(self) -> None:
        """Forget all history: watches from older versions and continue tokens then are answered with 410."""
        cluster = self._core.cluster
        cluster.revisions.compacted = cluster.revisions.current
        for resource in cluster.registry.resources():
            resource.store.compact(cluster.revisions.current)

    def cut_watches(self, resource: str | None = None) -> int:
        """Break watches off in the middle.

        Args:
            resource: the plural name of the kind; None for all.

        Returns:
            how many were cut.
        """
        chosen = [
            watch for watch in self._watches if not watch.closed and (resource is None or watch.plural == resource)
        ]
        for watch in chosen:
            watch.cut()
        return len(chosen)

    # requests

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Answer one request.

        Writes take effect at one moment inside the call; a cancelled call may have had its effect.

        Raises:
            NotSent: the server is not open.
            OutcomeUnknown: a fault withheld the answer, or the request's timeout passed.
        """
        if not self._open:
            raise NotSent("the embedded API server is not running: use it inside 'async with'")
        # One turn of the loop, as any transport takes: a client that asks in a loop must not starve the others.
        await asyncio.sleep(0)
        try:
            call = self._core.understand(request)
        except Refusal as refusal:
            return self._remembered(request, None, Answer(refusal_response(refusal), refusal.reason))
        strike = self.faults.strike(call, request.method, request.headers.get("user-agent", ""))
        if strike is None:
            return await self._ordered(request, call, self._event_order)
        return await self._struck(request, call, strike)

    async def _struck(self, request: HTTPRequest, call: Call | None, strike: Strike) -> HTTPResponse:
        """Answer a request under faults."""
        if strike.latency:
            await self._delay(request, strike.latency)
        fault, watching = strike.answering, call is not None and call.verb == "watch"
        if fault is not None and fault.stall and not watching:
            await self._stall(request, call)
        refusal = fault.refusal(call) if fault is not None and fault.refuses else None
        ends_watch = watching and fault is not None and fault.expired
        early = fault is not None and not fault.after_commit and not ends_watch
        if early and fault is not None and fault.lost:
            self._remembered(request, call, Answer(HTTPResponse(0)))
            raise OutcomeUnknown(f"{request.method} {request.path}: a fault withheld the answer")
        if early and refusal is not None:
            return self._remembered(request, call, Answer(refusal_response(refusal), refusal.reason))
        order: EventOrder = strike.event_order or self._event_order
        response = await self._ordered(
            request,
            call,
            order,
            stale=strike.stale,
            expired=refusal if ends_watch else None,
            stall=fault is not None and fault.stall,
        )
        if strike.cut_watches and call is not None:
            self.cut_watches(call.endpoint.info.plural)
        if fault is not None and fault.after_commit:
            if fault.lost:
                raise OutcomeUnknown(f"{request.method} {request.path}: a fault withheld the answer")
            if refusal is not None:
                return refusal_response(refusal)
        return response

    async def _delay(self, request: HTTPRequest, seconds: float) -> None:
        if request.timeout is not None and request.timeout < seconds:
            await asyncio.sleep(request.timeout)
            raise OutcomeUnknown(f"{request.method} {request.path}: no answer within {request.timeout} s")
        await asyncio.sleep(seconds)

    async def _stall(self, request: HTTPRequest, call: Call | None) -> None:
        stalled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stalled.add(stalled)
        try:
            await asyncio.wait_for(stalled, request.timeout)
        except TimeoutError:
            raise OutcomeUnknown(f"{request.method} {request.path}: no answer within {request.timeout} s") from None
        finally:
            self._stalled.discard(stalled)
            self._remembered(request, call, Answer(HTTPResponse(0)))
        raise OutcomeUnknown(f"{request.method} {request.path}: the server was closed before it answered")

    async def _ordered(
        self,
        request: HTTPRequest,
        call: Call | None,
        order: EventOrder,
        *,
        stale: float | None = None,
        expired: Refusal | None = None,
        stall: bool = False,
    ) -> HTTPResponse:
        """Answer a request and let its event be seen before the answer, after it, or late."""
        if call is None or call.verb in ("get", "list", "watch"):
            answer = self._core.answer(request, call, stale=stale, expired=expired)
            if answer.watch is not None:
                answer.watch.stalled = stall
                self._watches.add(answer.watch)
            return self._remembered(request, call, answer)
        if order == "seeded":
            order = self._rng.choice(("before", "after", "late"))
        store = call.endpoint.store
        position = store.end
        if order == "late":
            store.hold(position)
            asyncio.get_running_loop().call_later(_LATE_SECONDS, store.release, position)
        response = self._remembered(request, call, self._core.answer(request, call))
        if order == "before" and store.end != position:
            await _let_others_run()
        return response

    # what was asked

    def _remembered(self, request: HTTPRequest, call: Call | None, answer: Answer) -> HTTPResponse:
        self._answered += 1
        written = answer.written
        before, after = (None, None) if written is None else (written.before, written.after)
        status = answer.response.status
        self._log.add(logged(self._clock.now(), request, call, status, answer.reason, before=before, after=after))
        return answer.response

    def requests(
        self,
        *,
        verb: str | Collection[str] | None = None,
        kind: str | None = None,
        resource: str | None = None,
        name: str | None = None,
        namespace: str | None = None,
        subresource: str | None = None,
        status: int | None = None,
        user_agent: str | None = None,
        effective: bool | None = None,
    ) -> list[LoggedRequest]:
        """Return the remembered requests that meet all conditions, oldest first.

        What `apply` does is not among them.

        Args:
            verb: such as ``"patch"``, or several.
            kind: the kind.
            resource: the plural name.
            name: the object's name.
            namespace: the namespace.
            subresource: ``"status"``; ``""`` for requests to objects themselves.
            status: the HTTP status of the answer.
            user_agent: a part of the User-Agent header.
            effective: whether storage was changed.
        """
        found = self._log.find(
            verb=verb,
            kind=kind,
            resource=resource,
            name=name,
            namespace=namespace,
            subresource=subresource,
            status=status,
            effective=effective,
        )
        return found if user_agent is None else [entry for entry in found if user_agent in entry.user_agent]

    def status_writes(self, name: str | None = None, *, kind: str | None = None) -> list[LoggedRequest]:
        """Return the remembered requests that tried to write a ``/status``."""
        return self.requests(verb=("update", "patch"), subresource="status", name=name, kind=kind)

    def clear_requests(self) -> None:
        """Forget the remembered requests."""
        self._log.clear()

    def statistics(self) -> ServerStatistics:
        """Return the counts of this moment."""
        cluster = self._core.cluster
        stores: set[Store] = {resource.store for resource in cluster.registry.resources()}
        return ServerStatistics(
            objects=sum(len(store.objects) for store in stores),
            resource_version=cluster.revisions.current,
            watches=sum(1 for watch in self._watches if not watch.closed),
            requests=self._answered,
            requests_dropped=self._log.dropped,
            events_dropped=sum(store.dropped for store in stores),
        )

    # content

    async def apply(self, *things: object) -> None:
        """Create or replace objects; return when CustomResourceDefinitions among them are served.

        Cancellation leaves the objects before it in place.

        Args:
            things: classes with a ``crd()``, documents, or paths of YAML or JSON files with any number of documents.
                A namespaced object without a namespace goes to ``default``.

        Raises:
            APIError: the server refused one; the message says which and why.
            ConfigurationError: a file cannot be read, or a document names a kind that is not served.
            MissingExtra: a definition needs a library that is not installed.
        """
        for thing in things:
            for document in documents_of(thing):
                self._core.apply(document)
        await asyncio.sleep(0)

    # sockets

    @property
    def token(self) -> str:
        """Return the bearer token that requests over sockets have to carry; it differs from run to run."""
        return self._token

    @property
    def url(self) -> str:
        """Return the address; the first use begins to listen on a free port of 127.0.0.1.

        Raises:
            ConfigurationError: under virtual time, or outside a running event loop.
        """
        return self._listener.url

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen on a loopback address and return the URL.

        Cancellation leaves the port unused.

        Args:
            host: a loopback address; 127.0.0.1 by default.
            port: 0, the default, takes a free one.

        Raises:
            ConfigurationError: under virtual time, for an address that is not loopback, or when the port is taken.
        """
        return await self._listener.listen(host, port)

    def kubeconfig(self) -> dict[str, Any]:
        """Return a kubeconfig that reaches this server.

        The token stands in it twice: as the user's token, and as the first part of the server's path, since kubectl and
        client-go send no credentials without TLS.

        Raises:
            ConfigurationError: as for `url`.
        """
        name = "reconciler"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": f"{self.url}/{self._token}"}}],
            "users": [{"name": name, "user": {"token": self._token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }

    def write_kubeconfig(self, path: str | Path) -> Path:
        """Write the kubeconfig, readable by its owner only, and return its path.

        Raises:
            OSError: the file cannot be written.
            ConfigurationError: as for `url`.
        """
        place = Path(path)
        content = encode(self.kubeconfig())
        place.touch(mode=0o600)
        place.chmod(0o600)
        place.write_bytes(content + b"\n")
        return place

    async def _serve_socket(self, request: HTTPRequest) -> HTTPResponse:
        prefix = f"/{self._token}"
        if request.path == prefix or request.path.startswith(f"{prefix}/"):
            response = await self.send(replace(request, path=request.path[len(prefix) :] or "/"))
            if request.path == f"{prefix}/openapi/v3":
                # Clients follow these links as they stand.
                response.body = response.body.replace(b'"/openapi/', b'"%b/openapi/' % prefix.encode())
            return response
        if not hmac.compare_digest(request.headers.get("authorization", ""), f"Bearer {self._token}"):
            return refusal_response(Refusal(401, "Unauthorized", "Unauthorized"))
        return await self.send(request)


async def _let_others_run() -> None:
    # A reader needs a few turns of the loop to take a frame and act on it.
    for _ in range(8):
        await asyncio.sleep(0)
