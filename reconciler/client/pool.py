"""Sockets to a server, direct or through a proxy, and a pool of connections, each used by one request at a time."""

from __future__ import annotations

import asyncio
import base64
import functools
import ipaddress
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from reconciler._core.redaction import PLACEHOLDER, redact
from reconciler.client.http11 import MAX_BODY, HTTPConnection, MalformedResponse
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError, InvalidResponse, OutcomeUnknown, TransportError
from reconciler.http import HTTPRequest

_LONGEST = 200

_LOOKS_RANDOM = re.compile(r"(?<![\w/.+=-])(?=[\w+=-]{0,200}\d)(?=[\w+=-]{0,200}[A-Za-z])[\w+=-]{20,}")
"""Other text that may be a secret: long, with letters and digits, and not a path. Names of pods look like that, too."""


def excerpt(text: str) -> str:
    """Return the beginning of a foreign program's output, in one line, with possible secrets hidden."""
    text = _LOOKS_RANDOM.sub(PLACEHOLDER, redact(text[: 10 * _LONGEST]))
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:_LONGEST]


def without_password(address: str) -> str:
    """Return an address without user, password, path and query, for messages."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    host = re.split(r"[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}{mark}{host}"[:_LONGEST]


class Origin(NamedTuple):
    """The parts of a server's or a proxy's address.

    Attributes:
        secure: whether it speaks TLS.
        host: name or address.
        port: the port.
        authority: host and port as they were written.
        prefix: the path before all paths, without a slash at its end.
        authorization: the header value for the user and password in the address; ``""`` for none.
    """

    secure: bool
    host: str
    port: int
    authority: str
    prefix: str
    authorization: str

    def __repr__(self) -> str:
        return f"<Origin {self.text}>"  # without the password in the authorization

    @property
    def text(self) -> str:
        """The address without user, password and path."""
        return f"http{'s' if self.secure else ''}://{self.authority}"


@functools.lru_cache(maxsize=64)
def origin_of(address: str) -> Origin:
    """Return the parts of an address.

    Raises:
        ValueError: it is not an address with http:// or https:// and a host.
    """
    if not is_http_address(address):
        raise ValueError(address)
    parts = urlsplit(address)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    authority = parts.netloc.rpartition("@")[2]
    return Origin(secure, parts.hostname or "", port, authority, parts.path.rstrip("/"), authorization)


def is_http_address(address: str) -> bool:
    """Return whether a string is an address with http:// or https:// and a host."""
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_from_environment(address: str) -> str | None:
    """Return the proxy that ``HTTPS_PROXY`` and the related variables name for a server; never for this machine, as Go.

    Raises:
        ConfigurationError: the value is not the address of an HTTP proxy.
    """
    import urllib.request  # it loads 20 modules that nothing else here needs

    parts = urlsplit(address)
    host = parts.hostname or ""
    if is_local(host) or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    if not is_http_address(address) or not address.isprintable() or " " in address:
        raise ConfigurationError(
            f"the environment's {parts.scheme.upper()}_PROXY is {without_password(proxy)!r}: write it as "
            "http://host:port"
        )
    return address


def refuse_virtual_time() -> None:
    """Raise if the current clock is virtual.

    Raises:
        ConfigurationError: sockets take real time, during which virtual time would run away.
    """
    if getattr(current_clock(), "virtual", False):
        raise ConfigurationError(
            "a client over sockets cannot run under virtual time, because the network takes real time: use the "
            "embedded server in process, Client(server), or leave virtual time"
        )


def outcome_unknown(request: HTTPRequest, error: BaseException) -> TransportError:
    """Return the error for a request that may have reached the server, but has no response."""
    hint = "" if request.method == "GET" else "; it may have been executed: read before retrying"
    if isinstance(error, MalformedResponse):
        return InvalidResponse(f"{request.label}: invalid response: {describe(error)}{hint}")
    if request.stream:
        return OutcomeUnknown(f"{request.label}: the stream broke: {describe(error)}")
    return OutcomeUnknown(f"{request.label}: no response: {describe(error)}{hint}")


def describe(error: BaseException) -> str:
    """Return what went wrong, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or str(error)
        return f"its certificate is not trusted ({reason}); check the certificate-authority in the configuration"
    if isinstance(error, TimeoutError) and not error.strerror:
        return "timed out"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


MAX_REQUESTS = 256
"""Requests in progress at once. Further ones wait."""

MAX_STREAMS = 1024
"""Watches that may be open at once, each with its own connection. Further ones are refused. Also the usual limit of
open files of a process."""

_MAX_URGENT = 4
"""Urgent requests (lease renewals) in progress at once, in addition to all others."""

_KEEP_ALIVE = 15.0
"""Seconds that an idle connection stays usable, as in aiohttp. Shorter than any server or load balancer keeps one, so
that no request is written into a connection that is just being closed."""


class Budgets:
    """Separate limits for streams, requests and urgent requests, so that none starves another.

    Args:
        streams: streams that may be open at once. One more is refused.
        requests: requests in progress at once. One more waits; first come, first served.
        urgent: urgent requests in progress at once, in addition to the others.
        remedy: what to do about too many streams, for the error.

    Attributes:
        max_streams: as given.
    """

    def __init__(
        self,
        streams: int = MAX_STREAMS,
        requests: int = MAX_REQUESTS,
        urgent: int = _MAX_URGENT,
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
        """Return budgets that share a limit of connections, three quarters of it for streams; 0 means no limit."""
        if not limit:
            return cls(max_streams)
        streams, urgent = max(1, limit * 3 // 4), max(1, min(_MAX_URGENT, limit // 8))
        if max_streams <= streams:
            return cls(max_streams, max(1, limit - max_streams - urgent), urgent)
        remedy = f"raise Configuration.connection_pool_maxsize ({limit}, of which watches may use three quarters)"
        return cls(streams, max(1, limit - streams - urgent), urgent, remedy=remedy)

    def of(self, request: HTTPRequest) -> asyncio.Semaphore:
        """Return the semaphore that a request must hold.

        Raises:
            ConfigurationError: the request is a stream, and the limit is reached.
        """
        if not request.stream:
            return self._urgent if request.urgent else self._requests
        if self._streams.locked():
            raise ConfigurationError(
                f"{request.label}: {self.max_streams} watches are open, which is the limit of this client: watch all "
                f"namespaces instead of single ones, or {self._remedy}"
            )
        return self._streams


class Proxy:
    """An HTTP proxy in front of a server.

    Args:
        origin: the proxy's address.
        tls: how to speak TLS to the proxy, if its address is https://.
        headers: additional headers for the proxy.
    """

    def __init__(self, origin: Origin, tls: ssl.SSLContext | None, headers: Mapping[str, str] | None = None) -> None:
        self.origin = origin
        self.tls = tls if origin.secure else None
        given = {"proxy-authorization": origin.authorization} if origin.authorization else {}
        fields = {**given, **{name.lower(): value for name, value in (headers or {}).items()}}
        self.fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    def connect_request(self, host: str, port: int) -> bytes:
        """Build the request for a tunnel to a server."""
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{self.fields}\r\n".encode()


class Pool:
    """The connections to one server, for one event loop.

    Args:
        origin: the server's address.
        tls: how to speak TLS to the server, if its address is https://.
        server_name: the name that the server's certificate must be valid for; None for the host.
        budgets: how many connections may be in use.
        limit: the largest body in bytes that is read whole.
        proxy: the proxy in front of the server; None for none.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        tls: ssl.SSLContext | None,
        server_name: str | None,
        budgets: Budgets,
        limit: int = MAX_BODY,
        proxy: Proxy | None = None,
    ) -> None:
        self._origin = origin
        self._tls = tls if origin.secure else None
        self._server_name = (server_name or origin.host) if origin.secure else None
        self._budgets = budgets
        self._limit = limit
        self._proxy = proxy
        self._idle: list[HTTPConnection] = []  # the most recently used is last and is used first; the others can expire
        self._used: dict[HTTPConnection, asyncio.Semaphore] = {}
        self._is_retired = False
        self._closed = False

    @property
    def is_in_use(self) -> bool:
        """Return whether a request is in progress."""
        return bool(self._used)

    async def take(self, request: HTTPRequest) -> HTTPConnection | None:
        """Take an idle connection without waiting; None if there is none, or other requests wait.

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
        """Wait for the request's turn and return an idle connection or a new one.

        A cancelled or failed call leaves no connection, and the next request gets its turn.

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
        oldest = asyncio.get_running_loop().time() - _KEEP_ALIVE
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.is_quiet():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> HTTPConnection:
        if self._closed:
            raise ConnectionAbortedError("the client is closed")
        proxy = self._proxy
        if proxy is None:
            return await self._connect_to(self._origin, self._tls, self._server_name)
        connection = await self._connect_to(proxy.origin, proxy.tls, proxy.origin.host if proxy.tls else None)
        if self._tls is not None:
            try:
                request = proxy.connect_request(self._origin.host, self._origin.port)
                await connection.tunnel(request, self._tls, self._server_name)
            except BaseException:
                connection.abort()
                raise
        return connection

    async def _connect_to(self, origin: Origin, tls: ssl.SSLContext | None, server_name: str | None) -> HTTPConnection:
        connection = HTTPConnection(self._limit)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, origin.host, origin.port, ssl=tls, server_hostname=server_name
            )
        except BaseException:
            if connection.usable:
                connection.abort()  # asyncio waits for the server to end TLS, and the loop may not run that long
            raise
        return connection

    def give_back(self, connection: HTTPConnection) -> None:
        """Take back a connection whose response was read to its end. An unusable connection is dropped."""
        if connection.release() and not self._is_retired:
            self._idle.append(connection)
        else:
            connection.abort()
        self._free(connection)

    def drop(self, connection: HTTPConnection) -> None:
        """End a connection, whatever it is doing. Harmless if it has ended."""
        connection.abort()
        self._free(connection)

    def _free(self, connection: HTTPConnection) -> None:
        budget = self._used.pop(connection, None)
        if budget is not None:
            budget.release()

    def retire(self) -> None:
        """End each connection with the request in progress on it; those that wait for one still get it."""
        self._is_retired = True
        while self._idle:
            self._idle.pop().abort()

    async def close(self) -> None:
        """End all connections; requests that wait for one fail. Cancellation leaves that to the event loop."""
        self._closed = self._is_retired = True
        connections = [*self._idle, *self._used]
        self._idle.clear()
        for connection in connections:
            self.drop(connection)
        if connections:
            # The loop closes a socket in its next iteration; one behind TLS in the iteration after that.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
