"""The HTTP servers of a manager: addresses from options, and handlers by path."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.clock import Clock
from reconciler.errors import ConfigurationError
from reconciler.serving import Limits

if TYPE_CHECKING:
    from aiohttp import web

    from reconciler.serving.server import HTTPServer

__all__ = ["Address", "EndpointRequest", "EndpointResponse", "Handler", "Servers"]

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]/\s]*):(?P<port>\d{1,5})")

_FORWARDED = ("forwarded", "x-forwarded-", "x-original-", "x-envoy-", "x-real-ip", "true-client-ip", "via")
"""Starts of the names of headers that a proxy adds: the connection is that of the proxy, not of the client."""

_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
"""What clients on this machine send as Host. A web page whose name resolves to this machine sends that name."""

_SHUTDOWN_SECONDS = 1.0
"""Time for open connections to end; a scrape or a probe takes milliseconds."""

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
            that of a web page in a browser.
    """

    path: str
    query: Sequence[tuple[str, str]]
    accept: str
    local: bool = False


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """The response of a handler.

    Attributes:
        status: the HTTP status.
        body: the content. Chunks are sent as they come, until the iterator or the server ends.
        content_type: the media type.
        headers: further headers.
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
    background: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    running: HTTPServer | None = None
    url: str = ""


class Servers:
    """The HTTP servers of a manager, one per address. aiohttp is imported only if there is one.

    Args:
        clock: source of time; sockets do not work if it is virtual.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._servers: list[_Server] = []

    def serve(
        self,
        address: Address,
        handlers: Mapping[str, Handler],
        *,
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Add handlers by path to the server of an address. Options with the same address and port share a server.

        Args:
            address: the address.
            handlers: each is called for its path and the paths below it; the one of ``""`` for all that no other has.
            background: runs while the server listens, and is cancelled then.
        """
        for server in self._servers:
            if (server.address.host, server.address.port) == (address.host, address.port) and address.port:
                break
        else:
            server = _Server(address)
            self._servers.append(server)
        server.handlers.update(handlers)
        if background is not None:
            server.background.append(background)

    def url(self, option: str) -> str | None:
        """Return ``http://host:port`` of the server for an option; None while it is not listening."""
        server = next((server for server in self._servers if server.address.option == option), None)
        return server.url or None if server is not None else None

    async def start(self) -> None:
        """Start listening. After a cancellation, call `stop` to close the servers that have started.

        Raises:
            ConfigurationError: an address cannot be listened on, or time is virtual.
        """
        for server in self._servers:
            await self._start_server(server)

    async def stop(self) -> None:
        """Stop listening. Cancellation leaves open sockets to the event loop, which closes them."""
        for server in self._servers:
            for task in server.tasks:
                task.cancel()
            if server.running is not None:
                await server.running.close(_SHUTDOWN_SECONDS)

    async def _start_server(self, server: _Server) -> None:
        address = server.address
        if getattr(self._clock, "virtual", False):
            raise ConfigurationError(
                f"{address.option}={str(address)!r}: sockets do not work under virtual time, because the time of other "
                "programs is real. Omit this option under virtual time"
            )
        from reconciler.serving.server import HTTPServer

        server.running = HTTPServer(_dispatcher(server.handlers), _LIMITS)
        try:
            await server.running.start(address.host or None, address.port)
        except OSError as error:
            raise ConfigurationError(
                f"{address.option}={str(address)!r}: cannot listen on this address: {_reason(error)}. Stop the program "
                "that uses it, or choose another address"
            ) from error
        server.url = _url(address, server.running.addresses)
        server.tasks = [asyncio.create_task(each(), name=f"{address.option} {each!r}") for each in server.background]


def _dispatcher(handlers: Mapping[str, Handler]) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    from aiohttp import web

    async def dispatch(request: web.BaseRequest) -> web.StreamResponse:
        found = [each for each in handlers if request.path == each or request.path.startswith(f"{each}/")]
        if not found:
            return web.Response(status=404, text=f"404: this server serves {', '.join(handlers)}\n")
        path = max(found, key=len)
        if request.method not in ("GET", "HEAD"):
            return web.Response(
                status=405, text="405: only GET and HEAD are supported\n", headers={"allow": "GET, HEAD"}
            )
        rest = request.path[len(path) :].strip("/")
        accept = request.headers.get("accept", "")
        response = await handlers[path](EndpointRequest(rest, list(request.query.items()), accept, _is_local(request)))
        headers = {**response.headers, "content-type": response.content_type, "x-content-type-options": "nosniff"}
        if isinstance(response.body, bytes):
            return web.Response(status=response.status, body=response.body, headers=headers)
        if request.method == "HEAD":
            return web.Response(status=response.status, headers=headers)
        stream = web.StreamResponse(status=response.status, headers=headers)
        async with aclosing(response.body) as chunks:
            await stream.prepare(request)
            async for chunk in chunks:
                await stream.write(chunk)
        return stream

    return dispatch


def _is_local(request: web.BaseRequest) -> bool:
    if any(name.lower().startswith(_FORWARDED) for name in request.headers):
        return False
    if not _LOCAL_HOST.fullmatch(request.headers.get("host", "")):
        return False
    return request.remote in ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def _reason(error: OSError) -> str:
    import os

    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


def _url(address: Address, addresses: list[Any]) -> str:
    # All interfaces are two sockets, each with its own free port: report the IPv4 one.
    bound = [name for name in addresses if address.host or len(name) == 2] or addresses
    port = bound[0][1]
    host = address.host or "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
