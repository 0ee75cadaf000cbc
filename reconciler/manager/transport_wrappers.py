"""Transport wrappers for a manager's clients: leader fencing, and priority for lease renewals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reconciler.http import HTTPRequest, HTTPResponse, Transport


class _TransportWrapper:
    """The base of transports that pass requests to another one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


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
