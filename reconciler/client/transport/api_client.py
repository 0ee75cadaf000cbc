"""Carry requests over sockets: on the connections and the credentials of a kubernetes_asyncio ApiClient."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from yarl import URL

from reconciler.client.session.answers import label
from reconciler.client.transport.http11 import MAX_BODY, Garbled, TooLarge
from reconciler.client.transport.network import proxy_of_environment, refuse_virtual_time, unknown, words
from reconciler.client.transport.pool import MAX_STREAMS, Budgets
from reconciler.client.transport.redaction import without_password
from reconciler.errors import ConfigurationError, NotSent
from reconciler.http import HTTPRequest, HTTPResponse

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

__all__ = ["KubernetesAsyncioTransport"]

_READ_BUFFER = 2**21
"""Bytes: a watch line holds a whole object, up to etcd's 1.5 MiB and more; small buffers would pause reading often."""

_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
)
_LOST = (aiohttp.ClientError, TimeoutError, OSError)


class KubernetesAsyncioTransport:
    """Send requests to the server of an ApiClient of ``kubernetes_asyncio``, with its credentials.

    Connection pool, TLS, proxy and default headers are the ApiClient's; its models are not used. The Authorization
    header is taken from its configuration for each request, so that its ``refresh_api_key_hook`` can renew it. Nothing
    is ever sent twice. The ApiClient stays the caller's to close, after this.

    Args:
        api_client: made inside the running event loop.
        connect_timeout: seconds to make a connection, TLS included; 10 by default.
        max_streams: open watches at most; 1024 by default, but no more than three quarters of the connections that the
            ApiClient may have (``Configuration.connection_pool_maxsize``, 100 by default).
        max_response_bytes: bytes of an answer's decompressed body at most, streams excepted; 256 MiB by default.

    Raises:
        ConfigurationError: time is virtual.
    """

    def __init__(
        self,
        api_client: ApiClient,
        *,
        connect_timeout: float = 10.0,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
    ) -> None:
        refuse_virtual_time()
        self._configuration: Any = api_client.configuration
        rest: Any = api_client.rest_client
        self._host = str(self._configuration.host).rstrip("/")
        self._connect_timeout = connect_timeout
        self._max_response_bytes = max_response_bytes
        self._headers = {
            key.lower(): value for key, value in api_client.default_headers.items() if key.lower() != "user-agent"
        }
        self._options: dict[str, Any] = {
            "proxy": rest.proxy or _proxy_of(URL(self._host)),
            "proxy_headers": rest.proxy_headers,
            "server_hostname": rest.server_hostname,
            "allow_redirects": False,  # an Authorization header is for one server
        }
        connector = rest.pool_manager.connector
        self._budgets = Budgets.within(connector.limit, max_streams)
        # A session of our own on the same connections: the caller's keeps its ways. No trust_env, which would look up
        # ~/.netrc in a thread for each request; no cookies.
        self._session = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER,
        )
        # aiohttp sends GET, PUT and DELETE again when a kept connection dies under them; there is no public switch.
        self._session._retry_connection = False  # noqa: SLF001 - see above

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections; they are closed with the ApiClient. Harmless when done already, or cancelled."""
        await self._session.close()

    @property
    def host(self) -> str:
        """Return the server's host and port, for metrics."""
        return URL(self._host).host_port_subcomponent or ""

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
            ConfigurationError: time is virtual, the server's address is invalid, or too many streams are open.
        """
        refuse_virtual_time()
        if self._session.closed:
            raise NotSent(f"{label(request)}: the client is closed")
        budget = self._budgets.of(request)
        request = await self._turn(request, budget)
        streams = False
        try:
            answer = await self._sent(request, budget)
            streams = answer.chunks is not None
        finally:
            if not streams:
                budget.release()
        return answer

    async def _turn(self, request: HTTPRequest, budget: asyncio.Semaphore) -> HTTPRequest:
        """Wait until the request may be sent; return it with the time that is left."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._waiting(request.timeout)):
                await budget.acquire()
        except TimeoutError:
            raise NotSent(f"{label(request)}: timed out while other requests were in progress") from None
        if request.timeout is None:
            return request
        return replace(request, timeout=request.timeout - (asyncio.get_running_loop().time() - began))

    async def _sent(self, request: HTTPRequest, budget: asyncio.Semaphore) -> HTTPResponse:
        headers = {**self._headers, **request.headers, **await self._authorization(request)}
        try:
            if request.stream:
                return await self._open(request, headers, budget)
            async with self._request(request, headers, request.timeout) as response:
                return _answer(response, await self._body(response))
        except aiohttp.InvalidURL:
            shown = without_password(self._host)
            raise ConfigurationError(f"{shown!r} is not a valid server address: write it as https://host") from None
        except _NOT_SENT as error:
            # The origin alone: an address may hold a password before the host, and a token in its path.
            origin = URL(self._host).origin()
            # Not its text, nor itself as the cause: both may show a proxy's address with its password.
            raise NotSent(f"{label(request)}: no connection to {origin}: {words(_cause(error))}") from None
        except _LOST as error:
            raise unknown(request, _cause(error)) from error

    async def _open(self, request: HTTPRequest, headers: dict[str, str], budget: asyncio.Semaphore) -> HTTPResponse:
        async with asyncio.timeout(request.timeout):
            response = await self._request(request, headers, None)
            if not 200 <= response.status < 300:
                async with response:
                    return _answer(response, await self._body(response))

        async def close() -> None:
            budget.release()
            # There is nothing to say goodbye for in the middle of a stream. A TLS connection that is closed politely
            # outlives this call, and then the event loop, with its socket open.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()

        answer = _answer(response, b"")
        answer.chunks, answer.on_close = _Chunks(request, response), close
        return answer

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self._max_response_bytes:
                raise TooLarge(self._max_response_bytes)
        return b"".join(parts)

    def _request(
        self, request: HTTPRequest, headers: dict[str, str], total: float | None
    ) -> aiohttp.client._RequestContextManager:
        waiting = self._waiting(total)
        return self._session.request(
            request.method,
            URL(self._host + request.target, encoded=True),
            # A file object, since aiohttp warns of large bodies given as bytes; it is written in one piece anyway.
            data=io.BytesIO(request.body) if request.body else None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=total, connect=waiting, sock_connect=waiting),
            **self._options,
        )

    def _waiting(self, total: float | None) -> float:
        # Waiting for a free connection counts as connecting. It must end before the total, which cannot tell whether
        # something was sent.
        return self._connect_timeout if total is None else min(self._connect_timeout, 0.8 * total)

    async def _authorization(self, request: HTTPRequest) -> dict[str, str]:
        try:
            value = await self._configuration.get_api_key_with_prefix("BearerToken")
        except Exception as error:  # noqa: BLE001 - a hook is foreign code, and what it says may hold a token
            raise NotSent(f"{label(request)}: the credentials could not be renewed ({type(error).__name__})") from None
        return {"authorization": value.strip()} if value else {}


class _Chunks:
    """Be the body of a streaming answer, as it comes."""

    def __init__(self, request: HTTPRequest, response: aiohttp.ClientResponse) -> None:
        self._request = request
        self._chunks = response.content.iter_any()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except _LOST as error:
            raise unknown(self._request, _cause(error)) from error


def _answer(response: aiohttp.ClientResponse, body: bytes) -> HTTPResponse:
    headers = {name.lower(): value for name, value in response.headers.items()}
    warnings = response.headers.getall("Warning", []) if "warning" in headers else ()
    return HTTPResponse(response.status, headers, body, warnings=warnings)


def _cause(error: BaseException) -> BaseException:
    """Return what lies behind an error of aiohttp, whose own texts show the objects inside of it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return ConnectionResetError("the server closed the connection")
    if isinstance(error, aiohttp.ClientResponseError):
        # Its text shows the address, which may hold a password.
        return Garbled(f"{error.status} {' '.join(error.message.split())[:200]}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    return TimeoutError() if isinstance(error, TimeoutError) else error


def _proxy_of(url: URL) -> str | None:
    return proxy_of_environment(url.scheme, url.host or "")
