"""Look at the requests of a manager's clients as they pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.errors import TransportError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.telemetry import RequestCounters, is_tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["Counted", "Fenced", "Traced", "Urgent"]


class _Around:
    """Pass requests, and the renewal of credentials, on to another transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        return await self._transport.send(request)

    async def renew(self) -> bool:
        renew = getattr(self._transport, "renew", None)
        return renew is not None and bool(await renew())


class Counted(_Around):
    """Count the answers by status code.

    Args:
        transport: sends the requests.
        counters: is told each answer.
    """

    def __init__(self, transport: Transport, counters: RequestCounters) -> None:
        super().__init__(transport)
        self._counters = counters

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request and count its answer; a cancelled one is not counted."""
        # A transport inside the process has no host, one over sockets knows it when it is open.
        try:
            response = await self._transport.send(request)
        except TransportError:
            self._counters.count("<error>", request.method, getattr(self._transport, "host", ""))
            raise
        self._counters.count(str(response.status), request.method, getattr(self._transport, "host", ""))
        return response


class Urgent(_Around):
    """A transport whose requests do not wait for others in progress: the renewals of a lease."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request over the connections that are kept free for urgent ones."""
        return await self._transport.send(replace(request, urgent=True))


class Fenced(_Around):
    """Refuse writes of a process that does not lead.

    Args:
        transport: sends the requests.
        check: raises when this process must not write.
    """

    def __init__(self, transport: Transport, check: Callable[[], None]) -> None:
        super().__init__(transport)
        self._check = check

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request, if it only reads or this process leads at this moment.

        What lies between the check and the socket is all of the window that is left.

        Raises:
            NotLeader: nothing was sent.
        """
        if request.method not in ("GET", "HEAD"):
            self._check()
        return await self._transport.send(request)


class Traced(_Around):
    """Put a span around each request, of kind CLIENT, by OpenTelemetry's conventions for HTTP.

    It is called by method and kind, ``PATCH databases/status``, and has ``http.request.method``, ``url.path``,
    ``http.response.status_code`` and ``server.address``. A watch's span ends when the watch is open.

    Args:
        transport: sends the requests.
        tracer: makes the spans.
    """

    def __init__(self, transport: Transport, tracer: Tracer) -> None:
        super().__init__(transport)
        self._tracer = tracer

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request; what it raises is recorded. Cancellation ends the span as it ends the request."""
        if not is_tracing():
            return await self._transport.send(request)
        from opentelemetry.trace import SpanKind, StatusCode

        attributes = {"http.request.method": request.method, "url.path": request.path}
        host = getattr(self._transport, "host", "")
        if host:
            attributes["server.address"] = host
        name = f"{request.method} {_kind_of(request.path)}"
        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
            response = await self._transport.send(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 400:
                span.set_status(StatusCode.ERROR)
            return response


def _kind_of(path: str) -> str:
    """Return what a path is about, without the names in it: ``databases/status`` of one of its objects."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return "/".join([rest[0], *rest[2:]]) if rest else path
