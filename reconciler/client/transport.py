"""The transport over sockets, for clients made from a configuration or over an ApiClient of ``kubernetes_asyncio``."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from reconciler._core.certificates import client_tls_context
from reconciler._core.durations import DurationLike, seconds_of
from reconciler.client.http11 import MAX_BODY, Head, HTTPConnection
from reconciler.client.pool import (
    MAX_STREAMS,
    Budgets,
    Origin,
    Pool,
    Proxy,
    describe,
    origin_of,
    outcome_unknown,
    proxy_from_environment,
    refuse_virtual_time,
    without_password,
)
from reconciler.errors import ConfigurationError, NotSent
from reconciler.http import HTTPRequest, HTTPResponse

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient


_GZIP = "accept-encoding: gzip\r\n"
"""For lists, which compress to a tenth; kube-apiserver does not compress responses under 128 KiB."""


class Settings(Protocol):
    """The part of a configuration that a transport reads; ``kubernetes_asyncio.client.Configuration`` has it.

    Attributes:
        host: the server's address.
        ssl_ca_cert: path of the certificate authorities; None for the system's.
        cert_file: path of the client's certificate; None for none.
        key_file: path of its key.
        verify_ssl: whether the server's certificate is verified.
        tls_server_name: the name that it must be valid for, if not the host's.
        proxy: address of the HTTP proxy in front of the server; None for none.
        connection_pool_maxsize: requests in progress at once, not counting streams.
    """

    host: str
    ssl_ca_cert: Any
    cert_file: Any
    key_file: Any
    verify_ssl: Any
    tls_server_name: Any
    proxy: Any
    connection_pool_maxsize: int

    async def get_api_key_with_prefix(self, name: str, /) -> Any:
        """Return the value of the Authorization header for ``"BearerToken"``, None for none."""


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for these settings. It accepts the certificates that kubectl accepts.

    Raises:
        OSError, ssl.SSLError, ValueError: a certificate cannot be used.
    """
    context = client_tls_context(settings.ssl_ca_cert, verify=settings.verify_ssl)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, keyfile=settings.key_file)
    return context


class HTTPTransport:
    """A transport to one server, which sends each request once and keeps its connections.

    Args:
        settings: address, certificates, credentials and proxy. The Authorization header is asked for each request.
        headers: sent with each request that does not have them itself.
        connect_timeout: the time (seconds, a timedelta or ``"10s"``) to make a connection, TLS included; 10 by default.
        max_streams: watches that may be open at once; 1024 by default.
        max_response_bytes: the largest decompressed response other than a stream; 256 MiB by default.
        budgets: other limits than `max_streams` and the number of requests in `settings`.
        proxy: address of the HTTP proxy in front of the server; that of `settings` by default.

    Raises:
        ConfigurationError: time is virtual, or an address is invalid.
        OSError, ssl.SSLError, ValueError: a certificate cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout: DurationLike = 10.0,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
        budgets: Budgets | None = None,
        proxy: str | None = None,
    ) -> None:
        refuse_virtual_time()
        self._configuration = settings
        self._origin = _origin(str(settings.host).rstrip("/"), "server", "https://host")
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._connect_timeout = seconds_of("connect_timeout", connect_timeout)
        proxy_address = proxy or settings.proxy or None
        # A context takes long to make, since it reads all authorities of the system. It is made for certificates that
        # are not needed, too: one that cannot be used is reported when the client is opened.
        named = settings.ssl_ca_cert or settings.cert_file or proxy_address
        self._tls = tls_context(settings) if self._origin.secure or named else None
        self._proxy = None
        if proxy_address:
            proxy_origin = _origin(proxy_address, "proxy", "http://host:port")
            self._proxy = Proxy(proxy_origin, self._tls, getattr(settings, "proxy_headers", None))
        self._budgets = budgets or Budgets(max_streams, settings.connection_pool_maxsize)
        self._pool = Pool(
            self._origin,
            tls=self._tls,
            server_name=settings.tls_server_name or None,
            budgets=self._budgets,
            limit=max_response_bytes,
            proxy=self._proxy,
        )
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections; harmless if that was done. Cancellation leaves some to the event loop."""
        self._closed = True
        await self._pool.close()

    def retire(self) -> None:
        """End each connection with its request in progress; new requests go to another transport."""
        self._pool.retire()

    @property
    def is_in_use(self) -> bool:
        """Return whether a request is in progress."""
        return self._pool.is_in_use

    @property
    def host(self) -> str:
        """The server's host and port, for metrics."""
        return self._origin.authority

    @property
    def max_streams(self) -> int:
        """The limit of watches that may be open at once."""
        return self._budgets.max_streams

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once and return its response, whatever its status.

        A cancelled call drops the connection and may have been executed.

        Raises:
            NotSent: the connection could not be made (refused, unknown host, TLS, timeout), or the credentials could
                not be renewed.
            OutcomeUnknown: the request may have reached the server, but there was no response.
            InvalidResponse: the response is not valid HTTP, or too large.
            ConfigurationError: time is virtual, or too many streams are open.
            ValueError: the path or a header contains a line break, or the path a space.
        """
        refuse_virtual_time()
        if self._closed:
            raise NotSent(f"{request.label}: the client is closed")
        data = self._written(request, await self._authorization(request))
        connection = await self._pool.take(request) or await self._connected(request)
        try:
            head = await connection.exchange(request.method, data, whole=not request.stream, timeout=request.timeout)
            if request.stream and 200 <= head.status < 300:
                return _stream(self._pool, connection, request, head)
            body = connection.body()
            self._pool.give_back(connection)
            return HTTPResponse(head.status, head.headers, body, warnings=head.warnings)
        except (TimeoutError, OSError) as error:
            self._pool.drop(connection)
            raise outcome_unknown(request, error) from error
        except BaseException:
            self._pool.drop(connection)
            raise

    async def _connected(self, request: HTTPRequest) -> HTTPConnection:
        # Waiting for a free connection counts as connecting. It must end before the request's own timeout, after which
        # it would be unknown whether something was sent.
        total = request.timeout
        waiting = self._connect_timeout if total is None else min(self._connect_timeout, 0.8 * total)
        try:
            async with asyncio.timeout(waiting):
                return await self._pool.open(request)
        except (TimeoutError, OSError, UnicodeError) as error:
            raise NotSent(f"{request.label}: no connection to {self._origin.text}: {describe(error)}") from error

    def _written(self, request: HTTPRequest, authorization: str) -> bytes:
        """Return the request as it is sent."""
        origin = self._origin
        headers = {**self._headers, **request.headers} if self._headers else request.headers
        target = request.target
        if not (target.isascii() and target.isprintable()) or " " in target:
            raise ValueError(f"{request.label!r} is not a valid path: percent-encode special characters")
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if authorization:
            fields += f"authorization: {authorization}\r\n"
        if fields.count("\n") != len(headers) + bool(authorization) or fields.count("\r") != fields.count("\n"):
            raise ValueError(f"{request.label}: a header contains a line break")
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            fields += f"content-length: {len(request.body)}\r\n"
        elif not request.stream and "accept-encoding" not in headers:
            fields += _GZIP
        target = f"{origin.prefix}{target}"
        if self._proxy is not None and not origin.secure:  # without a tunnel, the proxy must know the server
            target = f"{origin.text}{target}"
            fields += self._proxy.fields
        head = f"{request.method} {target} HTTP/1.1\r\nhost: {origin.authority}\r\n{fields}\r\n"
        return head.encode() + request.body

    async def _authorization(self, request: HTTPRequest) -> str:
        try:
            value = await self._configuration.get_api_key_with_prefix("BearerToken")
        except Exception as error:  # noqa: BLE001 - a hook is foreign code, and its message may contain a token
            raise NotSent(f"{request.label}: the credentials could not be renewed ({type(error).__name__})") from None
        return value.strip() if value else self._origin.authorization


def _origin(address: str, what: str, form: str) -> Origin:
    try:
        return origin_of(address)
    except ValueError:
        shown = without_password(address)
        raise ConfigurationError(f"{shown!r} is not a valid {what} address: write it as {form}") from None


def _stream(pool: Pool, connection: HTTPConnection, request: HTTPRequest, head: Head) -> HTTPResponse:
    async def close() -> None:
        pool.drop(connection)

    chunks = _Chunks(request, connection)
    return HTTPResponse(head.status, head.headers, chunks=chunks, warnings=head.warnings, on_close=close)


class _Chunks:
    """The body of a streamed response, as it arrives."""

    def __init__(self, request: HTTPRequest, connection: HTTPConnection) -> None:
        self._request = request
        self._connection = connection

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._connection.chunk()
        except OSError as error:
            raise outcome_unknown(self._request, error) from error
        if not chunk:
            raise StopAsyncIteration
        return chunk


class KubernetesAsyncioTransport(HTTPTransport):
    """A transport to the server of an ApiClient, with its credentials.

    Address, certificates, proxy, credentials and default headers are the ApiClient's; the connections are this
    transport's own. The Authorization header is taken from the configuration for each request, so that its
    ``refresh_api_key_hook`` can renew it. No request is sent twice. The ApiClient remains yours to close.

    Args:
        api_client: made inside the running event loop.
        connect_timeout: the time (seconds, a timedelta or ``"10s"``) to make a connection, TLS included; 10 by default.
        max_streams: watches that may be open at once; 1024 by default, but no more than three quarters of
            ``Configuration.connection_pool_maxsize`` (100 by default).
        max_response_bytes: the largest decompressed response other than a stream; 256 MiB by default.

    Raises:
        ConfigurationError: time is virtual, or an address is invalid.
    """

    def __init__(
        self,
        api_client: ApiClient,
        *,
        connect_timeout: DurationLike = 10.0,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
    ) -> None:
        configuration: Any = api_client.configuration
        headers = {name: value for name, value in api_client.default_headers.items() if name.lower() != "user-agent"}
        super().__init__(
            configuration,
            headers=headers,
            connect_timeout=connect_timeout,
            max_response_bytes=max_response_bytes,
            budgets=Budgets.within(configuration.connection_pool_maxsize, max_streams),
            proxy=configuration.proxy or proxy_from_environment(str(configuration.host)),
        )
