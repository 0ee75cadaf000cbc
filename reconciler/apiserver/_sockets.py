"""Listen on loopback and carry requests to the server."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from reconciler.clock import Clock
from reconciler.errors import ConfigurationError, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Listener"]

_MOST_BODY = 3 * 1024 * 1024


class Listener:
    """Serve a handler over HTTP/1.1.

    Args:
        handler: answers a request.
        clock: tells whether time is virtual, where sockets cannot work.
    """

    def __init__(self, handler: Callable[[HTTPRequest], Awaitable[HTTPResponse]], clock: Clock) -> None:
        self._handler = handler
        self._clock = clock
        self._url = ""
        self._address = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._web: web.Server | None = None
        self._starting: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Return the address; listen on a free port if nothing listens yet."""
        if not self._url:
            self._bind("127.0.0.1", 0)
            # The socket takes connections from now on; the loop accepts them as soon as it runs.
            self._begin()
        return self._url

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve on this loop, also when the first use of `url` is in another thread."""
        self._loop = loop

    def _begin(self) -> None:
        loop = _running_loop()
        if loop is not None and loop is self._loop:
            self._starting = loop.create_task(self._start())
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin)

    async def listen(self, host: str, port: int) -> str:
        """Listen on an address and return the URL; where it listens already is as good as any free port."""
        if self._url:
            if port or _loopback(host) != self._address:
                raise ConfigurationError(
                    f"the embedded API server listens on {self._url} already: call listen() before the first use of url"
                )
            if self._starting is not None:
                await self._starting
            return self._url
        self._bind(host, port)
        await self._start()
        return self._url

    def _bind(self, host: str, port: int) -> None:
        if getattr(self._clock, "virtual", False):
            raise ConfigurationError(
                "sockets do not work under virtual time, because other programs' time is real: "
                "hand the server itself to the client, or run without virtual time"
            )
        if self._loop is None:
            raise ConfigurationError("listening needs a running event loop: use url inside 'async with'")
        self._address = address = _loopback(host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address, port))
            bound.listen(1024)
        except (OSError, OverflowError) as error:
            bound.close()
            # Python refuses by an OverflowError what is no port at all, before the system is asked.
            why = error.strerror if isinstance(error, OSError) else "ports are numbers from 0 to 65535"
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {why}; stop what uses the port, or choose port 0 for a free one"
            ) from error
        bound.setblocking(False)
        self._socket = bound
        shown = f"[{address}]" if family == socket.AF_INET6 else address
        self._url = f"http://{shown}:{bound.getsockname()[1]}"

    async def _start(self) -> None:
        from aiohttp import web

        assert self._socket is not None  # noqa: S101 - bound by the caller
        self._web = web.Server(self._serve, access_log=None)
        self._server = await asyncio.get_running_loop().create_server(self._web, sock=self._socket, backlog=1024)

    def break_off(self) -> None:
        """Break all open connections off; go on listening."""
        for connection in [] if self._web is None else self._web.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def close(self) -> None:
        """Stop to listen and break open connections off.

        Cancellation leaves the socket closed and connections to the loop.
        """
        self._loop = None
        if self._starting is not None:
            await self._starting
            self._starting = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._web is not None:
            # Idle connections end at once; only requests under way get the second.
            self._web.pre_shutdown()
            await self._web.shutdown(timeout=1.0)
            self._web = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._url = ""

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        body = await request.content.read(-1) if request.body_exists else b""
        asked = HTTPRequest(
            request.method,
            request.raw_path.partition("?")[0],
            query=tuple(request.query.items()),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            stream=True,
        )
        try:
            answer = await self._handler(asked)
        except OutcomeUnknown:
            # A handler that is cancelled makes aiohttp close the connection without an answer.
            raise asyncio.CancelledError from None
        if answer.chunks is None:
            response = web.Response(status=answer.status, body=answer.body)
            _set_headers(response, answer)
            return response
        return await _stream(request, answer)


def _loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise ConfigurationError(f"the embedded API server listens on loopback only, not on {host}: use 127.0.0.1")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _set_headers(response: web.StreamResponse, answer: HTTPResponse) -> None:
    for name, value in answer.headers.items():
        if name != "warning":
            response.headers[name] = value
    for warning in answer.warnings:
        response.headers.add("warning", warning)


async def _stream(request: web.BaseRequest, answer: HTTPResponse) -> web.StreamResponse:
    from aiohttp import web

    response = web.StreamResponse(status=answer.status)
    _set_headers(response, answer)
    response.enable_chunked_encoding()
    await response.prepare(request)
    assert answer.chunks is not None  # noqa: S101 - asked by the caller
    try:
        async for chunk in answer.chunks:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        pass
    finally:
        await answer.close()
    return response
