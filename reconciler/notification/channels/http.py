"""HTTP delivery: one request for each message, the delivery error that each kind of response means, and the webhook."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.request import getproxies_environment, proxy_bypass

import msgspec.json
from pydantic import Field, model_validator

from reconciler._core.certificates import client_tls_context
from reconciler._core.wire import JSONObject
from reconciler.clock import current_clock
from reconciler.http import parse_retry_after
from reconciler.notification.channel import (
    DeferredDeliveryError,
    DeliveryError,
    DurationSeconds,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
    message_document,
)
from reconciler.notification.channels.address_guard import (
    canonical_host,
    check_literal,
    check_name,
    checked_socket,
    guarded_resolver,
)
from reconciler.notification.channels.template import check_template, render_template
from reconciler.notification.credentials import Credentials
from reconciler.notification.redaction import encodable
from reconciler.notification.routing_config import ReceiverConfig

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

RESPONSE_LIMIT = 2_048
"""Maximum bytes of a response that are read, for the error text. Then the connection is closed."""

_UNREADABLE = re.compile(r"[\\\s\x00-\x20\x7f]")
"""Characters that no valid URL contains, and that URL parsers treat differently."""

RESPONSE_TAIL = 256
"""Bytes that are dropped from the end of a truncated response: they could be half a secret, which is not recognized."""

_RETRYABLE = frozenset({408, 425, 500, 501, 502, 503, 504})
_DOUBTFUL = frozenset({500, 502, 504})
"""Responses after which the receiver may have processed the message: it failed halfway, or a gateway lost the reply."""


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


WebURL = Annotated[str, Field(pattern=r"^https?://\S+$")]
"""An http or https URL in a configuration."""


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """The HTTP request for one message. Its ``repr`` shows only the method: the rest may contain secrets."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: Literal["POST", "PUT"] = "POST"


class ConnectionConfig(ReceiverConfig):
    """The options of all receivers that use HTTP."""

    timeout: DurationSeconds = Field(default=10.0, gt=0, le=300)
    """Timeout of one request in seconds."""

    ca_file: str | None = None
    """PEM file of the certificate authorities to trust instead of the system's."""

    proxy: WebURL | None = None
    """URL of a proxy. Default: the proxy that the environment variables name."""

    allow_local_addresses: bool = False
    """Whether the URL may lead to a loopback, link-local or metadata address. Then a proxy may resolve names, too."""

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request for a message. Cancellation changes nothing.

        Raises:
            RetryableDeliveryError: a credential does not exist, or the request cannot be made now.
            PermanentDeliveryError: the service cannot accept this message.
        """
        raise NotImplementedError

    def build(self, name: str, credentials: Credentials) -> HTTPChannel:
        """Build a channel of this name.

        Raises:
            ConfigurationError: an option is invalid.
            MissingExtra: a library that the channel needs is not installed.
        """
        return HTTPChannel(name, self, credentials)


class HTTPConfig(ConnectionConfig):
    """The options of receivers with a URL of their own."""

    url: WebURL | None = None
    """The URL; use `url_credential` instead if it is a secret."""

    url_credential: str | None = None
    """Name of the credential that holds the URL."""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if (self.url is None) == (self.url_credential is None):
            raise ValueError("set exactly one of url and url_credential")
        return self

    def current_url(self, credentials: Credentials) -> str:
        """Return the URL, from its current credential if it has one.

        Raises:
            RetryableDeliveryError: the credential does not exist.
        """
        return self.url if self.url is not None else credentials.get(self.url_credential or "")


_HEADERS = {"Content-Type": "application/json", "User-Agent": "kube-reconciler", "Accept-Encoding": "identity"}
"""The headers that a request has unless it brings its own."""


class HTTPChannel:
    """A channel that sends each message as one HTTP request: the one that its configuration returns.

    Its connections are persistent, opened at first use and closed by `close`. Redirects are not followed, since they
    could send a secret or a message elsewhere. Requests share nothing but connections, and ``.netrc`` is not read.
    """

    def __init__(self, name: str, config: ConnectionConfig, credentials: Credentials) -> None:
        self.name = name
        self._config = config
        self._credentials = credentials
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def deliver(self, message: Message) -> None:
        """Send the message, and return when the receiver has confirmed it with a 2xx response.

        Cancellation closes the connection. If the request was sent by then, the message is marked as sent.

        Raises:
            PermanentDeliveryError: the URL is invalid, or the response says that a retry cannot succeed.
            DeferredDeliveryError: the response is 429.
            RetryableDeliveryError: the response is 408, 425 or 5xx, or the receiver is unreachable.
            UnknownDeliveryError: the connection was lost after the message was sent.
        """
        await self.send(message, await self._config.outgoing(message, self._credentials))

    async def send(self, message: Message, request: OutgoingRequest) -> None:
        """Send the request for a message; see `deliver`."""
        import aiohttp

        names = {name.lower() for name in request.headers}
        headers = {name: value for name, value in _HEADERS.items() if name.lower() not in names}
        target = _parsed(request.url)
        environment = _proxy_of_environment(target) if self._config.proxy is None else None
        proxy = self._config.proxy or environment
        try:
            async with asyncio.timeout(self._config.timeout):
                await self._check(target, through_proxy=proxy is not None)
            async with self._session(guarded=environment is None).request(
                request.method,
                target,
                data=request.body,
                headers={**headers, **request.headers},
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
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def _check(self, target: URL, *, through_proxy: bool) -> None:
        if self._config.allow_local_addresses:
            return
        host = target.raw_host or ""
        check_literal(host)
        if through_proxy:
            await check_name(host, target.port or 0)

    def _session(self, *, guarded: bool) -> aiohttp.ClientSession:
        """Return the session; an unguarded one is for proxies from the environment, which may be local."""
        import aiohttp

        if guarded in self._sessions:
            return self._sessions[guarded]
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_mark_sent)
        checks = guarded and not self._config.allow_local_addresses
        session = self._sessions[guarded] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=client_tls_context(self._config.ca_file),
                resolver=guarded_resolver() if checks else None,
                socket_factory=checked_socket if checks else None,
            ),
            timeout=aiohttp.ClientTimeout(total=self._config.timeout),
            trust_env=False,  # it would read .netrc as well
            trace_configs=[trace],
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return session


def _parsed(url: str) -> URL:
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


def encoded(message: Message, document: Callable[[Message], JSONObject], limit: int) -> bytes:
    """Return the document of a message as JSON within a service's limit.

    What is dropped until it fits: the end of the body, then extensions and links.

    Raises:
        PermanentDeliveryError: it does not even fit without body, extensions and links.
    """
    message = replace(message, subject=encodable(message.subject), body=encodable(message.body))
    for reduced in (message, replace(message, extensions={}, links=())):
        content = msgspec.json.encode(document(reduced))
        length = len(reduced.body)
        while len(content) > limit and length:
            excess = len(content) - limit
            # A character takes at most six bytes (an escape), so this removes no more than necessary in a few steps.
            length = max(0, length - max(excess // 6, 1, length // 64))
            content = msgspec.json.encode(document(replace(reduced, body=reduced.body[:length] + "…")))
        if len(content) <= limit:
            return content
    raise PermanentDeliveryError(f"the message is larger than the {limit} bytes that the service accepts")


_FORBIDDEN = frozenset({"host", "content-length", "transfer-encoding", "connection", "idempotency-key"})
_HEADER_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"


class WebhookConfig(HTTPConfig):
    """The options of a webhook receiver."""

    method: Literal["POST", "PUT"] = "POST"
    """The HTTP method."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Headers with fixed values."""

    header_credentials: dict[str, str] = Field(default_factory=dict)
    """Headers whose values are credentials: header name to credential name."""

    template: str | None = None
    """Jinja template of the request body, over the members of the message. Default: the message as JSON."""

    content_type: str = "application/json"
    """Media type of the body."""

    hmac_credential: str | None = None
    """Name of the credential that signs the body with HMAC-SHA256."""

    hmac_header: str = Field(default="X-Signature-256", pattern=_HEADER_NAME)
    """Header of the signature, whose value is ``sha256=`` and the digest in hexadecimal."""

    @model_validator(mode="after")
    def _check_headers(self) -> Self:
        for name, value in {**self.headers, **self.header_credentials}.items():
            if not re.match(_HEADER_NAME, name):
                raise ValueError(f"{name!r} is not a valid header name")
            if name.lower() in _FORBIDDEN:
                raise ValueError(f"the header {name} cannot be configured: the channel sets it")
            if "\n" in value or "\r" in value:
                raise ValueError(f"the value of the header {name} contains a line break")
        return self

    def build(self, name: str, credentials: Credentials) -> HTTPChannel:
        """Build a channel of this name.

        Raises:
            ConfigurationError: the template has a syntax error, or exceeds the limits with a sample.
            MissingExtra: minijinja is not installed, and there is a template.
        """
        if self.template is not None:
            check_template(self.template, name)
        return super().build(name, credentials)

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the message as JSON or rendered by the template, signed if configured.

        Its ``Idempotency-Key`` is the same for all attempts of a message. Cancellation changes nothing.

        Raises:
            RetryableDeliveryError: a credential does not exist, or templates cannot be rendered now.
            PermanentDeliveryError: the template fails.
        """
        document = message_document(message)
        if self.template is None:
            body = msgspec.json.encode(document)
        else:
            body = (await render_template(self.template, message.channel, document)).encode()
        headers = {
            **self.headers,
            **{name: credentials.get(credential) for name, credential in self.header_credentials.items()},
            "Idempotency-Key": message.idempotency_key,
        }
        if "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = self.content_type
        if self.hmac_credential is not None:
            key = credentials.get(self.hmac_credential).encode()
            headers[self.hmac_header] = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
        return OutgoingRequest(self.current_url(credentials), body, headers, self.method)
