"""An HTTP/1.1 server on aiohttp, with bounds."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from reconciler._core.limits import BadBody, Limits

_log = logging.getLogger("reconciler.http")


async def read_body(request: web.BaseRequest, limits: Limits) -> bytes:
    """Read the body of a request as it was sent; a ``Content-Encoding`` is not decoded.

    Raises:
        BadBody: the body is too large, arrives too slowly, or does not have the form that its headers announce.
        ConnectionError: the client has disconnected.
    """
    too_large = BadBody(413, f"the body has more than {limits.body_bytes} bytes")
    if (request.content_length or 0) > limits.body_bytes:
        raise too_large
    if request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise BadBody(408, f"the body was not complete after {limits.body_seconds:g} s") from None
    except RuntimeError:
        if request.transport is not None:
            raise
        # aiohttp's, if the connection was lost before the handler began.
        raise ConnectionResetError("the client has disconnected") from None
    except web.RequestPayloadError:
        raise BadBody(400, "the body does not have the form that its headers announce") from None
    return bytes(body)


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HTTPServer:
    """An HTTP/1.1 server with bounds.

    Args:
        handler: returns the response to a request. Its exceptions are logged and answered with 500, except `BadBody`.
        limits: the bounds.
    """

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.limits = limits
        self._handler = handler
        self._connections: dict[_Connection, bool] = {}
        self._web = web.Server(self._serve)
        self._server: asyncio.Server | None = None
        self._closed = False
        self._watching: asyncio.TimerHandle | None = None

    async def start(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Listen on an address or a bound socket.

        Raises:
            OSError: the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        where: dict[str, Any] = {"host": host, "port": port, "reuse_address": True} if sock is None else {"sock": sock}
        seconds = self.limits.head_seconds
        tls: dict[str, Any] = {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": seconds}
        counted = context is not None and isinstance(loop, asyncio.BaseEventLoop)  # uvloop would read too early
        if context is not None and not counted:
            where |= {"ssl": context, **tls}

        def accept() -> asyncio.Protocol:
            connection = _Connection(self, self._web)
            return connection if context is None or not counted else _Handshake(self, connection, context, tls)

        self._server = await loop.create_server(accept, backlog=1024, **where)
        self._watch({})

    @property
    def addresses(self) -> list[Any]:
        """Return the addresses that the server listens on."""
        return [] if self._server is None else [each.getsockname() for each in self._server.sockets]

    def abort_connections(self) -> None:
        """Abort all connections; keep listening."""
        for connection in list(self._connections):
            connection.abort()

    async def close(self, grace: float) -> None:
        """Stop listening, let requests in progress finish, and abort all connections.

        Cancellation leaves connections to the event loop, which closes them.

        Args:
            grace: seconds for requests in progress.
        """
        self._closed = True
        if self._server is not None:
            # asyncio leaks a connection that it has accepted, and not set up yet, when its server is closed.
            for each in self._server.sockets:
                asyncio.get_running_loop().remove_reader(each.fileno())
            await asyncio.sleep(0)
            self._server.close()
            self._server = None
        if self._watching is not None:
            self._watching.cancel()
        connections = list(self._connections)
        self._web.pre_shutdown()
        await self._web.shutdown(grace)
        # A closing connection waits for its client to read the response, or to end TLS.
        for connection in connections:
            connection.abort()
        await asyncio.sleep(0)  # for the loop to close the sockets

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)  # noqa: S101 - the factory makes no others
        connection.begin_request()
        self._connections[connection] = True
        try:
            try:
                response = await self._handler(request)
            except BadBody as error:
                response = web.Response(status=error.status, text=f"{error}\n")
                response.force_close()
            # Written here, so that a connection is not idle before its response is sent.
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            if not connection.is_closing:
                raise
            # The client has disconnected. aiohttp closes the connection of a cancelled handler silently.
            raise asyncio.CancelledError from None
        else:
            return response
        finally:
            if self._connections.pop(connection, None) is not None:
                self._connections[connection] = False  # the most recent of the idle ones

    def register(self, connection: _Connection) -> bool:
        """Register a connection; return False if there is no room for it, or the server has closed in the meantime."""
        if self._closed:
            return False
        if len(self._connections) >= self.limits.connections:
            idle = next((each for each, busy in self._connections.items() if not busy), None)
            if idle is None:
                return False
            self.unregister(idle)
            idle.abort()
        self._connections[connection] = False
        return True

    def is_busy(self, connection: _Connection) -> bool:
        """Return whether a request of the connection is in progress."""
        return self._connections.get(connection, False)

    def unregister(self, connection: _Connection) -> None:
        """Unregister a connection."""
        self._connections.pop(connection, None)

    def _watch(self, before: dict[_Connection, tuple[int, float]]) -> None:
        """Abort connections whose client does not read, and schedule the next check."""
        loop, seconds = asyncio.get_running_loop(), self.limits.stalled_seconds
        now = loop.time()
        unread: dict[_Connection, tuple[int, float]] = {}
        for connection in list(self._connections):
            size = connection.unread
            known, since = before.get(connection, (size + 1, now))
            if not size:
                continue
            unread[connection] = (size, since if size >= known else now)
            if now - unread[connection][1] >= seconds:
                connection.reset()
        self._watching = loop.call_later(seconds / 4, self._watch, unread)


class _Handshake(asyncio.Protocol):
    """The TLS handshake of a new connection.

    Args:
        server: the server.
        connection: gets what the client sends after the handshake.
        context: the TLS context.
        options: the timeouts.
    """

    def __init__(
        self, server: HTTPServer, connection: _Connection, context: ssl.SSLContext, options: dict[str, Any]
    ) -> None:
        self._server = server
        self._connection = connection
        self._context = context
        self._options = options
        self._received: list[bytes] = []  # after the handshake, before the connection knows of its end
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connection.accept(transport):
            cast("asyncio.Transport", transport).pause_reading()  # the first bytes are those of the handshake
            self._task = asyncio.get_running_loop().create_task(self._run(cast("asyncio.Transport", transport)))

    def data_received(self, data: bytes) -> None:
        self._received.append(data)

    async def _run(self, transport: asyncio.Transport) -> None:
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                transport, self, self._context, server_side=True, **self._options
            )
        except OSError:  # ssl.SSLError and TimeoutError, too: the client does not speak TLS, or has left
            encrypted = None
        if encrypted is None:
            self._server.unregister(self._connection)
            transport.abort()
            return
        encrypted.set_protocol(self._connection)
        self._connection.connection_made(encrypted)
        for data in self._received:
            self._connection.data_received(data)


class _Connection(web.RequestHandler):
    """The connection of one client."""

    __slots__ = ("_head", "_server", "_socket")

    def __init__(self, server: HTTPServer, manager: web.Server) -> None:
        limits = server.limits
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as the runner of aiohttp passes it
            auto_decompress=False,
            keepalive_timeout=limits.idle_seconds,
            lingering_time=limits.head_seconds,
            max_line_size=limits.line_bytes,
            max_field_size=limits.line_bytes,
        )
        self._server = server
        self._socket: asyncio.Transport | None = None
        self._head: asyncio.TimerHandle | None = None

    @property
    def unread(self) -> int:
        """Return how many bytes the client has not read yet."""
        return 0 if self._socket is None else self._socket.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """Return whether nothing more can be sent."""
        return self._socket is None or self._socket.is_closing()

    def abort(self) -> None:
        """Close the connection without sending what is buffered."""
        if self._socket is not None:
            self._socket.abort()

    def reset(self) -> None:
        """Close the connection, and make the kernel discard what the client does not read."""
        if self._socket is not None:
            linger = struct.pack("ii", 1, 0)
            self._socket.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._socket.abort()

    def begin_request(self) -> None:
        """Called when the request line and headers are complete."""
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def force_close(self) -> None:
        if self.is_closing:
            self.transport = None  # closed twice, a TLS transport of asyncio waits for its client, even when aborted
        super().force_close()

    def accept(self, transport: asyncio.BaseTransport) -> bool:
        """Take a place among the connections of the server; return False, and close the connection, if there is none.

        A connection has its place before its TLS handshake: otherwise handshakes would be unlimited.
        """
        self._socket = cast("asyncio.Transport", transport)  # by its methods: uvloop's are of another class
        if not self._server.register(self):
            self.abort()
            return False
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._socket is not None:  # of the handshake
            self._socket = cast("asyncio.Transport", transport)
        elif not self.accept(transport):
            return
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.begin_request()
        self._server.unregister(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head is None and not self._server.is_busy(self):
            self._expect_head()
        super().data_received(data)

    def _expect_head(self) -> None:
        self._head = asyncio.get_running_loop().call_later(self._server.limits.head_seconds, self.abort)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client's bytes
    ) -> web.StreamResponse:
        """Answer an invalid request, or one whose handler failed."""
        self.begin_request()
        if status < 500:
            limit = self._server.limits.line_bytes
            text = f"{status}: not a valid HTTP/1.1 request, or a line of it has more than {limit} bytes\n"
        else:
            _log.error("%s %r failed", request.method, request.path, exc_info=exc)
            if request.writer.output_size > 0:
                raise ConnectionError("the response has already started")
            text = f"{status}: the request failed; see the log of the process\n"
        response = web.Response(status=status, text=text)
        response.force_close()
        return response
