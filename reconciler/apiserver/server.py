"""Be an API server: one object that turns requests into answers, with or without sockets."""

from __future__ import annotations

import asyncio
import hmac
import random
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.faults.faults import EventOrder
from reconciler.apiserver.serving.handler import Handler, refusal_response
from reconciler.apiserver.serving.handler_chain import HandlerChain
from reconciler.apiserver.serving.listener import Listener
from reconciler.apiserver.serving.logged_request import LoggedRequest
from reconciler.apiserver.serving.manifests import documents_of
from reconciler.apiserver.serving.request_log import RequestLog
from reconciler.apiserver.storage.store import Store, encode
from reconciler.clock import Clock, current_clock
from reconciler.errors import NotSent
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.wire import JSONObject

__all__ = ["APIServer", "ServerStatistics"]


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
        sharded_list_and_watch: heed ``shardSelector``, as a real server does with the feature gate ShardedListAndWatch;
            False, as that gate is by default, ignores it.

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
        sharded_list_and_watch: bool = False,
    ) -> None:
        self._clock = clock or current_clock()
        self._rng = random.Random(seed)  # noqa: S311 - reproducible on purpose; the token guards loopback only
        self._history = history
        self._provision_namespaces = provision_namespaces
        self._sharded = sharded_list_and_watch
        self._token = f"{random.SystemRandom().getrandbits(128):032x}"
        self._open = False
        self._listener = Listener(self._serve_socket, self._unauthorized, self._clock)
        self._handler_chain = HandlerChain(self._new_core(), self._clock, self._rng, log=log, event_order=event_order)
        self.faults = self._handler_chain.faults

    def _new_core(self) -> Handler:
        return Handler(
            self._clock,
            self._rng,
            history=self._history,
            provision_namespaces=self._provision_namespaces,
            sharded=self._sharded,
        )

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
        self._handler_chain.close()
        await self._listener.close()

    async def restart(self, *, wipe: bool = False) -> None:
        """Break watches and connections off, as a restart of the real server does; the history for resuming is lost.

        Cancellation leaves a server that was restarted.

        Args:
            wipe: lose the data as well: versions start anew, as after etcd was restored from nothing.
        """
        self.cut_watches()
        self._listener.abort_connections()
        if wipe:
            self._handler_chain.replace_core(self._new_core())
        else:
            self._handler_chain.compact()
        self._handler_chain.note("the server restarted" + (" and lost its data" if wipe else ""))
        await asyncio.sleep(0)

    def compact(self) -> None:
        """Forget all history: watches from older versions and continue tokens then are answered with 410."""
        self._handler_chain.compact()

    def cut_watches(self, resource: str | None = None) -> int:
        """Break watches off in the middle.

        Args:
            resource: the plural name of the kind; None for all.

        Returns:
            how many were cut.
        """
        return self._handler_chain.cut_watches(resource)

    def stall_watches(self, resource: str | None = None) -> int:
        """Let open watches stay open and say nothing more, not even bookmarks, until their timeout ends them.

        Args:
            resource: the plural name of the kind; None for all.

        Returns:
            how many fell silent.
        """
        return self._handler_chain.stall_watches(resource)

    # requests

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """HandlerResult one request.

        LoggedWrites take effect at one moment inside the call; a cancelled call may have had its effect.

        Raises:
            NotSent: the server is not open.
            OutcomeUnknown: a fault withheld the answer, or the request's timeout passed.
        """
        if not self._open:
            raise NotSent("the embedded API server is not running: use it inside 'async with'")
        # One turn of the loop, as any transport takes: a client that asks in a loop must not starve the others.
        await asyncio.sleep(0)
        return await self._handler_chain.answer(_encodable(request))

    # what was asked

    @property
    def log(self) -> RequestLog:
        """Return what is remembered of requests: `RequestLog.writes`, `RequestLog.cycles`, `RequestLog.timeline`."""
        return self._handler_chain.log

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
        found = self.log.find(
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
        self.log.clear()

    def statistics(self) -> ServerStatistics:
        """Return the counts of this moment."""
        cluster = self._handler_chain.core.cluster
        stores: set[Store] = {resource.store for resource in cluster.registry.resources()}
        return ServerStatistics(
            objects=sum(len(store.objects) for store in stores),
            resource_version=cluster.revisions.current,
            watches=self._handler_chain.watches,
            requests=self._handler_chain.answered,
            requests_dropped=self.log.dropped,
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
                self._handler_chain.core.apply(document)
                self._handler_chain.tell_commits("by apply()")
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
        """Listen on a loopback address and return the URL; if it listens already, any free port is the one it has.

        Cancellation leaves the port unused.

        Args:
            host: a loopback address; 127.0.0.1 by default.
            port: 0, the default, takes a free one.

        Raises:
            ConfigurationError: under virtual time, for an address that is not loopback, when the port is taken, or when
                it listens already and another address or a certain port is asked for.
        """
        return await self._listener.listen(host, port)

    def kubeconfig(self) -> JSONObject:
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

    def _unauthorized(self, request: HTTPRequest) -> HTTPResponse | None:
        """Return the answer to a request without the token, or None."""
        sent = request.headers.get("authorization", "").encode(errors="replace")
        if self._begins_with_token(request.path) or hmac.compare_digest(sent, f"Bearer {self._token}".encode()):
            return None
        return refusal_response(Refusal(401, "Unauthorized", "Unauthorized"))

    def _begins_with_token(self, path: str) -> bool:
        return hmac.compare_digest(path[1:].partition("/")[0].encode(errors="replace"), self._token.encode())

    async def _serve_socket(self, request: HTTPRequest) -> HTTPResponse:
        if not self._begins_with_token(request.path):
            return await self.send(request)
        prefix = f"/{self._token}"
        response = await self.send(replace(request, path=request.path[len(prefix) :] or "/"))
        if request.path == f"{prefix}/openapi/v3":
            # Clients follow these links as they stand.
            response.body = response.body.replace(b'"/openapi/', b'"%b/openapi/' % prefix.encode())
        return response


def _encodable(request: HTTPRequest) -> HTTPRequest:
    """Return a request with U+FFFD in place of lone surrogates, which have no form in UTF-8."""
    texts = (request.path, *(text for pair in request.query for text in pair), *request.headers.values())
    if all(map(str.isascii, texts)):
        return request
    query = tuple((_replaced(name), _replaced(value)) for name, value in request.query)
    headers = {name: _replaced(value) for name, value in request.headers.items()}
    return replace(request, path=_replaced(request.path), query=query, headers=headers)


def _replaced(text: str) -> str:
    return text.encode(errors="surrogatepass").decode(errors="replace")
