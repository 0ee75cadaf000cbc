"""The HTTP servers of a manager: addresses from options, and handlers by path, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import re
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from reconciler._core.certificates import CertWatcher, self_signed_context
from reconciler._core.limits import Limits
from reconciler._core.user_code import cancel_and_wait
from reconciler.clock import Clock
from reconciler.errors import ConfigurationError
from reconciler.manager.endpoints.security import ACCEPTED_SECONDS, AccessRefused, EndpointSecurity, Guard
from reconciler.manager.event_loop import BlockedLoopWatchdog
from reconciler.manager.process import enlarge_stacks

if TYPE_CHECKING:
    from aiohttp import web

    from reconciler._core.server import HTTPServer

T = TypeVar("T")

_BLOCKED = 0.1
"""Seconds to wait for an event loop that is known to be blocked: it may have continued just now."""

_END = 1.0
"""Seconds for cancelled tasks to end."""

_ITERATIONS = 3
"""Iterations of the event loop in which an aborted connection is closed; two if it has TLS."""


class LoopBlocked(Exception):
    """The event loop of the manager did not run a call in time. The message says for how long and by what code."""


class MainLoop:
    """The event loop of the manager, as seen from the thread of the servers."""

    def __init__(self, watchdog: BlockedLoopWatchdog) -> None:
        self.watchdog = watchdog
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self) -> None:
        """Use the running event loop."""
        self._loop = asyncio.get_running_loop()

    async def run(self, function: Callable[[], Awaitable[T]], *, patience: float | None) -> T:
        """Run an async function in the event loop of the manager. Cancellation cancels it there.

        Args:
            function: the function.
            patience: seconds that it may wait for its start, not for its end; None for as long as it takes.

        Raises:
            LoopBlocked: it has not started in time, and will not.
        """
        begun = False

        async def call() -> T:
            nonlocal begun
            begun = True
            return await function()

        assert self._loop is not None  # noqa: S101 - attached before a server listens
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))
        try:
            if patience is not None:
                blocked = self.watchdog.block is not None
                await asyncio.wait({future}, timeout=min(patience, _BLOCKED) if blocked else patience)
            if patience is not None and not (future.done() or begun):
                raise LoopBlocked(str(self.watchdog.block or f"the event loop has not responded for {patience:g} s"))
            return await future
        finally:
            future.cancel()

    async def iterate(self, chunks: AsyncGenerator[T, None], *, seconds: float = math.inf) -> AsyncGenerator[T, None]:
        """Yield for so many seconds what a generator yields that runs in the event loop of the manager."""
        until = asyncio.get_running_loop().time() + seconds
        try:
            while (chunk := await self.run(lambda: anext(chunks, None), patience=None)) is not None:
                yield chunk
                if asyncio.get_running_loop().time() >= until:
                    break
        finally:
            await self.run(chunks.aclose, patience=None)


class LoopThread:
    """A daemon thread with an event loop of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._on_end: Callable[[], object] = lambda: None
        enlarge_stacks()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread and return its result. Cancellation cancels it there."""
        return await asyncio.wrap_future(self.start(coroutine))

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the thread, for a caller without an event loop, or whose event loop has another time."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def stop(self) -> None:
        """Cancel what still runs in the thread, and end it. Cancellation leaves it to end by itself."""
        here, ended = asyncio.get_running_loop(), asyncio.Event()
        self._on_end = lambda: here.call_soon_threadsafe(ended.set)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await ended.wait()
        self._thread.join()  # it has nothing left to do

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()
            runner.run(_end_tasks())
        with contextlib.suppress(RuntimeError):  # the event loop that waited is closed
            self._on_end()


async def _end_tasks() -> None:
    """Cancel all tasks, such as TLS handshakes in progress, and let their sockets be closed."""
    await asyncio.sleep(0)  # a connection that was accepted just now has no task yet that would close it
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END)
    for _ in range(_ITERATIONS):
        await asyncio.sleep(0)


_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]/\s]*):(?P<port>\d{1,5})")

_FORWARDED = ("forwarded", "x-forwarded-", "x-original-", "x-envoy-", "x-real-ip", "true-client-ip", "via")
"""Starts of the names of headers that a proxy adds: the connection is that of the proxy, not of the client."""

_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
"""What clients on this machine send as Host. A web page whose name resolves to this machine sends that name."""

_SHUTDOWN_SECONDS = 1.0
"""Time for open connections to end; a scrape or a probe takes milliseconds."""

_PATIENCE = 5.0
"""Seconds that a request waits for the event loop of the manager; Prometheus gives a scrape 10 s by default."""

_STREAM_SECONDS = ACCEPTED_SECONDS
"""Length of a stream whose reader had to authenticate."""

_LIMITS = Limits(connections=128, idle_seconds=120.0)
"""Prometheus scrapes at least once a minute over one connection; the kubelet opens a connection per probe."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on.

    Attributes:
        option: the option that it comes from, for messages.
        host: a host name or an IP address; ``""`` for all interfaces.
        port: the port; 0 for a free one.
    """

    option: str
    host: str
    port: int

    @classmethod
    def parse(cls, option: str, text: str) -> Address:
        """Parse ``"0.0.0.0:8080"``, ``":8080"`` or ``"[::1]:8080"``.

        Raises:
            ConfigurationError: the string is not a valid address.
        """
        match = _ADDRESS.fullmatch(str(text))
        if match is None or int(match["port"]) > 65535:
            raise ConfigurationError(
                f"{option}={text!r} is not a valid address: write 'host:port', such as '0.0.0.0:8080', '127.0.0.1:0' "
                "or ':8080'"
            )
        return cls(option, match["host"].strip("[]"), int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach it."""
        import ipaddress

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """The parts of a request that a handler needs.

    Attributes:
        path: the path after the handler's own, without slashes; may be ``""``.
        query: the pairs of the query string, in order.
        accept: the Accept header.
        local: whether it comes from this machine or, through ``kubectl port-forward``, from someone who may enter the
            pod. A request that a proxy forwarded is not local, nor is one to a name other than ``localhost``, such as
            that of a web page in a browser, nor one that a browser sends for a page of another site.
        user: the name of the user; None if clients do not authenticate.
    """

    path: str
    query: Sequence[tuple[str, str]]
    accept: str
    local: bool = False
    user: str | None = None

    @property
    def is_trusted(self) -> bool:
        """Return whether the response may contain messages of exceptions: for users, and for local requests."""
        return self.local or self.user is not None


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """The response of a handler.

    Attributes:
        body: the content. Chunks are sent as they come, until the iterator or the server ends.
    """

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[EndpointRequest], Awaitable[EndpointResponse]]


@dataclass(slots=True)
class _Server:
    address: Address
    handlers: dict[str, Handler] = field(default_factory=dict)
    open_paths: set[str] = field(default_factory=set)
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    running: HTTPServer | None = None
    url: str = ""

    @property
    def is_protected(self) -> bool:
        """Return whether it serves something that only those may read whom the guard admits."""
        return not self.open_paths.issuperset(self.handlers)


class Servers:
    """The HTTP servers of a manager, one per address. aiohttp is imported only if there is one.

    They run in a thread of their own, and so do the handlers of open paths: a probe is answered while the event loop of
    the manager is blocked. All other handlers run in that event loop.

    Args:
        clock: source of time; sockets do not work if it is virtual.
        security: TLS and authentication of the protected paths; None for neither.
        guard: admits requests to the protected paths; None for all.
    """

    def __init__(
        self, clock: Clock, main: MainLoop, security: EndpointSecurity | None = None, guard: Guard | None = None
    ) -> None:
        self._clock = clock
        self._main = main
        self._security = security
        self._guard = guard
        self._servers: list[_Server] = []
        self._thread: LoopThread | None = None
        self._background: list[asyncio.Task[None]] = []
        self._certificates: asyncio.Task[None] | None = None

    def serve(
        self,
        address: Address,
        handlers: Mapping[str, Handler],
        *,
        open_paths: Iterable[str] = (),
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Add handlers by path to the server of an address. Options with the same address and port share a server.

        Args:
            address: the address.
            handlers: each is called for its path and the paths below it; the one of ``""`` for all that no other has.
            open_paths: those that everyone may read, as the kubelet must. A server of open paths alone uses plain HTTP.
            background: runs in the event loop of the manager while the server listens, and is cancelled then.
        """
        where = address.host, address.port
        same = (each for each in self._servers if (each.address.host, each.address.port) == where)
        server = next(same, None) if address.port else None
        if server is None:
            server = _Server(address)
            self._servers.append(server)
        server.handlers.update(handlers)
        server.open_paths.update(open_paths)
        if background is not None:
            server.background.append(background)

    def url(self, option: str) -> str | None:
        """Return the URL of the server for an option, with http or https; None while it is not listening."""
        server = next((server for server in self._servers if server.address.option == option), None)
        return server.url or None if server is not None else None

    async def start(self) -> None:
        """Start listening. After a cancellation, call `stop` to close the servers that have started.

        Raises:
            ConfigurationError: an address cannot be listened on, time is virtual, or a certificate cannot be loaded.
            MissingExtra: a self-signed certificate is needed and the extra ``tls`` is not installed.
        """
        for server in self._servers:
            if getattr(self._clock, "virtual", False):
                raise ConfigurationError(
                    f"{server.address.option}={str(server.address)!r}: sockets do not work under virtual time, because "
                    "the time of other programs is real. Omit this option under virtual time"
                )
        if self._servers:
            self._main.attach()
            self._thread = LoopThread("endpoints")
            await self._thread.run(self._start())
        background = [each for server in self._servers for each in server.background]
        self._background = [asyncio.create_task(each(), name=f"endpoints {each!r}") for each in background]

    async def stop(self) -> None:
        """Stop listening, and end the thread. Cancellation leaves it to the end of the process."""
        await cancel_and_wait(self._background)
        if self._thread is not None:
            await self._thread.run(self._stop())
            await self._thread.stop()
            self._thread = None
        if self._guard is not None:
            await self._guard.close()

    async def _start(self) -> None:
        context = self._tls_context() if any(server.is_protected for server in self._servers) else None
        for server in self._servers:
            await self._start_server(server, context if server.is_protected else None)

    async def _stop(self) -> None:
        if self._certificates is not None:
            self._certificates.cancel()
        for server in self._servers:
            if server.running is not None:
                await server.running.close(_SHUTDOWN_SECONDS)

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._security is None or not self._security.tls:
            return None
        if self._security.certificates is None:
            return self_signed_context("a self-signed certificate of the endpoints")
        watcher = CertWatcher(self._security.certificates, purpose="endpoint")
        self._certificates = asyncio.create_task(watcher.follow(), name="endpoint certificates")
        return watcher.context

    async def _start_server(self, server: _Server, context: ssl.SSLContext | None) -> None:
        from reconciler._core.server import HTTPServer

        address = server.address
        server.running = HTTPServer(functools.partial(self._dispatch, server), _LIMITS)
        try:
            await server.running.start(address.host or None, address.port, context=context)
        except OSError as error:
            raise ConfigurationError(
                f"{address.option}={str(address)!r}: cannot listen on this address: {_reason(error)}. Stop the program "
                "that uses it, or choose another address"
            ) from error
        server.url = _url("http" if context is None else "https", address, server.running.addresses)

    async def _dispatch(self, server: _Server, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; called in the thread of the servers."""
        from aiohttp import web

        found = [each for each in server.handlers if request.path == each or request.path.startswith(f"{each}/")]
        if not found:
            return web.Response(status=404, text=f"404: this server serves {', '.join(server.handlers)}\n")
        path = max(found, key=len)
        if request.method not in ("GET", "HEAD"):
            return web.Response(
                status=405, text="405: only GET and HEAD are supported\n", headers={"allow": "GET, HEAD"}
            )
        accept = request.headers.get("accept", "")
        rest = request.path[len(path) :].strip("/")
        parts = EndpointRequest(rest, list(request.query.items()), accept, _is_local(request))
        authorization = request.headers.getall("authorization", [])
        try:
            response = await self._answer(server, path, request.method, authorization, parts)
        except AccessRefused as refusal:
            text = f"{refusal.status}: {refusal}\n"
            return web.Response(status=refusal.status, text=text, headers=_refusal_headers(refusal, accept))
        headers = {**response.headers, "content-type": response.content_type, "x-content-type-options": "nosniff"}
        if isinstance(response.body, bytes):
            return web.Response(status=response.status, body=response.body, headers=headers)
        async with aclosing(response.body) as chunks:
            stream = web.StreamResponse(status=response.status, headers=headers)
            await stream.prepare(request)
            if request.method != "HEAD":
                async for chunk in chunks:
                    await stream.write(chunk)
        return stream

    async def _answer(
        self, server: _Server, path: str, method: str, authorization: Sequence[str], request: EndpointRequest
    ) -> EndpointResponse:
        """Return the response of a handler.

        Raises:
            AccessRefused: the client must not have it.
        """
        handler = server.handlers[path]
        if path in server.open_paths:
            return await handler(request)

        async def admit_and_answer() -> EndpointResponse:
            if self._guard is None:
                return await handler(request)
            # Roles name the console, which has all paths that nothing else has.
            user = await self._guard.admit(method, path or "/console", authorization)
            return await handler(replace(request, user=user))

        try:
            response = await self._main.run(admit_and_answer, patience=_PATIENCE)
        except LoopBlocked as error:
            return EndpointResponse(503, f"503: {error}\n".encode())
        if isinstance(response.body, bytes):
            return response
        # A browser that was admitted asks again: its token may have been revoked.
        admitted = self._security is not None and self._security.authenticates
        seconds = _STREAM_SECONDS if admitted else math.inf
        return replace(response, body=self._main.iterate(response.body, seconds=seconds))


def _refusal_headers(refusal: AccessRefused, accept: str) -> dict[str, str]:
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    if refusal.status == 401:
        # A browser asks its user for a password only if the server names Basic.
        headers["www-authenticate"] = 'Basic realm="token", charset="UTF-8"' if "text/html" in accept else "Bearer"
    return headers


def _is_local(request: web.BaseRequest) -> bool:
    if any(name.lower().startswith(_FORWARDED) for name in request.headers):
        return False
    if not _LOCAL_HOST.fullmatch(request.headers.get("host", "")):
        return False
    # A page of another site cannot read a response, but its requests would take the place of others. A link to here may
    # be followed.
    site, mode = (request.headers.get(f"sec-fetch-{name}", "") for name in ("site", "mode"))
    if site in ("cross-site", "same-site") and mode != "navigate":
        return False
    return request.remote in ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def _reason(error: OSError) -> str:
    import os

    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


def _url(scheme: str, address: Address, addresses: list[Any]) -> str:
    # All interfaces are two sockets, each with its own free port: report the IPv4 one.
    bound = [name for name in addresses if address.host or len(name) == 2] or addresses
    port = bound[0][1]
    host = address.host or "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
