"""HTTP delivery: one request for each message, and the delivery error that each kind of response means."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies_environment, proxy_bypass

from reconciler._core.tls import client_tls_context
from reconciler.clock import current_clock
from reconciler.http import parse_retry_after
from reconciler.notification.channels.address_guard import (
    canonical_host,
    check_literal,
    check_name,
    checked_socket,
    guarded_resolver,
)
from reconciler.notification.errors import (
    DeferredDeliveryError,
    DeliveryError,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.message import Message

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

    from reconciler.notification.channels.http_channel import ConnectionConfig

__all__ = ["HTTPSender", "status_error"]

RESPONSE_LIMIT = 2_048
"""Maximum bytes of a response that are read, for the error text. Then the connection is closed."""

_UNREADABLE = re.compile(r"[\\\s\x00-\x20\x7f]")
"""Characters that no valid URL contains, and that URL parsers treat differently."""

RESPONSE_TAIL = 256
"""Bytes that are dropped from the end of a truncated response: they could be half a secret, which is not recognized."""

_RETRYABLE = frozenset({408, 425, 500, 501, 502, 503, 504})
_DOUBTFUL = frozenset({500, 502, 504})
"""Responses after which the receiver may have processed the message: it failed halfway, or a gateway lost the reply."""


class HTTPSender:
    """An HTTP client with persistent connections, opened in a running event loop at first use and closed by `close`.

    Redirects are not followed, since they could send a secret or a message elsewhere. Requests share nothing but
    connections, and ``.netrc`` is not read.
    """

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self, message: Message, url: str, body: bytes, headers: Mapping[str, str], *, method: str = "POST"
    ) -> None:
        """Send a request, and return when the receiver has confirmed it with a 2xx response.

        Cancellation closes the connection. If the request was sent by then, the message is marked as sent.

        Raises:
            PermanentDeliveryError: the URL is invalid, or the response says that a retry cannot succeed.
            DeferredDeliveryError: the response is 429.
            RetryableDeliveryError: the response is 408, 425 or 5xx, or the receiver is unreachable.
            UnknownDeliveryError: the connection was lost after the message was sent.
        """
        import aiohttp

        target = self._parsed(url)
        environment = _proxy_of_environment(target) if self._config.proxy is None else None
        proxy = self._config.proxy or environment
        try:
            async with asyncio.timeout(self._config.timeout):
                await self._check(target, through_proxy=proxy is not None)
            async with self._opened(guarded=environment is None).request(
                method,
                target,
                data=body,
                headers={"Accept-Encoding": "identity", **headers},
                allow_redirects=False,
                proxy=proxy,
                trace_request_ctx=message,
            ) as response:
                await _raise_for_status(response)
        except DeliveryError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _failure(error, message, self._config) from error

    async def close(self) -> None:
        """Close the connections. If cancelled, they are left to the event loop."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _parsed(self, url: str) -> URL:
        """Return the URL as it is requested. It is parsed once, so that the checked URL is the requested one."""
        from yarl import URL

        try:
            if _UNREADABLE.search(url):
                raise ValueError(url)
            target = URL(url)
            if target.scheme in {"http", "https"} and target.host:
                return target.with_host(canonical_host(target.host))
        except ValueError:
            raise PermanentDeliveryError("the receiver's URL is invalid") from None
        raise PermanentDeliveryError("the receiver's URL must start with http:// or https:// and contain a host")

    async def _check(self, target: URL, *, through_proxy: bool) -> None:
        if self._config.allow_local_addresses:
            return
        host = target.raw_host or ""
        check_literal(host)
        if through_proxy:
            await check_name(host, target.port or 0)

    def _opened(self, *, guarded: bool) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._sessions, self._loop = {}, loop
        session = self._sessions.get(guarded)
        if session is None or session.closed:
            session = self._sessions[guarded] = self._new_session(guarded=guarded)
        return session

    def _new_session(self, *, guarded: bool) -> aiohttp.ClientSession:
        """Return a new session. An unguarded one is for proxies from the environment, which may be local."""
        import aiohttp

        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_mark_sent)
        guarded = guarded and not self._config.allow_local_addresses
        connector = aiohttp.TCPConnector(
            ssl=client_tls_context(self._config.ca_file),
            resolver=guarded_resolver() if guarded else None,
            socket_factory=checked_socket if guarded else None,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._config.timeout),
            trust_env=False,  # it would read .netrc as well
            trace_configs=[trace],
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )


def _proxy_of_environment(target: URL) -> str | None:
    if target.host is None or proxy_bypass(target.host):
        return None
    return getproxies_environment().get(target.scheme)


async def _mark_sent(_session: Any, context: Any, _parameters: Any) -> None:
    message = getattr(context, "trace_request_ctx", None)
    if isinstance(message, Message):
        message.mark_sent()


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    raise status_error(status, await _text(response), response.headers)


def status_error(status: int, text: str, headers: Mapping[str, str]) -> DeliveryError:
    """Return the delivery error that a response means whose status is not 2xx. It honors ``Retry-After``."""
    error = f"HTTP {status}" + (f": {text}" if text else "")
    seconds = parse_retry_after(headers, current_clock().now()) or None
    if status == 429:
        return DeferredDeliveryError(error, retry_after=seconds or 60.0)
    if status in _RETRYABLE or status >= 500:
        return RetryableDeliveryError(error, retry_after=seconds, doubtful=status in _DOUBTFUL)
    if 300 <= status < 400:
        return PermanentDeliveryError(f"HTTP {status}: redirects are not followed; configure the URL that it leads to")
    return PermanentDeliveryError(error)


async def _text(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of a response's text, in one line."""
    import aiohttp

    try:
        content = await response.content.read(RESPONSE_LIMIT)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return ""
    finally:
        response.close()
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return "(compressed response)"
    # Not cut any further, because texts are redacted before they are cut.
    content = content if len(content) < RESPONSE_LIMIT else content[:-RESPONSE_TAIL]
    text = " ".join(content.decode("utf-8", "replace").split())
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _failure(error: BaseException, message: Message, config: ConnectionConfig) -> DeliveryError:
    """Return the delivery error for a failed request: not delivered, or unknown.

    aiohttp's messages contain the URL, which may be a secret, so they are not used.
    """
    import aiohttp

    delivery_error = next((each for each in _causes(error) if isinstance(each, DeliveryError)), None)
    if delivery_error is not None:
        return delivery_error
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)):
        inner = getattr(error, "certificate_error", error)
        reason = getattr(inner, "verify_message", "") or type(inner).__name__
        return RetryableDeliveryError(f"the receiver's certificate is not trusted: {reason}")
    if isinstance(error, TimeoutError):
        what = f"no response within {config.timeout:g} s"
    elif isinstance(error, (aiohttp.ClientConnectorDNSError, aiohttp.ClientConnectorError)):
        what = f"cannot connect: {_reason(error.os_error)}"
    elif isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return PermanentDeliveryError("the receiver's URL or a configured header is invalid")
    else:
        what = f"connection lost: {_reason(error)}"
    return UnknownDeliveryError(what) if message.is_sent else RetryableDeliveryError(what)


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
