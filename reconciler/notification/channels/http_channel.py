"""Channels that send one HTTP request for each message: what their configurations share, and the channel itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Generic, Literal, Self, TypeVar

import msgspec.json
from pydantic import Field, model_validator

from reconciler._core.wire import JSONObject
from reconciler.notification.channels.http import HTTPSender
from reconciler.notification.channels.limits import LimitsConfig
from reconciler.notification.credentials import Credentials
from reconciler.notification.errors import PermanentDeliveryError
from reconciler.notification.message import Message
from reconciler.notification.redaction.text import encodable

__all__ = ["ConnectionConfig", "HTTPChannel", "HTTPConfig", "OutgoingRequest", "WebURL", "encoded"]

WebURL = Annotated[str, Field(pattern=r"^https?://\S+$")]
"""An http or https URL in a configuration."""


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """The HTTP request for one message. Its ``repr`` shows only the method: the rest may contain secrets."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: Literal["POST", "PUT"] = "POST"


class ConnectionConfig(LimitsConfig):
    """The options of all receivers that use HTTP."""

    timeout: float = Field(default=10.0, gt=0, le=300)
    """Timeout of one request in seconds."""

    ca_file: str | None = None
    """PEM file of the certificate authorities to trust instead of the system's."""

    proxy: WebURL | None = None
    """URL of a proxy. Default: the proxy that the environment variables name."""

    allow_local_addresses: bool = False
    """Whether the URL may lead to a loopback, link-local or metadata address. Then a proxy may resolve names, too."""

    def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request for a message.

        Raises:
            RetryableDeliveryError: a credential does not exist.
            PermanentDeliveryError: the service cannot accept this message.
        """
        raise NotImplementedError

    def build(self, name: str, credentials: Credentials) -> HTTPChannel[Self]:
        """Return a new channel of this name."""
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


_HEADERS = {"Content-Type": "application/json", "User-Agent": "kube-reconciler"}
"""The headers that a request has unless it brings its own."""


C_co = TypeVar("C_co", bound=ConnectionConfig, covariant=True)


class HTTPChannel(Generic[C_co]):
    """A channel that sends each message as one HTTP request, by default the one that its configuration returns."""

    def __init__(self, name: str, config: C_co, credentials: Credentials) -> None:
        self.name = name
        self._config = config
        self._credentials = credentials
        self._sender = HTTPSender(config)

    async def deliver(self, message: Message) -> None:
        """Send the message. Cancellation closes the connection; the receiver may have the message by then.

        Raises:
            DeliveryError: depends on the response; see `HTTPSender.send`.
        """
        request = await self.request(message)
        names = {name.lower() for name in request.headers}
        headers = {name: value for name, value in _HEADERS.items() if name.lower() not in names}
        await self._sender.send(
            message, request.url, request.body, {**headers, **request.headers}, method=request.method
        )

    async def request(self, message: Message) -> OutgoingRequest:
        """Return the request for a message."""
        return self._config.outgoing(message, self._credentials)

    async def close(self) -> None:
        """Close the connections. If cancelled, they are left to the event loop."""
        await self._sender.close()


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
