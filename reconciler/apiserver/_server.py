"""Be an API server: one object that turns requests into answers, with or without sockets."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.apiserver._bodies import check_size
from reconciler.apiserver._cluster import Cluster
from reconciler.apiserver._definitions import Definitions
from reconciler.apiserver._deletes import Deleter
from reconciler.apiserver._discovery import Discovery
from reconciler.apiserver._faults import EventOrder, Fault, Faults
from reconciler.apiserver._files import documents_of
from reconciler.apiserver._lifecycle import Lifecycle
from reconciler.apiserver._log import LoggedRequest, RequestLog, changed_paths
from reconciler.apiserver._reads import Reader
from reconciler.apiserver._routing import Call, route
from reconciler.apiserver._sockets import Listener
from reconciler.apiserver._status import Refusal
from reconciler.apiserver._storage import Store, encode
from reconciler.apiserver._views import WholeView, negotiate, to_yaml
from reconciler.apiserver._watch import Watch
from reconciler.apiserver._writes import Writer, Written
from reconciler.clock import Clock, current_clock
from reconciler.errors import ConfigurationError, NotSent, OutcomeUnknown, error_from_response
from reconciler.http import HTTPRequest, HTTPResponse

__all__ = ["APIServer", "ServerStatistics"]

_JSON = {"content-type": "application/json"}
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
    ) -> None:
        self._clock = clock or current_clock()
        self._rng = random.Random(seed)  # noqa: S311 - reproducible on purpose; the token guards loopback only
        self._history = history
        self._event_order: EventOrder = event_order
        self._token = f"{self._rng.getrandbits(128):032x}"
        self._log = RequestLog(log)
        self._answered = 0
        self._open = False
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._listener = Listener(self._serve_socket, self._clock)
        self._stalled: set[asyncio.Future[None]] = set()
        self.faults = Faults(self._rng)
        self._wipe()

    def _wipe(self) -> None:
        self._cluster = Cluster(self._clock, self._rng, history=self._history)
        self._reader = Reader(self._cluster)
        self._definitions = Definitions(self._cluster)
        self._writer = Writer(self._cluster, self._definitions.strategy)
        self._deleter = Deleter(self._cluster)
        self._lifecycle = Lifecycle(self._cluster, self._deleter)
        self._discovery = Discovery(self._cluster.registry)
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self._internal("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    # life

    async def __aenter__(self) -> Self:
        self._open = True
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
        self._free_stalled()
        await self._listener.close()

    async def restart(self, *, wipe: bool = False) -> None:
        """Break all watches off, as a restart of the real server does; the history for resuming is lost with it.

        Cancellation leaves a server that was restarted.

        Args:
            wipe: lose the data as well: versions start anew, as after etcd was restored from nothing.
        """
        self.cut_watches()
        if wipe:
            self._wipe()
        else:
            self.compact()
        await asyncio.sleep(0)

    def compact(self) -> None:
        """Forget all history: watches from older versions and continue tokens then are answered with 410."""
        revision = self._cluster.revisions.current
        self._cluster.revisions.compacted = revision
        for resource in self._cluster.registry.resources():
            resource.store.compact(revision)

    def cut_watches(self, resource: str | None = None) -> int:
        """Break watches off in the middle.

        Args:
            resource: the plural name of the kind; None for all.

        Returns:
            how many were cut.
        """
        chosen = [watch for watch in self._watches if resource is None or watch.plural == resource]
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
        agent = request.headers.get("user-agent", "")
        try:
            call = route(request, self._cluster.registry)
        except Refusal as refusal:
            return self._refuse(request, None, refusal)
        fault = self.faults.strike(call, request.method, agent)
        if fault is None:
            return await self._ordered(request, call, self._event_order)
        return await self._struck(request, call, fault)

    async def _struck(self, request: HTTPRequest, call: Call | None, fault: Fault) -> HTTPResponse:
        if fault.latency:
            await self._delay(request, fault.latency)
        if fault.stall and (call is None or call.verb != "watch"):
            await self._stall(request, call)
        if not fault.after_commit and (fault.lost or (fault.refuses and not (fault.expired and _is_watch(call)))):
            return self._fail(request, call, fault, None)
        response = await self._ordered(request, call, fault.event_order or self._event_order, fault)
        if fault.cut_watches and call is not None:
            self.cut_watches(call.endpoint.info.plural)
        if fault.after_commit:
            return self._fail(request, call, fault, response)
        return response

    def _fail(
        self, request: HTTPRequest, call: Call | None, fault: Fault, response: HTTPResponse | None
    ) -> HTTPResponse:
        if fault.lost:
            if response is None:
                self._remember(request, call, 0, "", None)
            raise OutcomeUnknown(f"{request.method} {request.path}: a fault withheld the answer")
        refusal = fault.refusal(call)
        if response is not None:
            return _refusal_response(refusal)
        return self._refuse(request, call, refusal)

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
            self._remember(request, call, 0, "", None)
            raise OutcomeUnknown(f"{request.method} {request.path}: no answer within {request.timeout} s") from None
        finally:
            self._stalled.discard(stalled)
        raise OutcomeUnknown(f"{request.method} {request.path}: the server was closed before it answered")

    def _free_stalled(self) -> None:
        for stalled in self._stalled:
            if not stalled.done():
                stalled.set_result(None)

    async def _ordered(
        self, request: HTTPRequest, call: Call | None, order: EventOrder, fault: Fault | None = None
    ) -> HTTPResponse:
        """Handle a request and let its event be seen before its answer, after it, or late."""
        if call is None or call.verb in ("get", "list", "watch"):
            return self._handle(request, call, fault)
        if order == "seeded":
            order = self._rng.choice(("before", "after", "late"))
        store = call.endpoint.store
        position = store.end
        if order == "late":
            store.hold(position)
            asyncio.get_running_loop().call_later(_LATE_SECONDS, store.release, position)
        response = self._handle(request, call, fault)
        if order == "before" and store.end != position:
            await _let_others_run()
        return response

    def _handle(self, request: HTTPRequest, call: Call | None, fault: Fault | None = None) -> HTTPResponse:
        try:
            if call is None:
                return self._discover(request)
            if call.verb == "watch":
                return self._watch(request, call, fault)
            if call.verb in ("get", "list"):
                return self._read(request, call, fault)
            return self._write(request, call)
        except Refusal as refusal:
            return self._refuse(request, call, refusal)

    def _discover(self, request: HTTPRequest) -> HTTPResponse:
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        document, kind = self._discovery.answer(request.path, request.headers.get("accept", ""))
        body = document.encode() if isinstance(document, str) else encode(document)
        self._remember(request, None, 200, "", None)
        return HTTPResponse(200, {"content-type": kind}, body)

    def _read(self, request: HTTPRequest, call: Call, fault: Fault | None) -> HTTPResponse:
        stale = fault.stale if fault is not None else None
        view, yaml = self._view(call)
        if call.verb == "list":
            body = self._reader.objects(call, view, stale)
        else:
            body = view.encode(call.endpoint, self._reader.get(call, stale))
        self._remember(request, call, 200, "", None)
        return _success(200, body, _warned(call, []), yaml=yaml)

    def _view(self, call: Call) -> tuple[WholeView, bool]:
        accept = call.request.headers.get("accept", "")
        many = call.verb in ("list", "deletecollection")
        kind = "unstructured.UnstructuredList" if call.endpoint.resource.custom else call.endpoint.info.list_name
        return negotiate(accept, call.query.get("includeObject", ""), self._clock, many=many, kind=kind)

    def _watch(self, request: HTTPRequest, call: Call, fault: Fault | None) -> HTTPResponse:
        view, _ = self._view(call)
        watch = self._reader.watch(call, view, fault.stale if fault is not None else None)
        if fault is not None and fault.expired:
            watch.expire(fault.refusal(call))
        if fault is not None and fault.stall:
            watch.stalled = True
        self._watches.add(watch)
        self._remember(request, call, 200, "", None)
        return HTTPResponse(200, _JSON, chunks=watch, on_close=watch.aclose)

    def _write(self, request: HTTPRequest, call: Call) -> HTTPResponse:
        check_size(request)
        verbs = {
            "create": self._writer.create,
            "update": self._writer.update,
            "patch": self._writer.patch,
            "delete": self._deleter.delete,
            "deletecollection": self._deleter.delete_collection,
        }
        view, yaml = self._view(call)
        written = verbs[call.verb](call)
        body = encode(written.document) if written.stored is None else view.encode(call.endpoint, written.stored)
        self._remember(request, call, written.code, "", written)
        return _success(written.code, body, _warned(call, written.warnings), yaml=yaml)

    def _refuse(self, request: HTTPRequest, call: Call | None, refusal: Refusal) -> HTTPResponse:
        self._remember(request, call, refusal.code, refusal.reason, None)
        return _refusal_response(refusal)

    # what was asked

    def _remember(
        self, request: HTTPRequest, call: Call | None, code: int, reason: str, written: Written | None
    ) -> None:
        self._answered += 1
        headers = request.headers
        common: dict[str, Any] = {
            "time": self._clock.now(),
            "method": request.method,
            "path": request.path,
            "status": code,
            "reason": reason,
            "user_agent": headers.get("user-agent", ""),
            "content_type": headers.get("content-type", ""),
        }
        if call is None:
            self._log.add(LoggedRequest(verb=request.method.lower(), **common))
            return
        info = call.endpoint.info
        before, after = (written.before, written.after) if written is not None else (None, None)
        effective = after is not None and after is not before
        name = call.name or (after.doc["metadata"]["name"] if after is not None else "")
        self._log.add(
            LoggedRequest(
                verb=call.verb,
                group=info.group,
                version=call.endpoint.version,
                resource=info.plural,
                kind=info.kind,
                namespace=call.namespace,
                name=name,
                subresource=call.subresource,
                before=before.rv if before is not None else None,
                after=after.rv if after is not None else None,
                effective=effective,
                changed=changed_paths(before.doc, after.doc)
                if effective and before is not None and after is not None
                else (),
                **common,
            )
        )

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
        stores: list[Store] = [resource.store for resource in self._cluster.registry.resources()]
        return ServerStatistics(
            objects=sum(len(store.objects) for store in stores),
            resource_version=self._cluster.revisions.current,
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
        """
        for thing in things:
            for document in documents_of(thing):
                self._apply(document)
        await asyncio.sleep(0)

    def _apply(self, document: Mapping[str, Any]) -> None:
        api_version, kind = str(document.get("apiVersion", "")), str(document.get("kind", ""))
        endpoint = self._cluster.registry.by_kind(api_version, kind)
        if endpoint is None:
            raise ConfigurationError(
                f"the embedded API server serves no kind {kind!r} in {api_version!r}: apply its CustomResourceDefinition first"
            )
        metadata = dict(document.get("metadata") or {})
        base = f"/apis/{api_version}" if endpoint.info.group else f"/api/{api_version}"
        if endpoint.info.namespaced:
            metadata.setdefault("namespace", "default")
            base += f"/namespaces/{metadata['namespace']}"
        base += f"/{endpoint.info.plural}"
        name = str(metadata.get("name") or "")
        found = endpoint.store.objects.get(endpoint.resource.key(metadata.get("namespace"), name)) if name else None
        body = {**document, "metadata": metadata}
        if found is None:
            written = self._internal("POST", base, body)
        else:
            metadata["resourceVersion"] = str(found.rv)
            written = self._internal("PUT", f"{base}/{name}", body)
        if document.get("status") and "status" in endpoint.subresources and written.stored is not None:
            metadata = {
                **metadata,
                "name": written.stored.doc["metadata"]["name"],
                "resourceVersion": str(written.stored.rv),
            }
            self._internal("PUT", f"{base}/{metadata['name']}/status", {**body, "metadata": metadata})

    def _internal(self, method: str, path: str, document: Mapping[str, Any]) -> Written:
        request = HTTPRequest(method, path, body=encode(document), headers=_JSON)
        try:
            call = route(request, self._cluster.registry)
            if call is None:
                raise ConfigurationError(f"{path} names no objects")
            return self._writer.create(call) if method == "POST" else self._writer.update(call)
        except Refusal as refusal:
            raise error_from_response(refusal.code, refusal.status(), request=f"{method} {path}") from None

    # sockets

    @property
    def token(self) -> str:
        """Return the bearer token that requests over sockets have to carry."""
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

        Raises:
            ConfigurationError: as for `url`.
        """
        name = "reconciler"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
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
        if request.headers.get("authorization") != f"Bearer {self._token}":
            return _refusal_response(Refusal(401, "Unauthorized", "Unauthorized"))
        return await self.send(request)


def _refusal_response(refusal: Refusal) -> HTTPResponse:
    if refusal.text is not None:
        return HTTPResponse(refusal.code, {"content-type": "text/plain; charset=utf-8"}, refusal.text.encode())
    headers = dict(_JSON)
    retry_after = (refusal.details or {}).get("retryAfterSeconds")
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return HTTPResponse(refusal.code, headers, encode(refusal.status()))


def _success(code: int, body: bytes, warnings: list[str], *, yaml: bool) -> HTTPResponse:
    headers = _JSON
    if yaml:
        headers, body = {"content-type": "application/yaml"}, to_yaml(body)
    if warnings:
        headers = {**headers, "warning": warnings[0]}
    return HTTPResponse(code, headers, body, warnings=warnings)


def _warned(call: Call, texts: list[str]) -> list[str]:
    """Return the Warning headers for texts, and for a version that should not be used any more."""
    if call.endpoint.warning:
        texts = [call.endpoint.warning, *texts]
    return [f'299 - "{_quoted(text)}"' for text in texts]


def _is_watch(call: Call | None) -> bool:
    return call is not None and call.verb == "watch"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


async def _let_others_run() -> None:
    # A reader needs a few turns of the loop to take a frame and act on it.
    for _ in range(8):
        await asyncio.sleep(0)
