"""Listen on addresses that options name, and serve a few fixed paths there."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.clock import Clock
from reconciler.errors import ConfigurationError
from reconciler.serving import Limits

if TYPE_CHECKING:
    from aiohttp import web

    from reconciler.serving.server import HTTPServer

__all__ = ["Address", "Answer", "Asked", "Handler", "Servers"]

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]/\s]*):(?P<port>\d{1,5})")

_SHUTDOWN_SECONDS = 1.0
"""For open connections to end; a scrape or a probe takes milliseconds."""

_LIMITS = Limits(connections=128, idle_seconds=120.0)
"""Prometheus scrapes once a minute or more often over one connection, and the kubelet opens one for each probe."""


@dataclass(frozen=True, slots=True)
class Address:
    """Hold where to listen and which option says so.

    Attributes:
        option: the option's name, for messages.
        host: a name or an IP address; ``""`` for all interfaces.
        port: 0 for a free one.
    """

    option: str
    host: str
    port: int

    @classmethod
    def parse(cls, option: str, text: str) -> Address:
        """Read ``"0.0.0.0:8080"``, ``":8080"`` or ``"[::1]:8080"``.

        Raises:
            ConfigurationError: the text is none of these.
        """
        match = _ADDRESS.fullmatch(str(text))
        if match is None or int(match["port"]) > 65535:
            raise ConfigurationError(
                f"{option}={text!r} is no address: write 'host:port', such as '0.0.0.0:8080', '127.0.0.1:0' or ':8080'"
            )
        return cls(option, match["host"].strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold what a handler needs of a request.

    Attributes:
        path: the rest of the path after the handler's own, without slash; ``""`` for none.
        query: the query's pairs, in order.
        accept: the Accept header.
    """

    path: str
    query: Sequence[tuple[str, str]]
    accept: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what a handler answers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Handler = Callable[[Asked], Awaitable[Answer]]


@dataclass(slots=True)
class _Server:
    address: Address
    handlers: dict[str, Handler] = field(default_factory=dict)
    running: HTTPServer | None = None
    url: str = ""


class Servers:
    """Be the HTTP servers of a manager, one an address; aiohttp's server is loaded when there is one.

    Args:
        clock: tells whether time is virtual, where sockets cannot work.
        limits: the bounds of each server.
    """

    def __init__(self, clock: Clock, limits: Limits = _LIMITS) -> None:
        self._clock = clock
        self._limits = limits
        self._servers: list[_Server] = []

    def serve(self, address: Address, handlers: Mapping[str, Handler]) -> None:
        """Serve paths on an address; two options may name the same one, unless it is a free port."""
        for server in self._servers:
            if (server.address.host, server.address.port) == (address.host, address.port) and address.port:
                server.handlers.update(handlers)
                return
        self._servers.append(_Server(address, dict(handlers)))

    def url(self, option: str) -> str | None:
        """Return ``http://host:port`` of the server that serves an option's paths; None while there is none."""
        server = next((server for server in self._servers if server.address.option == option), None)
        return server.url or None if server is not None else None

    async def start(self) -> None:
        """Listen. Cancellation leaves what listens already to `stop`.

        Raises:
            ConfigurationError: an address cannot be used, or time is virtual.
        """
        for server in self._servers:
            await self._start(server)

    async def stop(self) -> None:
        """Stop to listen. Cancellation leaves sockets to the event loop, which closes them."""
        for server in self._servers:
            if server.running is not None:
                await server.running.close(_SHUTDOWN_SECONDS)

    async def _start(self, server: _Server) -> None:
        address = server.address
        if getattr(self._clock, "virtual", False):
            raise ConfigurationError(
                f"{address.option}={str(address)!r}: sockets do not work under virtual time, because other programs' "
                "time is real. Leave the option out there"
            )
        from reconciler.serving.server import HTTPServer

        server.running = HTTPServer(_dispatcher(server.handlers), self._limits)
        try:
            await server.running.start(address.host or None, address.port)
        except OSError as error:
            raise ConfigurationError(
                f"{address.option}={str(address)!r}: cannot listen there: {_why(error)}. Stop what uses it, or choose "
                "another address"
            ) from error
        server.url = _url(address, server.running.addresses)


def _dispatcher(handlers: Mapping[str, Handler]) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    from aiohttp import web

    async def dispatch(request: web.BaseRequest) -> web.Response:
        path = next((p for p in handlers if request.path == p or request.path.startswith(f"{p}/")), None)
        if path is None:
            return web.Response(status=404, text=f"404: serving {', '.join(handlers)}\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="405: only GET\n", headers={"allow": "GET, HEAD"})
        rest = request.path[len(path) :].strip("/")
        answer = await handlers[path](Asked(rest, list(request.query.items()), request.headers.get("accept", "")))
        headers = {"content-type": answer.content_type, "x-content-type-options": "nosniff"}
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    return dispatch


def _why(error: OSError) -> str:
    import os

    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)


def _url(address: Address, addresses: list[Any]) -> str:
    # All interfaces are two sockets, and a free port is another one for each: the pair of IPv4 is meant.
    bound = [name for name in addresses if address.host or len(name) == 2] or addresses
    port = bound[0][1]
    host = address.host or "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
