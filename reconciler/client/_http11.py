"""Speak HTTP/1.1 on one connection: what an API server answers, read with no more work than it takes.

A general HTTP library spends several times the CPU of the exchange itself on what an API server never does: cookies,
redirects, case-insensitive multi-dicts, objects for every header. A controller makes a request for each status, so that
is most of its cost.
"""

from __future__ import annotations

import asyncio
import functools
import zlib
from collections import deque
from typing import NamedTuple, cast

__all__ = ["Garbled", "HTTPConnection", "Head", "ResponseReader"]

_LONGEST_HEAD = 2**16
"""Bytes of status line and headers; net/http's server stays far below its own limit of 1 MiB for requests."""

_LONGEST_SIZE_LINE = 2**12

_BUFFERED = 2**21
"""Bytes of a stream that wait for their reader before the socket is left alone: room for a few of the largest objects
(etcd takes 1.5 MiB)."""

_BODILESS = frozenset({204, 304})


class Garbled(ConnectionError):
    """Say that the answer is not HTTP/1.1 as its rules have it."""


class Head(NamedTuple):
    """Hold status line and headers.

    Attributes:
        status: the code.
        headers: the last value of each, names in lower case.
        warnings: all values of ``Warning``.
        keeps_alive: whether the connection serves another request afterwards.
    """

    status: int
    headers: dict[str, str]
    warnings: tuple[str, ...]
    keeps_alive: bool


@functools.lru_cache(maxsize=256)  # of ten lines in an answer eight stood in the one before
def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name[0] in " \t" or name[-1] in " \t":
        raise Garbled("a header that is none")
    return name.lower(), value.strip()


class ResponseReader:
    """Take an answer's bytes as they come; no I/O.

    Args:
        method: of the request, since an answer to HEAD has no body.

    Attributes:
        head: None until it is complete.
        body: what came of the body and was not taken out yet.
        done: the answer is complete.
        surplus: bytes came after it.
    """

    def __init__(self, method: str) -> None:
        self.head: Head | None = None
        self.body: deque[bytes] = deque()
        self.done = False
        self.surplus = False
        self._method = method
        self._pending = b""
        self._left = 0  # bytes of the body, or of its chunk, that are to come
        self._chunked = False
        self._until_eof = False
        self._in_chunk = False
        self._after_last = False
        self._unzip: zlib._Decompress | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Garbled: they break the rules.
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        while self.head is None:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._keep(data, _LONGEST_HEAD)
                return
            self._begin(data[:end])
            data = data[end + 4 :]
        if self.done:
            self.surplus = self.surplus or bool(data)
        elif self._chunked:
            self._take_chunks(data)
        else:
            self._take(data)

    def finish(self) -> bool:
        """Take the end of the connection; say whether the answer is complete with it."""
        if self._until_eof and self.head is not None:
            self.done = True
        return self.done

    def _keep(self, data: bytes, most: int) -> None:
        if len(data) > most:
            raise Garbled("a line without end")
        self._pending = data

    def _begin(self, text: bytes) -> None:
        first, *lines = text.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if version not in ("HTTP/1.1", "HTTP/1.0") or not (code.isascii() and code.isdigit() and len(code) == 3):
            raise Garbled("the answer is not HTTP/1.1")
        status = int(code)
        headers: dict[str, str] = {}
        warnings: list[str] = []
        for line in lines:
            name, value = _field(line)
            if name == "warning":
                warnings.append(value)
            elif name == "content-length" and headers.get(name, value) != value:
                raise Garbled("two different lengths")
            headers[name] = value
        if 100 <= status < 200:
            if status == 101:
                raise Garbled("the server changes the protocol")
            return
        connection = headers.get("connection", "").lower()
        keeps_alive = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
        self._frame(status, headers)
        self.head = Head(status, headers, tuple(warnings), keeps_alive and not self._until_eof)

    def _frame(self, status: int, headers: dict[str, str]) -> None:
        length = headers.get("content-length")
        if self._method == "HEAD" or status in _BODILESS:
            self.done = True
            return
        if headers.get("content-encoding", "").lower() == "gzip":
            self._unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                raise Garbled("a transfer encoding that is not chunked")
            self._chunked = True
        elif length is not None:
            if not (length.isascii() and length.isdigit()):
                raise Garbled("a length that is no number")
            self._left = int(length)
            self.done = self._left == 0
        else:
            self._until_eof = True

    def _take(self, data: bytes) -> None:
        if self._until_eof:
            self._add(data)
            return
        self.surplus = len(data) > self._left
        self._add(data[: self._left])
        self._left -= min(self._left, len(data))
        self.done = self._left == 0

    def _take_chunks(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                self._add(part)
                self._left -= len(part)
                at += len(part)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep(data[at:], _LONGEST_SIZE_LINE)
                return
            line, at = data[at:end], end + 2
            if self._line(line):
                self.surplus = at < len(data)
                return
            at = self._take_whole_chunk(data, at)

    def _take_whole_chunk(self, data: bytes, at: int) -> int:
        """Take a chunk that begins here, if its end is here as well; return where the next one begins."""
        end = at + self._left
        if end == at or not data.startswith(b"\r\n", end):
            return at
        self._add(data[at:end])
        self._left, self._in_chunk = 0, False
        return end + 2

    def _line(self, line: bytes) -> bool:
        """Take a line between chunks; say whether it is the last of the answer."""
        if self._after_last:  # trailers, up to an empty line
            self.done = not line
            return self.done
        if self._in_chunk:
            if line:
                raise Garbled("a chunk longer than it says")
            self._in_chunk = False
            return False
        size = line.partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise Garbled("a chunk without size") from None
        if self._left < 0 or size[:1] in b"+-":
            raise Garbled("a chunk without size")
        self._in_chunk = self._left > 0
        self._after_last = not self._in_chunk
        return False

    def _add(self, data: bytes) -> None:
        if self._unzip is not None:
            try:
                data = self._unzip.decompress(data)
            except zlib.error:
                raise Garbled("a body that is not compressed as it says") from None
        if data:
            self.body.append(data)


class HTTPConnection(asyncio.Protocol):
    """Be one connection: one request at a time, its answer whole or as a stream.

    Attributes:
        usable: it can take a request; if idle, since `idle_since`.
        idle_since: the loop's time when the last answer was complete.
    """

    def __init__(self) -> None:
        self.usable = False
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._reader: ResponseReader | None = None
        self._whole = True
        self._waiter: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None
        self._paused = False

    # What the pool calls.

    async def exchange(self, method: str, data: bytes, *, whole: bool, timeout: float | None) -> Head:  # noqa: ASYNC109 - see _expire
        """Send a request and wait for its answer, or for the head of it and, unless that is good, for the body.

        After cancellation, and after an error, the connection is of no use any more: `abort` it.

        Args:
            method: of the request.
            data: all of it.
            whole: wait for the body in any case.
            timeout: seconds for all of it; None for no limit.

        Raises:
            OSError: the connection broke, the answer is no HTTP, or (TimeoutError) the time is up.
        """
        self._reader, self._whole = ResponseReader(method), whole
        # Not asyncio.timeout: that costs as much as all the rest of an exchange.
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
        """Return what has come of the body and was not returned before."""
        assert self._reader is not None  # noqa: S101 - there is an answer
        parts = self._reader.body
        found = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return found

    async def chunk(self) -> bytes:
        """Wait for the next bytes of a stream; ``b""`` at its end.

        Cancellation changes nothing.

        Raises:
            OSError: the connection broke.
        """
        reader = self._reader
        assert reader is not None  # noqa: S101 - there is an answer
        while not reader.body:
            if reader.done:
                return b""
            await self._more()
        return self.body()

    def release(self) -> bool:
        """End the exchange; say whether the connection can take another request."""
        reader, self._reader = self._reader, None
        complete = reader is not None and reader.done and not reader.surplus
        self.usable = complete and reader.head is not None and reader.head.keeps_alive and self._lost is None  # type: ignore[union-attr]
        if self.usable:
            self.idle_since = self._loop.time()
        else:
            self.abort()
        return self.usable

    def abort(self) -> None:
        """Drop the connection at once. A polite end of TLS would outlive the call, and then the loop."""
        self.usable = False
        self._transport.abort()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be connected."""
        self._transport = cast("asyncio.Transport", transport)  # by its methods: uvloop's are of no such class
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Take bytes; those that nobody asked for mean that the two sides no longer agree."""
        reader = self._reader
        if reader is None:
            self.abort()
            return
        try:
            reader.feed(data)
        except Garbled as error:
            self._lose(error)
            self.abort()
            return
        if reader.done or (reader.head is not None and not self._whole):
            self._wake()
            if not self._whole and not self._paused and sum(map(len, reader.body)) > _BUFFERED:
                self._paused = True
                self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Be disconnected."""
        self.usable = False
        if self._reader is None or not (exc is None and self._reader.finish()):
            self._lose(exc or ConnectionResetError("the server closed the connection"))
        self._wake()

    # Inside

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
