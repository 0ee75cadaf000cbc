"""Keep connections to one server, and hand each to one request at a time."""

from __future__ import annotations

import asyncio
import ssl

from reconciler.client.session.answers import label
from reconciler.client.transport.http11 import MAX_BODY, HTTPConnection
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest

__all__ = ["CONNECTIONS", "MAX_STREAMS", "URGENT", "Budgets", "Pool"]

CONNECTIONS = 256
"""Requests in progress at most; further ones wait for their turn."""

MAX_STREAMS = 1024
"""Open watches at most, each on a connection of its own; further ones are refused. Also the usual limit of open files a
process."""

URGENT = 4
"""Urgent requests (renewals of a lease) in progress at most, beside all others."""

KEPT = 15.0
"""Seconds that an idle connection is used again; less than any server or load balancer keeps it, so that a request is
not written into one that ends at the same moment. aiohttp's number."""


class Budgets:
    """Separate limits for streams, requests and urgent requests, so that none of them starves another.

    Args:
        streams: open streams at most; one more is refused.
        requests: requests in progress at most; one more waits, first come, first served.
        urgent: urgent requests in progress at most, beside the others.
        remedy: what to do when there are too many streams, for the error.

    Attributes:
        max_streams: as given.
    """

    def __init__(
        self,
        streams: int = MAX_STREAMS,
        requests: int = CONNECTIONS,
        urgent: int = URGENT,
        *,
        remedy: str = "raise max_streams of Client.from_config",
    ) -> None:
        self.max_streams = streams
        self._remedy = remedy
        self._streams = asyncio.Semaphore(streams)
        self._requests = asyncio.Semaphore(requests)
        self._urgent = asyncio.Semaphore(urgent)

    @classmethod
    def within(cls, limit: int, max_streams: int) -> Budgets:
        """Return budgets that share a limit of connections: three quarters for streams; 0 is no limit."""
        if not limit:
            return cls(max_streams)
        streams, urgent = max(1, limit * 3 // 4), max(1, min(URGENT, limit // 8))
        if max_streams <= streams:
            return cls(max_streams, max(1, limit - max_streams - urgent), urgent)
        remedy = f"raise Configuration.connection_pool_maxsize ({limit}, of which watches may take three quarters)"
        return cls(streams, max(1, limit - streams - urgent), urgent, remedy=remedy)

    def of(self, request: HTTPRequest) -> asyncio.Semaphore:
        """Return the semaphore that a request must hold.

        Raises:
            ConfigurationError: the request is a stream, and there are as many as there may be.
        """
        if not request.stream:
            return self._urgent if request.urgent else self._requests
        if self._streams.locked():
            raise ConfigurationError(
                f"{label(request)}: {self.max_streams} watches are open, which is the limit of this client: watch all "
                f"namespaces instead of single ones, or {self._remedy}"
            )
        return self._streams


class Pool:
    """The connections to one server; for one event loop.

    Args:
        host: name or address.
        port: the port.
        tls: how to speak TLS; None speaks none.
        server_name: what the server's certificate is to be for; None for `host`.
        budgets: how many connections may be in use.
        limit: bytes of a body that is read whole at most.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        server_name: str | None,
        budgets: Budgets,
        limit: int = MAX_BODY,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._server_name = (server_name or host) if tls is not None else None
        self._budgets = budgets
        self._limit = limit
        self._idle: list[HTTPConnection] = []  # the last used one last, and used first, so that the others can end
        self._used: dict[HTTPConnection, asyncio.Semaphore] = {}
        self._closed = False

    async def take(self, request: HTTPRequest) -> HTTPConnection | None:
        """Return an idle connection; None when there is none, or others wait. Does not wait.

        Raises:
            ConfigurationError: there are too many streams.
        """
        budget = self._budgets.of(request)
        if budget.locked() or (connection := self._idle_one()) is None:
            return None
        await budget.acquire()
        self._used[connection] = budget
        return connection

    async def open(self, request: HTTPRequest) -> HTTPConnection:
        """Wait for the request's turn; return an idle connection or a new one.

        A cancelled or failed call leaves no connection, and the turn goes to whoever waits next.

        Raises:
            ConfigurationError: there are too many streams.
            OSError: the connection could not be made; ssl.SSLError is one.
        """
        budget = self._budgets.of(request)
        await budget.acquire()
        try:
            connection = self._idle_one() or await self._connect()
            if self._closed:
                connection.abort()
                raise ConnectionAbortedError("the client is closed")
        except BaseException:
            budget.release()
            raise
        self._used[connection] = budget
        return connection

    def _idle_one(self) -> HTTPConnection | None:
        oldest = asyncio.get_running_loop().time() - KEPT
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.is_quiet():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> HTTPConnection:
        if self._closed:
            raise ConnectionAbortedError("the client is closed")
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HTTPConnection(self._limit), *self._address, ssl=self._tls, server_hostname=self._server_name
        )
        return connection

    def give_back(self, connection: HTTPConnection) -> None:
        """Take a connection back after its answer was read to the end; it is dropped if it is of no more use."""
        if connection.release() and not self._closed:
            self._idle.append(connection)
        self._free(connection)

    def drop(self, connection: HTTPConnection) -> None:
        """End a connection, in the middle of whatever it does; harmless when that was done."""
        connection.abort()
        self._free(connection)

    def _free(self, connection: HTTPConnection) -> None:
        budget = self._used.pop(connection, None)
        if budget is not None:
            budget.release()

    async def close(self) -> None:
        """End all connections; who waits for one fails. Cancellation leaves that to the event loop."""
        self._closed = True
        connections = [*self._idle, *self._used]
        self._idle.clear()
        for connection in connections:
            self.drop(connection)
        if connections:
            # The loop closes a socket in its next turn; one that TLS stands before, in the turn after.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
