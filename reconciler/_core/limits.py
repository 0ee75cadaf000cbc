"""The bounds of an HTTP server, which are known without loading aiohttp."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server.

    Attributes:
        connections: open connections. A new one beyond them replaces the one that has been idle longest; if
            none is idle, the new one is closed.
        head_seconds: time for the TLS handshake, and for the request line and headers.
        body_seconds: time for a request's body.
        idle_seconds: time that a connection may wait for its next request.
        stalled_seconds: time that a client may leave a response unread.
        body_bytes: size of a request's body.
        line_bytes: size of the request line, and of a header.
    """

    connections: int = 256
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 90.0
    stalled_seconds: float = 30.0
    body_bytes: int = 1024 * 1024
    line_bytes: int = 16 * 1024


class BadBody(Exception):
    """A request body that cannot be read; the connection is closed after the response.

    Attributes:
        status: the HTTP status to answer: 400, 408 or 413.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
