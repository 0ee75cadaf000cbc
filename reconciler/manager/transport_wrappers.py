"""Transport wrappers for a manager's clients: metrics, tracing, leader fencing, and priority for lease renewals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.errors import TransportError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.telemetry.registry import RequestCounters
from reconciler.telemetry.tracing import is_tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


class _TransportWrapper:
    """The base of transports that pass requests to another one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def host(self) -> str:
        """The server's host and port; ``""`` before the transport is open, and for one inside the process."""
        return str(getattr(self._transport, "host", ""))


class CountingTransport(_TransportWrapper):
    """A transport that counts responses by status code."""

    def __init__(self, transport: Transport, counters: RequestCounters) -> None:
        super().__init__(transport)
        self._counters = counters

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request and count its response. A cancelled request is not counted."""
        try:
            response = await self._transport.send(request)
        except TransportError:
            self._counters.count("<error>", request.method, self.host)
            raise
        self._counters.count(str(response.status), request.method, self.host)
        return response


class UrgentTransport(_TransportWrapper):
    """A transport whose requests do not wait for others in progress; for the renewals of a lease."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request over the connections that are reserved for urgent ones."""
        return await self._transport.send(replace(request, urgent=True))


class FencedTransport(_TransportWrapper):
    """A transport that refuses writes while this process is not the leader.

    Args:
        check: raises if this process must not write.
    """

    def __init__(self, transport: Transport, check: Callable[[], None]) -> None:
        super().__init__(transport)
        self._check = check

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request if it only reads, or if this process is the leader now.

        The only window for a late write lies between this check and the socket.

        Raises:
            NotLeader: this process is not the leader; nothing was sent.
        """
        if request.method not in ("GET", "HEAD"):
            self._check()
        return await self._transport.send(request)


class TracingTransport(_TransportWrapper):
    """A transport that records a span of kind CLIENT per request, following OpenTelemetry's HTTP conventions.

    A span is named after method and resource, such as ``PUT databases/status``. Its attributes are
    ``http.request.method``, ``url.path``, ``http.response.status_code`` and ``server.address``. The span of a watch
    ends when the watch is open.
    """

    def __init__(self, transport: Transport, tracer: Tracer) -> None:
        super().__init__(transport)
        self._tracer = tracer

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request and record its exception, if any. Cancellation ends the span together with the request."""
        if not is_tracing():
            return await self._transport.send(request)
        from opentelemetry.trace import SpanKind, StatusCode

        attributes = {"http.request.method": request.method, "url.path": request.path}
        if self.host:
            attributes["server.address"] = self.host
        name = f"{request.method} {_resource_of(request.path)}"
        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
            response = await self._transport.send(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 400:
                span.set_status(StatusCode.ERROR)
            return response


def _resource_of(path: str) -> str:
    """Return the resource and subresource of a path, without names, such as ``databases/status``."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return "/".join([rest[0], *rest[2:]]) if rest else path
