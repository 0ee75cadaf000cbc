"""The webhook channel: one HTTP request for each message, with an optional template and signature."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal, Self

import msgspec.json
from pydantic import Field, model_validator

from reconciler.notification.channels.http_channel import HTTPChannel, HTTPConfig, OutgoingRequest
from reconciler.notification.channels.template import Template
from reconciler.notification.credentials import Credentials
from reconciler.notification.message import Message, message_document

__all__ = ["WebhookChannel", "WebhookConfig"]

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

    def build(self, name: str, credentials: Credentials) -> WebhookChannel:
        """Return a new channel of this name.

        Raises:
            ConfigurationError: the template has a syntax error.
        """
        return WebhookChannel(name, self, credentials)


class WebhookChannel(HTTPChannel[WebhookConfig]):
    """A channel that calls a webhook with the message as JSON or rendered by a template, signed if configured.

    Each request has an ``Idempotency-Key``, the same for all attempts of a message.

    Args:
        name: the channel's name.
        config: the receiver's options.
        credentials: read for each request.

    Raises:
        ConfigurationError: the template has a syntax error.
    """

    def __init__(self, name: str, config: WebhookConfig, credentials: Credentials) -> None:
        super().__init__(name, config, credentials)
        self._template = Template(config.template, name=name) if config.template is not None else None

    async def request(self, message: Message) -> OutgoingRequest:
        """Return the request for a message. Cancellation changes nothing.

        Raises:
            RetryableDeliveryError: a credential does not exist, or templates cannot be rendered now.
            PermanentDeliveryError: the template fails.
        """
        config, credentials = self._config, self._credentials
        document = message_document(message)
        if self._template is None:
            body = msgspec.json.encode(document)
        else:
            body = (await self._template.render(document)).encode()
        headers = {
            **config.headers,
            **{name: credentials.get(credential) for name, credential in config.header_credentials.items()},
            "Idempotency-Key": message.idempotency_key,
        }
        if "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = config.content_type
        if config.hmac_credential is not None:
            key = credentials.get(config.hmac_credential).encode()
            headers[config.hmac_header] = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
        return OutgoingRequest(config.current_url(credentials), body, headers, config.method)
