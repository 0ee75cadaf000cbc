"""Look at the requests of a manager's clients as they pass."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.errors import TransportError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.telemetry import RequestCounters

__all__ = ["Counted", "Fenced"]


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
