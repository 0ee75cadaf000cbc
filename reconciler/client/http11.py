"""HTTP/1.1: a connection for one request at a time, and a strict parser of responses with a limit on everything.

The parser is written here because of what it must refuse. ``httptools`` hides the size line of a chunk, so neither its
length nor the size in it can be limited there. It also costs more: with the same checks on headers and bodies, a
response with seven headers takes 7.5 µs instead of 5.0 µs, because each header is a call back into Python.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import select
import ssl
import zlib
from collections import deque
from typing import NamedTuple, cast

MAX_BODY = 2**28
"""The largest body that is read whole, in decompressed bytes: 256 MiB. A page of 500 objects of the usual size has a
few MiB. A compressed bomb of a few kilobytes has no limit of its own."""

_MAX_HEAD = 2**16
"""Bytes of the status line and the headers, and of the trailers. For requests, net/http's server allows 1 MiB."""

_MAX_FIELDS = 256

_MAX_INTERIM = 16
"""Interim responses (1xx) before the final one."""

_MAX_SIZE_LINE = 2**12

_BODILESS = frozenset({204, 304})

_once = frozenset({"content-length", "transfer-encoding", "content-encoding"})
_is_status_line = re.compile(r"HTTP/1\.[01] [1-5][0-9][0-9]( [^\x00-\x08\x0a-\x1f\x7f]*)?").fullmatch
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_value = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch
_is_length = re.compile(r"[0-9]{1,18}").fullmatch
_chunk_size = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?").fullmatch
_has_bare_line_feed = re.compile(rb"(?<!\r)\n").search


class MalformedResponse(ConnectionError):
    """The error for a response that is not valid HTTP/1.1, or exceeds a limit."""


class BodyTooLarge(MalformedResponse):
    """The error for a body that is larger than its limit."""

    def __init__(self, limit: float) -> None:
        super().__init__(
            f"the body is larger than {limit:.0f} bytes: read smaller pages (limit=), or raise max_response_bytes"
        )


class Head(NamedTuple):
    """Status and headers of a response.

    Attributes:
        status: the status code.
        headers: the last value of each header; names in lower case.
        warnings: all values of ``Warning``.
        keeps_alive: whether the connection can be used for another request.
    """

    status: int
    headers: dict[str, str]
    warnings: tuple[str, ...]
    keeps_alive: bool


@functools.lru_cache(maxsize=256)  # eight of ten lines are the same as in the previous response
def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not (colon and _is_name(name) and _is_value(value)):
        raise MalformedResponse("a malformed header line")
    return name.lower(), value.strip()


class ResponseReader:
    """A parser for one response, which is fed the bytes as they arrive.

    Args:
        method: of the request. A response to HEAD has no body; a successful one to CONNECT neither.
        limit: the largest decompressed body in bytes.
        stream: the body of a successful response is consumed as it arrives. It has no limit and must not be compressed.

    Attributes:
        head: None until it is complete.
        body: the parts of the body that arrived and were not consumed yet.
        done: the response is complete.
        surplus: bytes arrived after the response.
    """

    def __init__(self, method: str, *, limit: int = MAX_BODY, stream: bool = False) -> None:
        self.head: Head | None = None
        self.body: deque[bytes] = deque()
        self.done = False
        self.surplus = False
        self._method = method
        self._limit: float = limit
        self._stream = stream
        self._size = 0  # bytes of the decompressed body so far
        self._interim = 0
        self._trailers = 0
        self._pending = b""
        self._left = 0  # bytes of the body, or of its chunk, that are missing
        self._chunked = False
        self._until_eof = False
        self._in_chunk = False
        self._after_last = False
        self._unzip: zlib._Decompress | None = None

    def feed(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises:
            MalformedResponse: they are not valid HTTP/1.1, or exceed a limit.
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        while self.head is None:
            if not data:
                return
            end = data.find(b"\r\n\r\n")
            if (end if end >= 0 else len(data)) > _MAX_HEAD:
                raise MalformedResponse(f"the headers are longer than {_MAX_HEAD // 2**10} KiB")
            if end < 0:
                self._keep_head(data)
                return
            self._begin(data[:end])
            data = data[end + 4 :]
        if self.done:
            self.surplus = self.surplus or bool(data)
        elif self._chunked:
            self._take_chunks(data)
        elif data:
            self._take(data)

    def finish(self) -> bool:
        """Parse the end of the connection, and return whether the response is complete.

        Raises:
            MalformedResponse: a compressed body is truncated.
        """
        if self._until_eof and self.head is not None and not self.done:
            self._end()
        return self.done

    def _keep_head(self, data: bytes) -> None:
        """Keep the beginning of a response. One that cannot become valid is refused now, not when the time is up."""
        if not (data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(data)):
            raise MalformedResponse("the response is not HTTP/1.1")
        if _has_bare_line_feed(data):
            raise MalformedResponse("a line feed without a carriage return")
        self._pending = data

    def _begin(self, text: bytes) -> None:
        first, *lines = text.decode("latin-1").split("\r\n")
        if not _is_status_line(first):
            raise MalformedResponse("the response is not HTTP/1.1")
        if len(lines) > _MAX_FIELDS:
            raise MalformedResponse(f"there are more than {_MAX_FIELDS} headers")
        status = int(first[9:12])
        headers: dict[str, str] = {}
        warnings: list[str] = []
        for line in lines:
            name, value = _field(line)
            if name == "warning":
                warnings.append(value)
            elif name in headers and name in _once and headers[name] != value:
                raise MalformedResponse(f"there are two different values of {name}")
            elif name in headers and name == "connection":
                value = f"{headers[name]}, {value}"
            headers[name] = value
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _MAX_INTERIM:
                raise MalformedResponse(
                    "the server switches protocols" if status == 101 else "too many interim responses"
                )
            return
        connection = headers.get("connection", "").lower()
        old = first.startswith("HTTP/1.0")
        keeps_alive = "keep-alive" in connection if old else "close" not in connection
        self._frame(status, headers, old=old)
        self.head = Head(status, headers, tuple(warnings), keeps_alive and not self._until_eof)

    def _frame(self, status: int, headers: dict[str, str], *, old: bool) -> None:
        length, transfer = headers.get("content-length"), headers.get("transfer-encoding")
        if length is not None and not _is_length(length):
            raise MalformedResponse("the content-length is not a number")
        if transfer is not None and (old or length is not None or transfer.lower() != "chunked"):
            raise MalformedResponse("the transfer-encoding is not chunked, or there is a content-length too")
        if self._method == "HEAD" or status in _BODILESS or (self._method == "CONNECT" and status < 300):
            self.done = True
            return
        if self._stream and status < 300:
            self._limit = math.inf
        coding = headers.get("content-encoding", "identity").lower()
        if coding == "gzip" and self._limit < math.inf:
            self._unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        elif coding != "identity":
            raise MalformedResponse("the content-encoding was not requested")
        self._left = int(length or "0")
        self._check_size(self._left)
        self._chunked = transfer is not None
        self._until_eof = transfer is None and length is None
        self.done = length is not None and not self._left

    def _take(self, data: bytes) -> None:
        if self._until_eof:
            self._add(data)
            return
        self.surplus = len(data) > self._left
        self._add(data[: self._left])
        self._left -= min(self._left, len(data))
        if not self._left:
            self._end()

    def _take_chunks(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                self._add(part)
                self._left -= len(part)
                at += len(part)
                if not self._left and data.startswith(b"\r\n", at):
                    self._in_chunk = False
                    at += 2
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep_line(data[at:])
                return
            line, at = data[at:end], end + 2
            self._line(line)
            if self.done:
                self.surplus = at < len(data)
                return

    def _keep_line(self, data: bytes) -> None:
        if self._in_chunk and data != b"\r":
            raise MalformedResponse("a chunk is longer than its size")
        if _has_bare_line_feed(data):
            raise MalformedResponse("a line feed without a carriage return")
        if len(data) > _MAX_SIZE_LINE:
            raise MalformedResponse("the size line of a chunk is too long")
        self._pending = data

    def _line(self, line: bytes) -> None:
        """Parse a line between chunks."""
        if self._after_last and line:  # trailers, up to an empty line
            self._trailers += len(line)
            if self._trailers > _MAX_HEAD:
                raise MalformedResponse("too many trailers")
            _field(line.decode("latin-1"))
        elif self._after_last:
            self._end()
        elif self._in_chunk and line:
            raise MalformedResponse("a chunk is longer than its size")
        elif self._in_chunk:
            self._in_chunk = False
        else:
            size = _chunk_size(line) if len(line) <= _MAX_SIZE_LINE else None
            if size is None:
                raise MalformedResponse("the size of a chunk is invalid")
            self._left = int(size[1], 16)
            self._check_size(self._size + self._left if self._unzip is None else self._left)
            self._in_chunk = self._left > 0
            self._after_last = not self._in_chunk

    def _add(self, data: bytes) -> None:
        if self._unzip is not None:
            try:
                data = self._unzip.decompress(data, int(self._limit) - self._size + 1)
            except zlib.error:
                raise MalformedResponse("the compressed body is corrupt") from None
            if self._unzip.unused_data:
                raise MalformedResponse("there is data after the compressed body")
        self._size += len(data)
        if self._size > self._limit:
            raise BodyTooLarge(self._limit)
        if data:
            self.body.append(data)

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise BodyTooLarge(self._limit)

    def _end(self) -> None:
        if self._unzip is not None and not self._unzip.eof:
            raise MalformedResponse("the compressed body is truncated")
        self.done = True


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
        self._deadline = math.inf  # the loop's time at which the exchange in progress must have ended
        self._timer: asyncio.Handle | None = None  # it fires at the deadline, or before it
        self._timer_at = math.inf
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
        reader = self._reader = ResponseReader("CONNECT", limit=self._limit)
        self._whole = False
        self._transport.write(request)
        while reader.head is None:
            await self._more()
        if not 200 <= reader.head.status < 300:
            raise ConnectionRefusedError(f"the proxy answered {reader.head.status}")
        if reader.surplus:
            raise MalformedResponse("the proxy sent data before the tunnel was used")
        self._reader = None
        transport = await self._loop.start_tls(self._transport, self, tls, server_hostname=server_name)
        self._transport = cast("asyncio.Transport", transport)

    async def exchange(self, method: str, data: bytes, *, whole: bool, timeout: float | None) -> Head:  # noqa: ASYNC109 - see _start_timer
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
        reader = self._reader = ResponseReader(method, limit=self._limit, stream=not whole)
        self._whole = whole
        if timeout is not None:
            self._start_timer(self._loop.time() + timeout)
        self._transport.write(data)
        while reader.head is None or (self._whole and not reader.done):
            await self._more()
            if reader.head is not None and not 200 <= reader.head.status < 300:
                self._whole = True
        self._deadline = math.inf
        return reader.head

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
        """End the exchange, and return whether the connection can take another request; if not, `abort` it."""
        reader, self._reader = self._reader, None
        complete = reader is not None and reader.done and not reader.surplus and reader.head is not None
        # If the response came before the whole request was sent, the server would read the rest as the next request.
        sent = self._lost is None and not self._transport.is_closing() and not self._transport.get_write_buffer_size()
        self.usable = complete and sent and reader.head.keeps_alive  # type: ignore[union-attr]
        self.idle_since = self._loop.time()
        return self.usable

    def is_quiet(self) -> bool:
        """Return whether a request can be sent: since the last response, neither bytes nor the end have arrived.

        The loop may not have read them yet. They would be taken for the response to the next request.
        """
        return self.usable and not _has_input(self._transport.get_extra_info("socket").fileno())

    def abort(self) -> None:
        """Drop the connection at once. A TLS shutdown would outlive the call, and then the loop."""
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
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

    def _start_timer(self, deadline: float) -> None:
        """Let the exchange end with a TimeoutError at the deadline.

        The timer outlives the exchange and serves the next one, since a timer for each costs as much as the rest.
        """
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_at(deadline, self._on_timer), deadline

    def _on_timer(self) -> None:
        self._timer_at = math.inf
        if self._loop.time() >= self._deadline:
            self._lose(TimeoutError())
        elif self._deadline < math.inf:
            self._start_timer(self._deadline)

    def _more(self) -> asyncio.Future[None]:
        """Return a future that is done when bytes have arrived.

        Raises:
            OSError: the connection is lost.
        """
        if self._lost is not None:
            raise self._lost
        self._waiter = self._loop.create_future()
        return self._waiter

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
