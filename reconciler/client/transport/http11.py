"""A parser for HTTP/1.1 responses: strict, with a limit on everything, and without I/O.

It is written here because of what it must refuse. ``httptools`` hides the size line of a chunk, so neither its length
nor the size in it can be limited there. It also costs more: with the same checks on headers and bodies, a response with
seven headers takes 7.5 µs instead of 5.0 µs, because each header is a call back into Python.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections import deque
from typing import NamedTuple

__all__ = ["MAX_BODY", "BodyTooLarge", "Head", "MalformedResponse", "ResponseReader"]

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

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the body is larger than {limit} bytes: read smaller pages (limit=), or raise max_response_bytes"
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
        self._limit = limit
        self._stream = stream
        self._bounded = True
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
        if len(data) > _MAX_HEAD:
            raise MalformedResponse(f"the headers are longer than {_MAX_HEAD // 2**10} KiB")
        self._pending = data

    def _begin(self, text: bytes) -> None:
        if len(text) > _MAX_HEAD:
            raise MalformedResponse(f"the headers are longer than {_MAX_HEAD // 2**10} KiB")
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
        self._bounded = not (self._stream and status < 300)
        coding = headers.get("content-encoding", "identity").lower()
        if coding == "gzip" and self._bounded:
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
            raise MalformedResponse("a chunk is longer than its size")
        if _has_bare_line_feed(data):
            raise MalformedResponse("a line feed without a carriage return")
        if len(data) > _MAX_SIZE_LINE:
            raise MalformedResponse("the size line of a chunk is too long")
        self._pending = data

    def _take_whole_chunk(self, data: bytes, at: int) -> int:
        """Consume a chunk that starts at `at` if its end has arrived too, and return where the next one starts."""
        end = at + self._left
        if end == at or not data.startswith(b"\r\n", end):
            return at
        self._add(data[at:end])
        self._left, self._in_chunk = 0, False
        return end + 2

    def _line(self, line: bytes) -> bool:
        """Parse a line between chunks, and return whether it is the last line of the response."""
        if self._after_last:  # trailers, up to an empty line
            if line:
                self._trailers += len(line)
                if self._trailers > _MAX_HEAD:
                    raise MalformedResponse("too many trailers")
                _field(line.decode("latin-1"))
                return False
            self._end()
            return True
        if self._in_chunk:
            if line:
                raise MalformedResponse("a chunk is longer than its size")
            self._in_chunk = False
            return False
        size = _chunk_size(line) if len(line) <= _MAX_SIZE_LINE else None
        if size is None:
            raise MalformedResponse("the size of a chunk is invalid")
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
                raise MalformedResponse("the compressed body is corrupt") from None
            if self._unzip.unused_data:
                raise MalformedResponse("there is data after the compressed body")
        self._size += len(data)
        self._check_size(self._size)
        if data:
            self.body.append(data)

    def _check_size(self, size: int) -> None:
        if self._bounded and size > self._limit:
            raise BodyTooLarge(self._limit)

    def _end(self) -> None:
        if self._unzip is not None and not self._unzip.eof:
            raise MalformedResponse("the compressed body is truncated")
        self.done = True
