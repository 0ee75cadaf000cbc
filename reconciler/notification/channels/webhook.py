"""The webhook channel: one HTTP request for each message, with an optional template and signature."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal, Self

import msgspec.json
from pydantic import Field, model_validator

from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.notification.channels.http_channel import HTTPChannel, HTTPConfig, OutgoingRequest
from reconciler.notification.credentials import Credentials
from reconciler.notification.errors import PermanentDeliveryError
from reconciler.notification.message import Message, message_document
from reconciler.wire import JSONObject

__all__ = ["Template", "WebhookChannel", "WebhookConfig"]

FUEL = 100_000
"""Maximum instructions for one rendering; stops an endless template within milliseconds."""

OUTPUT_LIMIT = 1_048_576
"""Maximum characters in a rendering."""


class Template:
    """A Jinja template (minijinja's dialect) that renders a message; the filter ``tojson`` encodes a value as JSON.

    Undefined values and their members render as the empty string, because a lost message would be worse than a missing
    extension.

    Raises:
        ConfigurationError: the template has a syntax error.
        MissingExtra: minijinja is not installed.
    """

    def __init__(self, source: str, *, name: str) -> None:
        try:
            import minijinja
        except ImportError:
            raise MissingExtra("minijinja", extra="notification", purpose="a template") from None
        self._error = minijinja.TemplateError
        self._environment = minijinja.Environment(
            templates={name: source},
            fuel=FUEL,
            undefined_behavior="chainable",
            auto_escape_callback=lambda _name: False,
        )
        self._name = name
        try:
            self._environment.render_template(name, **_SAMPLE)
        except minijinja.TemplateError as error:
            if error.kind in {"SyntaxError", "UnknownFilter", "UnknownTest", "UnknownFunction"}:
                # The further lines of the text are the template, which may contain a token, as does a traceback.
                raise ConfigurationError(f"invalid template of {name}: {str(error).partition(chr(10))[0]}") from None

    def render(self, document: JSONObject) -> str:
        """Render the template with the members of a document.

        Raises:
            PermanentDeliveryError: the template fails, or reaches a limit.
        """
        try:
            # The engine may change its arguments, so it gets a copy.
            members = {"recipients": [], "extensions": {}, "actionLinks": [], **document}
            text = self._environment.render_template(self._name, **members)
        except self._error as error:
            raise PermanentDeliveryError(f"the template of {self._name} failed: {error.kind}") from error
        if len(text) > OUTPUT_LIMIT:
            raise PermanentDeliveryError(f"the template of {self._name} exceeded {OUTPUT_LIMIT} characters")
        return text


_SAMPLE = message_document(
    Message(
        name="sample",
        namespace="default",
        uid="00000000-0000-0000-0000-000000000000",
        type="Simple",
        priority="Medium",
        subject="subject",
        body="body",
        channel="webhook:sample",
    )
)
"""Sample values for checking a template when it is loaded. A template may fail on these and still work on others."""


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
            RetryableDeliveryError: a credential does not exist.
            PermanentDeliveryError: the template fails.
        """
        config, credentials = self._config, self._credentials
        document = message_document(message)
        body = msgspec.json.encode(document) if self._template is None else self._template.render(document).encode()
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
