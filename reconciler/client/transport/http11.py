"""Speak HTTP/1.1 on one connection: what an API server answers, read with no more work than it takes.

A general HTTP library spends several times the CPU of the exchange itself on what an API server never does: cookies,
redirects, case-insensitive multi-dicts, objects for every header. A controller makes a request for each status, so that
is most of its cost.
"""

from __future__ import annotations

import asyncio
import functools
import re
import select
import zlib
from collections import deque
from typing import NamedTuple, cast

__all__ = ["MAX_BODY", "Garbled", "HTTPConnection", "Head", "ResponseReader", "TooLarge"]

MAX_BODY = 2**28
"""Bytes of a body that is read whole, decompressed, at most: 256 MiB. A page of 500 objects of the common size has a
few; what a few kilobytes of a compressed bomb unpack to has no end."""

_LONGEST_HEAD = 2**16
"""Bytes of status line and headers, and of trailers; net/http's server stays far below its own limit of 1 MiB for
requests."""

_MOST_FIELDS = 256

_MOST_INTERIM = 16
"""Preliminary answers (1xx) before the final one."""

_LONGEST_SIZE_LINE = 2**12

_BUFFERED = 2**21
"""Bytes of a stream that wait for their reader before the socket is left alone: room for a few of the largest objects
(etcd takes 1.5 MiB)."""

_BODILESS = frozenset({204, 304})

_once = frozenset({"content-length", "transfer-encoding", "content-encoding"})
_is_status_line = re.compile(r"HTTP/1\.[01] [1-5][0-9][0-9]( [^\x00-\x08\x0a-\x1f\x7f]*)?").fullmatch
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_value = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch
_is_length = re.compile(r"[0-9]{1,18}").fullmatch
_chunk_size = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?").fullmatch
_has_bare_line_feed = re.compile(rb"(?<!\r)\n").search


class Garbled(ConnectionError):
    """Return the error for an answer that is malformed or too large."""


class TooLarge(Garbled):
    """Return the error for a body that is larger than its limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"a body of more than {limit} bytes: ask for less at a time (limit=), or raise max_response_bytes"
        )


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
    if not (colon and _is_name(name) and _is_value(value)):
        raise Garbled("a malformed header line")
    return name.lower(), value.strip()


class ResponseReader:
    """Take an answer's bytes as they come; no I/O.

    Args:
        method: of the request, since an answer to HEAD has no body.
        limit: bytes of a decompressed body at most.
        stream: the body of a successful answer is taken out as it comes; it has no limit, and must not be compressed.

    Attributes:
        head: None until it is complete.
        body: what came of the body and was not taken out yet.
        done: the answer is complete.
        surplus: bytes came after it.
    """

    def __init__(self, method: str, *, limit: int = MAX_BODY, stream: bool = False) -> None:
        self.head: Head | None = None
        self.body: deque[bytes] = deque()
        self.done = False
        self.surplus = False
        self._method = method
        self._limit = limit
        self._stream = stream
        self._bounded = True
        self._size = 0  # bytes of the decompressed body so far
        self._interim = 0
        self._trailers = 0
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
            Garbled: they break the rules, or a limit.
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        while self.head is None:
            if not data:
                return
            end = data.find(b"\r\n\r\n")
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
        """Take the end of the connection; say whether the answer is complete with it.

        Raises:
            Garbled: a compressed body is cut off.
        """
        if self._until_eof and self.head is not None and not self.done:
            self._end()
        return self.done

    def _keep_head(self, data: bytes) -> None:
        """Keep what may be the beginning of an answer; what cannot be is refused at once, not when the time is up."""
        if not (data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(data)):
            raise Garbled("the answer is not HTTP/1.1")
        if _has_bare_line_feed(data):
            raise Garbled("a line feed without carriage return")
        if len(data) > _LONGEST_HEAD:
            raise Garbled(f"headers longer than {_LONGEST_HEAD // 2**10} KiB")
        self._pending = data

    def _begin(self, text: bytes) -> None:
        if len(text) > _LONGEST_HEAD:
            raise Garbled(f"headers longer than {_LONGEST_HEAD // 2**10} KiB")
        first, *lines = text.decode("latin-1").split("\r\n")
        if not _is_status_line(first):
            raise Garbled("the answer is not HTTP/1.1")
        if len(lines) > _MOST_FIELDS:
            raise Garbled(f"more than {_MOST_FIELDS} headers")
        status = int(first[9:12])
        headers: dict[str, str] = {}
        warnings: list[str] = []
        for line in lines:
            name, value = _field(line)
            if name == "warning":
                warnings.append(value)
            elif name in headers and name in _once and headers[name] != value:
                raise Garbled(f"two different values of {name}")
            elif name in headers and name == "connection":
                value = f"{headers[name]}, {value}"
            headers[name] = value
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _MOST_INTERIM:
                raise Garbled("the server changes the protocol" if status == 101 else "preliminary answers without end")
            return
        connection = headers.get("connection", "").lower()
        old = first.startswith("HTTP/1.0")
        keeps_alive = "keep-alive" in connection if old else "close" not in connection
        self._frame(status, headers, old=old)
        self.head = Head(status, headers, tuple(warnings), keeps_alive and not self._until_eof)

    def _frame(self, status: int, headers: dict[str, str], *, old: bool) -> None:
        length, transfer = headers.get("content-length"), headers.get("transfer-encoding")
        if length is not None and not _is_length(length):
            raise Garbled("a content-length that is not a number")
        if transfer is not None and (old or length is not None or transfer.lower() != "chunked"):
            raise Garbled("a transfer-encoding other than chunked, or together with a content-length")
        if self._method == "HEAD" or status in _BODILESS:
            self.done = True
            return
        self._bounded = not (self._stream and status < 300)
        coding = headers.get("content-encoding", "identity").lower()
        if coding == "gzip" and self._bounded:
            self._unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        elif coding != "identity":
            raise Garbled("a content-encoding that was not asked for")
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
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep_line(data[at:])
                return
            line, at = data[at:end], end + 2
            if self._line(line):
                self.surplus = at < len(data)
                return
            at = self._take_whole_chunk(data, at)

    def _keep_line(self, data: bytes) -> None:
        if self._in_chunk and data != b"\r":
            raise Garbled("a chunk longer than it says")
        if _has_bare_line_feed(data):
            raise Garbled("a line feed without carriage return")
        if len(data) > _LONGEST_SIZE_LINE:
            raise Garbled("a chunk whose first line has no end")
        self._pending = data

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
            if line:
                self._trailers += len(line)
                if self._trailers > _LONGEST_HEAD:
                    raise Garbled("trailers without end")
                _field(line.decode("latin-1"))
                return False
            self._end()
            return True
        if self._in_chunk:
            if line:
                raise Garbled("a chunk longer than it says")
            self._in_chunk = False
            return False
        size = _chunk_size(line) if len(line) <= _LONGEST_SIZE_LINE else None
        if size is None:
            raise Garbled("a chunk without a valid size")
        self._left = int(size[1], 16)
        self._check_size(self._size + self._left if self._unzip is None else self._left)
        self._in_chunk = self._left > 0
        self._after_last = not self._in_chunk
        return False

    def _add(self, data: bytes) -> None:
        if self._unzip is not None:
            try:
                data = self._unzip.decompress(data, self._limit - self._size + 1)
            except zlib.error:
                raise Garbled("a body that is not compressed as it says") from None
            if self._unzip.unused_data:
                raise Garbled("a compressed body with something behind it")
        self._size += len(data)
        self._check_size(self._size)
        if data:
            self.body.append(data)

    def _check_size(self, size: int) -> None:
        if self._bounded and size > self._limit:
            raise TooLarge(self._limit)

    def _end(self) -> None:
        if self._unzip is not None and not self._unzip.eof:
            raise Garbled("a compressed body that is cut off")
        self.done = True


class HTTPConnection(asyncio.Protocol):
    """Be one connection: one request at a time, its answer whole or as a stream.

    Args:
        limit: bytes of a body that is read whole at most.

    Attributes:
        usable: it can take a request; if idle, since `idle_since`.
        idle_since: the loop's time when the last answer was complete.
    """

    def __init__(self, limit: int = MAX_BODY) -> None:
        self.usable = False
        self._limit = limit
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
            OSError: the connection broke, the answer is not valid HTTP or too large (Garbled), or (TimeoutError) the
                time is up.
        """
        self._reader, self._whole = ResponseReader(method, limit=self._limit, stream=not whole), whole
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
        complete = reader is not None and reader.done and not reader.surplus and reader.head is not None
        # An answer that came before the request was sent completely leaves the rest of it to be taken for the next one.
        sent = self._lost is None and not self._transport.is_closing() and not self._transport.get_write_buffer_size()
        self.usable = complete and sent and reader.head.keeps_alive  # type: ignore[union-attr]
        if self.usable:
            self.idle_since = self._loop.time()
        else:
            self.abort()
        return self.usable

    def is_quiet(self) -> bool:
        """Return whether a request can be sent: nothing has come since the last answer, neither bytes nor the end.

        The loop may not have read it yet; as the answer to the next request it would be somebody else's.
        """
        return self.usable and not _has_input(self._transport.get_extra_info("socket").fileno())

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
        try:
            complete = self._reader is not None and exc is None and self._reader.finish()
        except Garbled as error:
            complete, exc = False, error
        if not complete:
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


def _has_input(fd: int) -> bool:
    if hasattr(select, "poll"):  # select() takes no file above 1023
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([fd], [], [], 0)[0])
