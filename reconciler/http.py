"""The types of an HTTP exchange, for any transport.

A `Transport` takes an `HTTPRequest` and returns an `HTTPResponse`. The client uses anything with ``send``: the embedded
API server in the same process, or connections over sockets.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlencode

from reconciler.errors import InvalidResponse

__all__ = ["HTTPRequest", "HTTPResponse", "Transport"]

MAX_LINE = 2**25
"""The longest line of a stream: 32 MiB, twenty times the largest object that etcd accepts by default (1.5 MiB)."""

_NAMESPACE_SUBRESOURCES = ("status", "finalize")

_encoded = functools.lru_cache(maxsize=64)(urlencode)
"""Most requests of a program have one of a few queries."""


def resource_of_path(path: str) -> tuple[str, str, bool] | None:
    """Return group and resource of a path, such as ``databases/status``, and whether it names an object.

    None for a path that is not of a resource.
    """
    match path.strip("/").split("/"):
        case ["api", _, *rest]:
            group = ""
        case ["apis", group, _, *rest]:
            pass
        case _:
            return None
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in _NAMESPACE_SUBRESOURCES:
        rest = rest[2:]
    match rest:
        case [resource]:
            return group, resource, False
        case [resource, _]:
            return group, resource, True
        case [plural, _, subresource, *_]:
            return group, f"{plural}/{subresource}", True
    return None


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A request to an API server. Its ``repr`` shows no headers and no body, which may contain secrets.

    Attributes:
        method: ``"GET"``, ``"POST"``, ``"PUT"``, ``"PATCH"`` or ``"DELETE"``.
        path: absolute path without query, percent-encoded (``"/api/v1/namespaces"``).
        query: decoded pairs, in order.
        headers: names in lower case.
        body: the whole body; empty for none.
        stream: whether the caller wants the body in chunks, as it arrives (watch).
        timeout: seconds for the whole exchange; for a stream, until its headers have arrived. None waits indefinitely.
        urgent: does not wait for other requests to end; for the renewal of a lease.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    stream: bool = False
    timeout: float | None = None
    urgent: bool = False

    @property
    def target(self) -> str:
        """Path and query, as they are written in the request line."""
        return f"{self.path}?{_encoded(tuple(map(tuple, self.query)))}" if self.query else self.path

    @property
    def label(self) -> str:
        """Method and path: the subject of error messages."""
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class HTTPResponse:
    """A response of an API server. Its ``repr`` shows no headers and no body, which may contain secrets.

    Attributes:
        status: the status code.
        headers: names in lower case.
        body: the whole body; empty if `chunks` is given.
        chunks: for a successful response to a streaming request, the body as it arrives, split anywhere.
        warnings: all ``Warning`` headers; `headers` has one value for each name.
        on_close: awaited by `close`; set by the transport.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    chunks: AsyncIterator[bytes] | None = None
    warnings: Sequence[str] = ()
    on_close: Callable[[], Awaitable[None]] | None = None

    async def close(self) -> None:
        """Release the connection of a stream; harmless if there is none or it was closed before.

        Cancellation leaves the connection to the transport, which drops it.
        """
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            await on_close()


class Transport(Protocol):
    """A sender of requests to one API server."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once and return its response, whatever its status.

        A transport never retries. A cancelled call may have been executed.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: the request may have reached the server, but there was no response.
        """
        ...


class LineSplitter:
    """The lines in the chunks of a stream, up to `MAX_LINE` bytes each. A byte is copied a bounded number of times."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next chunk and return the lines that it completes, without the empty ones.

        Raises:
            InvalidResponse: a line is too long.
        """
        if b"\n" not in chunk:
            self._parts.append(chunk)
            self._size += len(chunk)
            if self._size > MAX_LINE:
                raise self._too_long()
            return []
        first, *lines = chunk.split(b"\n")
        if self._size + len(first) > MAX_LINE:
            raise self._too_long()
        lines.insert(0, b"".join([*self._parts, first]))
        self._parts = [lines.pop()]
        self._size = len(self._parts[0])
        return list(filter(None, lines))

    def _too_long(self) -> InvalidResponse:
        return InvalidResponse(
            f"an event of the watch is longer than {MAX_LINE // 2**20} MiB, which no API server sends: check the "
            "proxies between the server and this client"
        )


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a response's ``retry-after`` asks to wait; None if it is missing or invalid.

    A date counts from that in the response's ``date``, which is by the same clock. In the past, it is 0 seconds.

    Args:
        headers: the response's headers, with names in lower case or in any case.
        now: the wall time, for a response without a valid ``date``.
    """
    header = headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])  # thirty years, if there are more
    if not header:
        return None
    moment, since = _parse_date(header), _parse_date(headers.get("date", "")) or now
    return None if moment is None else max(0.0, (moment - since).total_seconds())


def _parse_date(header: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # a dozen modules, for a rare header

    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC)
