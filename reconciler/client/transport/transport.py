"""Carry requests over sockets of our own: what every client made from a configuration uses."""

from __future__ import annotations

import asyncio
import base64
import functools
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import unquote, urlsplit

from reconciler.client.session.answers import label
from reconciler.client.transport.http11 import MAX_BODY, Head, HTTPConnection
from reconciler.client.transport.network import refuse_virtual_time, unknown, words
from reconciler.client.transport.pool import MAX_STREAMS, Budgets, Pool
from reconciler.client.transport.redaction import without_password
from reconciler.errors import ConfigurationError, NotSent
from reconciler.http import HTTPRequest, HTTPResponse

__all__ = ["DirectTransport", "Settings", "tls_context"]

_GZIP = "accept-encoding: gzip\r\n"
"""For lists, which compress to a tenth; kube-apiserver leaves answers under 128 KiB as they are."""


class Settings(Protocol):
    """Be what a transport reads of a configuration; ``kubernetes_asyncio.client.Configuration`` is one.

    Attributes:
        host: the server's address.
        ssl_ca_cert: path of the certificate authorities; None for the system's.
        cert_file: path of the client's certificate; None for none.
        key_file: path of its key.
        verify_ssl: whether the server's certificate is checked.
        tls_server_name: what it is to be for, if not for the host.
        connection_pool_maxsize: requests in progress at most, streams not counted.
    """

    host: str
    ssl_ca_cert: Any
    cert_file: Any
    key_file: Any
    verify_ssl: Any
    tls_server_name: Any
    connection_pool_maxsize: int

    async def get_api_key_with_prefix(self, name: str, /) -> Any:
        """Return the value of the Authorization header for ``"BearerToken"``, None for none."""
        ...


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return how to speak TLS with these settings.

    Raises:
        OSError, ssl.SSLError, ValueError: a certificate cannot be used.
    """
    context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, keyfile=settings.key_file)
    if not settings.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Origin(NamedTuple):
    """Hold a server's address, taken apart."""

    secure: bool
    host: str
    port: int
    authority: str
    prefix: str
    authorization: str

    @property
    def text(self) -> str:
        """Return the address without what may be secret in it: a password before the host, a token in the path."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"


@functools.lru_cache(maxsize=64)
def _origin(address: str) -> _Origin:
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(address)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    authority = parts.netloc.rpartition("@")[2]
    secure = parts.scheme == "https"
    prefix = parts.path.rstrip("/")
    return _Origin(secure, parts.hostname, port or (443 if secure else 80), authority, prefix, authorization)


class DirectTransport:
    """Send requests to one server, each once, on connections that are kept.

    Args:
        settings: address, certificates and credentials. The Authorization header is asked for each request.
        headers: sent with each request, unless it has them itself.
        connect_timeout: seconds to make a connection, TLS included; 10 by default.
        max_streams: open watches at most; 1024 by default.
        max_response_bytes: bytes of an answer's decompressed body at most, streams excepted; 256 MiB by default.

    Raises:
        ConfigurationError: time is virtual.
        OSError, ssl.SSLError, ValueError: a certificate cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout: float = 10.0,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
    ) -> None:
        refuse_virtual_time()
        self._configuration = settings
        self._host = str(settings.host).rstrip("/")
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._connect_timeout = connect_timeout
        # Made in any case: a certificate that cannot be used is found when the client is opened.
        self._tls = tls_context(settings)
        self._budgets = Budgets(max_streams, settings.connection_pool_maxsize)
        self._max_response_bytes = max_response_bytes
        self._pools: dict[_Origin, Pool] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections; harmless when done already. Cancellation leaves some to the event loop."""
        self._closed = True
        for pool in self._pools.values():
            await pool.close()

    @property
    def host(self) -> str:
        """Return the server's host and port, for metrics."""
        try:
            return _origin(self._host).authority
        except ValueError:
            return ""

    @property
    def max_streams(self) -> int:
        """Return how many watches may be open at once."""
        return self._budgets.max_streams

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once and return its answer, whatever its status.

        A cancelled call drops the connection and may have been executed.

        Raises:
            NotSent: the connection could not be made: refused, no such host, TLS, time out; or the credentials could
                not be renewed.
            OutcomeUnknown: the request may have reached the server, but no answer came.
            InvalidResponse: the answer is not valid HTTP, or too large.
            ConfigurationError: time is virtual, the server's address is invalid, or too many streams are open.
            ValueError: the path or a header holds a line break or a blank where none may be.
        """
        refuse_virtual_time()
        if self._closed:
            raise NotSent(f"{label(request)}: the client is closed")
        try:
            origin = _origin(self._host)
        except ValueError:
            shown = without_password(self._host)
            raise ConfigurationError(f"{shown!r} is not a valid server address: write it as https://host") from None
        data = self._written(request, origin, await self._authorization(request, origin))
        pool = self._pool(origin)
        connection = await pool.take(request) or await self._connected(pool, request, origin)
        try:
            return await self._exchanged(pool, connection, request, data)
        except (TimeoutError, OSError) as error:
            pool.drop(connection)
            raise unknown(request, error) from error
        except BaseException:
            pool.drop(connection)
            raise

    def _pool(self, origin: _Origin) -> Pool:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(
                origin.host,
                origin.port,
                tls=self._tls if origin.secure else None,
                server_name=self._configuration.tls_server_name or None,
                budgets=self._budgets,
                limit=self._max_response_bytes,
            )
        return pool

    async def _connected(self, pool: Pool, request: HTTPRequest, origin: _Origin) -> HTTPConnection:
        # Waiting for a free connection counts as connecting. It must end before the total, which cannot tell whether
        # something was sent.
        total = request.timeout
        waiting = self._connect_timeout if total is None else min(self._connect_timeout, 0.8 * total)
        try:
            async with asyncio.timeout(waiting):
                return await pool.open(request)
        except (TimeoutError, OSError, UnicodeError) as error:
            raise NotSent(f"{label(request)}: no connection to {origin.text}: {words(error)}") from error

    async def _exchanged(
        self, pool: Pool, connection: HTTPConnection, request: HTTPRequest, data: bytes
    ) -> HTTPResponse:
        head = await connection.exchange(request.method, data, whole=not request.stream, timeout=request.timeout)
        if request.stream and 200 <= head.status < 300:
            return _stream(pool, connection, request, head)
        body = connection.body()
        pool.give_back(connection)
        return HTTPResponse(head.status, head.headers, body, warnings=head.warnings)

    def _written(self, request: HTTPRequest, origin: _Origin, authorization: str) -> bytes:
        headers = {**self._headers, **request.headers} if self._headers else request.headers
        target = request.target
        if not (target.isascii() and target.isprintable()) or " " in target:
            raise ValueError(f"{label(request)!r} is no path: percent-encode what is in it")
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if authorization:
            fields += f"authorization: {authorization}\r\n"
        if fields.count("\n") != len(headers) + bool(authorization) or fields.count("\r") != fields.count("\n"):
            raise ValueError(f"{label(request)}: a header holds a line break")
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            fields += f"content-length: {len(request.body)}\r\n"
        elif not request.stream and "accept-encoding" not in headers:
            fields += _GZIP
        head = f"{request.method} {origin.prefix}{target} HTTP/1.1\r\nhost: {origin.authority}\r\n{fields}\r\n"
        return head.encode() + request.body

    async def _authorization(self, request: HTTPRequest, origin: _Origin) -> str:
        try:
            value = await self._configuration.get_api_key_with_prefix("BearerToken")
        except Exception as error:  # noqa: BLE001 - a hook is foreign code, and what it says may hold a token
            raise NotSent(f"{label(request)}: the credentials could not be renewed ({type(error).__name__})") from None
        return value.strip() if value else origin.authorization


def _stream(pool: Pool, connection: HTTPConnection, request: HTTPRequest, head: Head) -> HTTPResponse:
    async def close() -> None:
        pool.drop(connection)

    chunks = _Chunks(request, connection)
    return HTTPResponse(head.status, head.headers, chunks=chunks, warnings=head.warnings, on_close=close)


class _Chunks:
    """Be the body of a streaming answer, as it comes."""

    def __init__(self, request: HTTPRequest, connection: HTTPConnection) -> None:
        self._request = request
        self._connection = connection

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._connection.chunk()
        except OSError as error:
            raise unknown(self._request, error) from error
        if not chunk:
            raise StopAsyncIteration
        return chunk
