"""Hold the request, the response and the protocol between them."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlencode

__all__ = ["HTTPRequest", "HTTPResponse", "Transport", "parse_retry_after"]


_encoded = functools.lru_cache(maxsize=64)(urlencode)
"""Most requests of a program have one of a few queries."""


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """Hold one request to an API server.

    Attributes:
        method: ``"GET"``, ``"POST"``, ``"PUT"``, ``"PATCH"`` or ``"DELETE"``.
        path: absolute path without query, percent-encoded (``"/api/v1/namespaces"``).
        query: decoded pairs, in order.
        headers: names in lower case.
        body: the whole body; empty for none.
        stream: the caller wants the body in chunks as it comes (watch).
        timeout: seconds for the whole exchange, or for a stream until its headers have come. None waits for ever.
        urgent: does not wait for other requests to end, as the renewal of a lease must not.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: bool = False
    timeout: float | None = None
    urgent: bool = False

    @property
    def target(self) -> str:
        """Return path and query as they stand in the request line."""
        return f"{self.path}?{_encoded(tuple(map(tuple, self.query)))}" if self.query else self.path


@dataclass(slots=True)
class HTTPResponse:
    """Hold one answer.

    Attributes:
        status: the status code.
        headers: names in lower case.
        body: the whole body; empty when `chunks` is given.
        chunks: for a streaming request answered with success, the body as it comes. Chunks split anywhere.
        warnings: every ``Warning`` header, since a mapping keeps one value a name.
        on_close: what `close` has to await, given by the transport.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: AsyncIterator[bytes] | None = None
    warnings: Sequence[str] = ()
    on_close: Callable[[], Awaitable[None]] | None = None

    async def close(self) -> None:
        """Release the connection of a stream; harmless when there is none or it is closed already.

        Cancellation leaves the connection to the transport, which drops it.
        """
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            await on_close()


def parse_retry_after(header: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait; None if it is empty or invalid.

    Args:
        header: the value: a number of seconds, or a date, which asks for none when it is over.
        now: the wall time.
    """
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header)
    if not header:
        return None
    from email.utils import parsedate_to_datetime  # a dozen modules, for what is rarely sent

    try:
        moment = parsedate_to_datetime(header)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class Transport(Protocol):
    """Carry requests to one API server."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once and return its answer, whatever its status.

        Never repeats a request by itself. A cancelled call may have been executed.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: the request may have reached the server, but no answer came.
        """
        ...
