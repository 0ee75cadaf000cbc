"""Keep connections to one server, and hand each to one request at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from reconciler.client._http11 import HTTPConnection

__all__ = ["Pool"]

KEPT = 15.0
"""Seconds that an idle connection is used again; less than any server or load balancer keeps it, so that a request is
not written into one that ends at the same moment. aiohttp's number."""


class Pool:
    """Keep connections; for one event loop.

    Args:
        host: name or address.
        port: the port.
        tls: how to speak TLS; None speaks none.
        server_name: what the server's certificate is to be for; None for `host`.
        limit: connections at most, those in use and those that idle.
    """

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, server_name: str | None, limit: int
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._server_name = (server_name or host) if tls is not None else None
        self._limit = limit
        self._idle: list[HTTPConnection] = []  # the last used one last, and used first, so that the others can end
        self._used: set[HTTPConnection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> HTTPConnection | None:
        """Return a connection that is idle, None when there is none."""
        if self._idle:
            oldest = asyncio.get_running_loop().time() - KEPT
            while self._idle:
                connection = self._idle.pop()
                if connection.usable and connection.idle_since > oldest:
                    self._used.add(connection)
                    return connection
                connection.abort()
        return None

    async def open(self) -> HTTPConnection:
        """Return a connection: a new one, or one that becomes idle while there are as many as there may be.

        A cancelled call leaves no connection.

        Raises:
            OSError: it could not be made; ssl.SSLError is one.
        """
        while len(self._used) + len(self._idle) + self._opening >= self._limit:
            if (connection := self.take()) is not None:
                return connection
            await self._turn()
        loop = asyncio.get_running_loop()
        self._opening += 1
        try:
            _, connection = await loop.create_connection(
                HTTPConnection, *self._address, ssl=self._tls, server_hostname=self._server_name
            )
        except BaseException:
            self._next()
            raise
        finally:
            self._opening -= 1
        self._used.add(connection)
        return connection

    def give_back(self, connection: HTTPConnection) -> None:
        """Take a connection back after its answer was read to the end; it is dropped if it is of no more use."""
        self._used.discard(connection)
        if connection.release():
            self._idle.append(connection)
        self._next()

    def drop(self, connection: HTTPConnection) -> None:
        """End a connection, in the middle of whatever it does; harmless when that was done."""
        connection.abort()
        if connection in self._used:
            self._used.discard(connection)
            self._next()

    async def close(self) -> None:
        """End all connections. Cancellation leaves that to the event loop."""
        connections = [*self._idle, *self._used]
        self._idle.clear()
        self._used.clear()
        for connection in connections:
            connection.abort()
        if connections:
            # The loop closes a socket in its next turn; one that TLS stands before, in the turn after.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()  # this turn was for somebody who can use it
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
