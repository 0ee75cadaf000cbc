"""Render templates that a receiver's configuration brings along, within bounds.

Deliver as one HTTP request of any form.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Any, Literal, Self

import msgspec.json
from pydantic import Field, model_validator

from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.notification.channels.http import HTTPOptions, HTTPSender
from reconciler.notification.channels.limits import GuardedConfig
from reconciler.notification.credentials import Credentials
from reconciler.notification.errors import PermanentDeliveryError
from reconciler.notification.message import Message, message_document

__all__ = ["HTTPConfig", "Template", "WebhookChannel", "WebhookConfig"]


FUEL = 100_000
"""Instructions that one rendering may take; a template that loops for ever ends here, in milliseconds."""

OUTPUT_LIMIT = 1_048_576
"""Most characters of a rendering."""


class Template:
    """Render a Jinja template (minijinja's dialect) with a message; ``tojson`` writes a value as JSON.

    What a message does not have is empty: to lose a message for want of an extension would be worse.

    Args:
        source: the template.
        name: of the receiver, for errors.

    Raises:
        ConfigurationError: it cannot be read.
        MissingExtra: minijinja is not installed.
    """

    def __init__(self, source: str, *, name: str) -> None:
        try:
            import minijinja
        except ImportError:
            raise MissingExtra("minijinja", extra="notification", purpose="a template") from None
        self._error = minijinja.TemplateError
        self._environment = minijinja.Environment(
            templates={name: source}, fuel=FUEL, undefined_behavior="lenient", auto_escape_callback=lambda _name: False
        )
        self._name = name
        try:
            self._environment.render_template(name, **_SAMPLE)
        except minijinja.TemplateError as error:
            if error.kind in {"SyntaxError", "UnknownFilter", "UnknownTest", "UnknownFunction"}:
                raise ConfigurationError(f"the template of {name} cannot be read: {error}") from error

    def render(self, document: dict[str, Any]) -> str:
        """Render with the members of a document.

        Raises:
            PermanentDeliveryError: it fails, or takes too long.
        """
        try:
            # The engine may change what it is given, so it gets what nobody else holds.
            members = {"recipients": [], "extensions": {}, "actionLinks": [], **document}
            text = self._environment.render_template(self._name, **members)
        except self._error as error:
            raise PermanentDeliveryError(f"the template of {self._name} failed: {error.kind}") from error
        if len(text) > OUTPUT_LIMIT:
            raise PermanentDeliveryError(f"the template of {self._name} wrote more than {OUTPUT_LIMIT} characters")
        return text


_SAMPLE: dict[str, Any] = {
    "notification": "sample",
    "namespace": "default",
    "uid": "00000000-0000-0000-0000-000000000000",
    "type": "Simple",
    "priority": "Medium",
    "subject": "subject",
    "body": "body",
    "channel": "webhook:sample",
    "attempt": 1,
    "idempotencyKey": "sample/webhook:sample",
    "recipients": [],
    "extensions": {},
    "actionLinks": [],
}
"""What a template is tried with when it is loaded; one that fails on its values may still be right for others."""


_FORBIDDEN = frozenset({"host", "content-length", "transfer-encoding", "connection", "idempotency-key"})
_HEADER_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"


class HTTPConfig(GuardedConfig):
    """Say what every receiver that is reached over HTTP can be told."""

    url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """The address; give `url_credential` instead when it is a secret."""

    url_credential: str | None = None
    """Name of the credential that is the address."""

    timeout: float = Field(default=10.0, gt=0, le=300)
    """Seconds for one request."""

    ca_file: str | None = None
    """PEM file of the authorities to trust in place of the system's."""

    proxy: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """URL of a proxy. Default: what the environment says."""

    allow_local_addresses: bool = False
    """Whether the address may be loopback or link-local."""

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if (self.url is None) == (self.url_credential is None):
            raise ValueError("give url or url_credential, one of them")
        return self

    def credential_names(self) -> Sequence[str]:
        """Return the name of the address's credential."""
        return [self.url_credential] if self.url_credential is not None else []

    def options(self) -> HTTPOptions:
        """Return how requests are made."""
        return HTTPOptions(self.timeout, self.ca_file, self.proxy, self.allow_local_addresses)

    def address(self, credentials: Credentials) -> str:
        """Return the address as it is now.

        Raises:
            RetryableDeliveryError: its credential is missing.
        """
        return self.url if self.url is not None else credentials.get(self.url_credential or "")


class WebhookConfig(HTTPConfig):
    """Say how a webhook is called."""

    method: Literal["POST", "PUT"] = "POST"
    """The HTTP method."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Headers with fixed values."""

    header_credentials: dict[str, str] = Field(default_factory=dict)
    """Headers whose values are credentials, by the credential's name."""

    template: str | None = None
    """The body as a Jinja template over the message's members. Default: the message as JSON."""

    content_type: str = "application/json"
    """The body's media type."""

    hmac_credential: str | None = None
    """Name of the credential that the body is signed with, by HMAC-SHA256."""

    hmac_header: str = Field(default="X-Signature-256", pattern=_HEADER_NAME)
    """The header of the signature, whose value is ``sha256=`` and the digest in hexadecimal."""

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        for name, value in {**self.headers, **self.header_credentials}.items():
            if not re.match(_HEADER_NAME, name):
                raise ValueError(f"{name!r} is no name of a header")
            if name.lower() in _FORBIDDEN:
                raise ValueError(f"the header {name} is set by the channel itself")
            if "\n" in value or "\r" in value:
                raise ValueError(f"the value of the header {name} has a line end")
        return self

    def credential_names(self) -> Sequence[str]:
        """Return the names of all its credentials."""
        signed = [self.hmac_credential] if self.hmac_credential is not None else []
        return [*super().credential_names(), *self.header_credentials.values(), *signed]


class WebhookChannel:
    """Call a webhook: the message as JSON, or as a template makes it; signed if wanted.

    Each request has an ``Idempotency-Key``, the same for all attempts of a message.

    Args:
        name: the channel's name.
        config: how it is called.
        credentials: looked up at each request.

    Raises:
        ConfigurationError: the template cannot be read.
    """

    def __init__(self, name: str, config: WebhookConfig, credentials: Credentials) -> None:
        self.name = name
        self._config = config
        self._credentials = credentials
        self._sender = HTTPSender(config.options())
        self._template = Template(config.template, name=name) if config.template is not None else None

    async def deliver(self, message: Message) -> None:
        """Send the message. Cancellation closes the connection; what was sent stays sent.

        Raises:
            DeliveryError: by what the answer is; see `HTTPSender.send`.
        """
        config = self._config
        document = message_document(message)
        body = msgspec.json.encode(document) if self._template is None else self._rendered(document)
        given = {
            **config.headers,
            **{name: self._credentials.get(credential) for name, credential in config.header_credentials.items()},
        }
        own = {"Content-Type": config.content_type, "User-Agent": "kube-reconciler"}
        names = {name.lower() for name in given}
        headers = {
            **{name: value for name, value in own.items() if name.lower() not in names},
            **given,
            "Idempotency-Key": message.idempotency_key,
        }
        if config.hmac_credential is not None:
            key = self._credentials.get(config.hmac_credential).encode()
            headers[config.hmac_header] = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
        await self._sender.send(message, config.address(self._credentials), body, headers, method=config.method)

    async def close(self) -> None:
        """Close the connections. Cancellation leaves them to the loop."""
        await self._sender.close()

    def _rendered(self, document: dict[str, object]) -> bytes:
        assert self._template is not None  # noqa: S101 - asked by the caller
        whole = {"recipients": [], "extensions": {}, "actionLinks": [], **document}
        return self._template.render(whole).encode()
