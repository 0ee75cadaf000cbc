"""The OpenTelemetry tracer, and the transport that traces and counts requests.

Without the package ``opentelemetry-api``, tracing is disabled and costs nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler._version import __version__
from reconciler.errors import TransportError
from reconciler.http import HTTPRequest, HTTPResponse, Transport, resource_of_path

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@cache
def tracer() -> Tracer | None:
    """Return the tracer ``reconciler``, or None if the package opentelemetry-api is not installed.

    The tracer uses the process's tracer provider, even if it is set after this call. Until then its spans are no-ops;
    see `is_tracing`.
    """
    trace = _trace()
    return None if trace is None else trace.get_tracer("reconciler", __version__)


def is_tracing() -> bool:
    """Return whether the process has a tracer provider; without one a span still costs time and records nothing."""
    trace = _trace()
    if trace is None or (getattr(trace, "_TRACER_PROVIDER", trace) is None and not _is_set_by_environment()):
        return False  # called several times per reconcile: get_tracer_provider would read the environment each time
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def _is_set_by_environment() -> bool:
    return "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


@cache
def _trace() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace


class RequestCounters:
    """Counts of requests to API servers by status code, method and host.

    Attributes:
        latest: the status code of the latest response; ``""`` before the first.
    """

    def __init__(self) -> None:
        self.latest = ""
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def count(self, code: str, method: str, host: str) -> None:
        """Count one request.

        Args:
            code: the status code, or ``<error>`` if there was no response.
            method: the HTTP method.
            host: the server's host.
        """
        self._counts[code, method, host] += 1
        if code.isdigit():
            self.latest = code

    def samples(self) -> list[tuple[tuple[str, str, str], float]]:
        """Return the counts."""
        return list(self._counts.items())


class ObservedTransport:
    """A transport that counts responses by status code, and traces requests while a tracer provider is set.

    A span of kind CLIENT follows OpenTelemetry's HTTP conventions. It is named after method and resource, such as ``PUT
    databases/status``. Its attributes are ``http.request.method``, ``url.path``, ``http.response.status_code`` and
    ``server.address``. The span of a watch ends when the watch is open.

    Args:
        transport: sends the requests.
        counters: count them.
        tracer: starts the spans; None for none.
    """

    def __init__(self, transport: Transport, counters: RequestCounters, tracer: Tracer | None = None) -> None:
        self._transport = transport
        self._counters = counters
        self._tracer = tracer

    @property
    def host(self) -> str:
        """The server's host and port; ``""`` before the transport is open, and for one inside the process."""
        return str(getattr(self._transport, "host", ""))

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request, count its response, and record its exception, if any.

        A cancelled request is not counted; its span ends.
        """
        send = self._transport.send if self._tracer is None or not is_tracing() else self._traced
        try:
            response = await send(request)
        except TransportError:
            self._counters.count("<error>", request.method, self.host)
            raise
        self._counters.count(str(response.status), request.method, self.host)
        return response

    async def _traced(self, request: HTTPRequest) -> HTTPResponse:
        from opentelemetry.trace import SpanKind, StatusCode

        attributes = {"http.request.method": request.method, "url.path": request.path}
        if self.host:
            attributes["server.address"] = self.host
        resource = resource_of_path(request.path)
        name = f"{request.method} {request.path if resource is None else resource[1]}"
        assert self._tracer is not None  # noqa: S101 - the caller asked
        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
            response = await self._transport.send(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 400:
                span.set_status(StatusCode.ERROR)
            return response
