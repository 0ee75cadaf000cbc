"""One HTTP/1.1 connection: a request at a time, its response whole or as a stream."""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import cast

from reconciler.client.transport.http11 import MAX_BODY, Head, MalformedResponse, ResponseReader

__all__ = ["HTTPConnection"]

_MAX_BUFFERED = 2**21
"""Bytes of a stream that wait for their reader before the socket is paused: a few of the largest objects (etcd accepts
1.5 MiB)."""


class HTTPConnection(asyncio.Protocol):
    """A connection to a server, or through a proxy's tunnel.

    Args:
        limit: the largest body in bytes that is read whole.

    Attributes:
        usable: whether it can take a request.
        idle_since: the loop's time when the last response was complete.
    """

    def __init__(self, limit: int = MAX_BODY) -> None:
        self.usable = False
        self.idle_since = 0.0
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._reader: ResponseReader | None = None
        self._whole = True
        self._waiter: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None
        self._paused = False

    async def tunnel(self, request: bytes, tls: ssl.SSLContext, server_name: str | None) -> None:
        """Ask a proxy for a tunnel to the server, and start TLS through it.

        After cancellation or an error, the connection is unusable: `abort` it.

        Args:
            request: the CONNECT request.
            tls: how to speak TLS to the server.
            server_name: the name that the server's certificate must be valid for.

        Raises:
            OSError: the proxy refused, its response is malformed, or TLS failed.
        """
        self._reader, self._whole = ResponseReader("CONNECT", limit=self._limit), False
        self._transport.write(request)
        head = await self._head()
        if not 200 <= head.status < 300:
            raise ConnectionRefusedError(f"the proxy answered {head.status}")
        if self._reader.surplus:
            raise MalformedResponse("the proxy sent data before the tunnel was used")
        self._reader = None
        transport = await self._loop.start_tls(self._transport, self, tls, server_hostname=server_name)
        self._transport = cast("asyncio.Transport", transport)

    async def exchange(self, method: str, data: bytes, *, whole: bool, timeout: float | None) -> Head:  # noqa: ASYNC109 - see _expire
        """Send a request and wait for its whole response; or, for a stream, for the head of a successful response.

        After cancellation or an error, the connection is unusable: `abort` it.

        Args:
            method: the request's method.
            data: the whole request.
            whole: wait for the body of a successful response too.
            timeout: seconds for all of it; None for no limit.

        Raises:
            OSError: the connection broke, the response is malformed or too large (`MalformedResponse`), or the time is
                up (TimeoutError).
        """
        self._reader, self._whole = ResponseReader(method, limit=self._limit, stream=not whole), whole
        # Not asyncio.timeout, which costs as much as the rest of an exchange.
        timer = None if timeout is None else self._loop.call_later(timeout, self._expire)
        try:
            self._transport.write(data)
            head = await self._head()
            if not (whole or 200 <= head.status < 300):
                self._whole = True
                await self._head()
        finally:
            if timer is not None:
                timer.cancel()
        return head

    def body(self) -> bytes:
        """Return the part of the body that has arrived since the last call."""
        assert self._reader is not None  # noqa: S101 - there is a response
        parts = self._reader.body
        found = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return found

    async def chunk(self) -> bytes:
        """Wait for the next bytes of a stream and return them; ``b""`` at its end. Cancellation has no effect.

        Raises:
            OSError: the connection broke.
        """
        reader = self._reader
        assert reader is not None  # noqa: S101 - there is a response
        while not reader.body:
            if reader.done:
                return b""
            await self._more()
        return self.body()

    def release(self) -> bool:
        """End the exchange, and return whether the connection can take another request."""
        reader, self._reader = self._reader, None
        complete = reader is not None and reader.done and not reader.surplus and reader.head is not None
        # If the response came before the whole request was sent, the server would read the rest as the next request.
        sent = self._lost is None and not self._transport.is_closing() and not self._transport.get_write_buffer_size()
        self.usable = complete and sent and reader.head.keeps_alive  # type: ignore[union-attr]
        if self.usable:
            self.idle_since = self._loop.time()
        else:
            self.abort()
        return self.usable

    def is_quiet(self) -> bool:
        """Return whether a request can be sent: since the last response, neither bytes nor the end have arrived.

        The loop may not have read them yet. They would be taken for the response to the next request.
        """
        return self.usable and not _has_input(self._transport.get_extra_info("socket").fileno())

    def abort(self) -> None:
        """Drop the connection at once. A TLS shutdown would outlive the call, and then the loop."""
        self.usable = False
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the connection is made."""
        self._transport = cast("asyncio.Transport", transport)  # by its methods: uvloop's are of another class
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Called when bytes arrive. Bytes that were not requested end the connection: the two sides disagree."""
        reader = self._reader
        if reader is None:
            self.abort()
            return
        try:
            reader.feed(data)
        except MalformedResponse as error:
            self._lose(error)
            self.abort()
            return
        if reader.done or (reader.head is not None and not self._whole):
            self._wake()
            if not self._whole and not self._paused and sum(map(len, reader.body)) > _MAX_BUFFERED:
                self._paused = True
                self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection has ended."""
        self.usable = False
        try:
            complete = self._reader is not None and exc is None and self._reader.finish()
        except MalformedResponse as error:
            complete, exc = False, error
        if not complete:
            self._lose(exc or ConnectionResetError("the server closed the connection"))
        self._wake()

    def _expire(self) -> None:
        self._lose(TimeoutError())

    async def _head(self) -> Head:
        reader = self._reader
        assert reader is not None  # noqa: S101 - a request was sent
        while reader.head is None or (self._whole and not reader.done):
            await self._more()
        return reader.head

    async def _more(self) -> None:
        if self._lost is not None:
            raise self._lost
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _lose(self, error: BaseException) -> None:
        if self._lost is None:
            self._lost = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _has_input(fd: int) -> bool:
    if hasattr(select, "poll"):  # select() is limited to descriptors below 1024
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([fd], [], [], 0)[0])
