"""The email channel."""

from __future__ import annotations

import email.policy
import hashlib
import html
import logging
import re
import ssl
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from reconciler._core.certificates import client_tls_context
from reconciler.clock import current_clock
from reconciler.errors import importing
from reconciler.notification.channel import (
    DeliveryError,
    DurationSeconds,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
    footer,
)
from reconciler.notification.channels.address_guard import check_mail_server
from reconciler.notification.credentials import Credentials
from reconciler.notification.redaction import one_line, visible, visible_line
from reconciler.notification.routing_config import ReceiverConfig

if TYPE_CHECKING:
    import aiosmtplib

_log = logging.getLogger("reconciler.notification")


class _Policy(email.policy.EmailPolicy):
    """An email policy that writes a subject verbatim, without the header parser.

    The parser decodes encoded words such as ``=?utf-8?q?a=0d=0aBcc:_x?=``, and some versions of Python write the line
    breaks in them to the header.
    """

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:
        """Return the header to store."""
        return (name, _subject(value)) if name == "Subject" else super().header_store_parse(name, value)


_POLICY = _Policy(linesep="\r\n", cte_type="7bit", refold_source="none")
"""Seven bits, because not every mail server accepts eight."""

_ADDRESS = r"^[^\s@<>,;:\"()\[\]]+@[^\s@<>,;:\"()\[\]]+$"
_SENDABLE = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}")
"""Addresses that need no quoting in an SMTP command or a header."""

_PLAIN_SUBJECT = re.compile(r"[ -~]{1,200}")
_PRIORITY = {"Critical": "1", "High": "2", "Medium": "3", "Low": "5"}


class EmailConfig(ReceiverConfig):
    """The options of an email receiver."""

    host: str
    """Host name of the mail server."""

    port: int = Field(default=587, ge=1, le=65535)
    """Port of the mail server: 587 for STARTTLS, 465 for implicit TLS, 25 for neither."""

    security: Literal["starttls", "tls", "none"] = "starttls"
    """``none`` is unencrypted, so a password is not allowed with it."""

    username: str | None = None
    """User name for AUTH; requires `password_credential`."""

    password_credential: str | None = None
    """Name of the credential that holds the password."""

    sender: str = Field(pattern=_ADDRESS)
    """Address of the sender."""

    to: list[str] = Field(default_factory=list)
    """Addresses of the recipients, unless the request names others under ``recipients.email``."""

    ca_file: str | None = None
    """PEM file of the certificate authorities to trust instead of the system's."""

    timeout: DurationSeconds = Field(default=20.0, gt=0, le=300)
    """Timeout of each SMTP command in seconds."""

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.username is None) != (self.password_credential is None):
            raise ValueError("username and password_credential must be set together")
        if self.username is not None and self.security == "none":
            raise ValueError("security: none would send the password unencrypted")
        return self

    def build(self, name: str, credentials: Credentials) -> EmailChannel:
        """Build a channel of this name.

        Raises:
            MissingExtra: aiosmtplib is not installed.
        """
        return EmailChannel(name, self, credentials)


class EmailChannel:
    """A channel that sends each message as an email with a plain-text part and an HTML part.

    All attempts of a message have the same ``Message-ID``, by which mail servers recognize duplicates.

    Args:
        name: the channel's name.
        config: the receiver's options.
        credentials: read for each email.

    Raises:
        MissingExtra: aiosmtplib is not installed.
    """

    def __init__(self, name: str, config: EmailConfig, credentials: Credentials) -> None:
        _library()
        self.name = name
        self._config = config
        self._credentials = credentials

    async def deliver(self, message: Message) -> None:
        """Send the email. Cancellation closes the connection; the server may have accepted the email by then.

        Raises:
            PermanentDeliveryError: the server rejects it permanently (5xx), or there is no recipient.
            RetryableDeliveryError: the server rejects it temporarily (4xx), or is unreachable.
            UnknownDeliveryError: the connection was lost after the email was sent.
        """
        library = _library()
        mail = email_message(message, self._config)
        password = self._credentials.get(self._config.password_credential) if self._config.password_credential else None
        client = library.SMTP(
            hostname=self._config.host,
            port=self._config.port,
            timeout=self._config.timeout,
            use_tls=self._config.security == "tls",
            start_tls=self._config.security == "starttls",
            tls_context=None if self._config.security == "none" else client_tls_context(self._config.ca_file),
        )
        await check_mail_server(self._config.host, self._config.port)
        try:
            async with client:
                if self._config.username is not None and password is not None:
                    await client.login(self._config.username, password)
                await _transfer(client, mail, message)
        except DeliveryError:
            raise
        except (TimeoutError, library.SMTPException, OSError) as error:
            raise _failure(error, message, self._config) from error


async def _transfer(client: aiosmtplib.SMTP, mail: EmailMessage, message: Message) -> None:
    """Send the email. The message counts as sent from the DATA command on."""
    recipients = [address.addr_spec for address in mail["To"].addresses]
    await client.mail(mail["From"].addresses[0].addr_spec)
    refused: list[str] = []
    for recipient in recipients:
        try:
            await client.rcpt(recipient)
        except _library().SMTPRecipientRefused as error:
            if error.code < 500:
                raise
            refused.append(f"{error.code} {error.message}")
    if len(refused) == len(recipients):
        raise PermanentDeliveryError(f"the mail server rejected all recipients: {refused[0]}")
    if refused:
        counts = len(refused), len(recipients)
        _log.warning(
            "%s/%s: the mail server of channel %s rejected %d of %d recipients; the others get the email",
            *(message.namespace, message.name, message.channel, *counts),
        )
    message.mark_sent()
    await client.data(mail.as_bytes())


def email_message(message: Message, config: EmailConfig) -> EmailMessage:
    """Return the email for a message.

    Raises:
        PermanentDeliveryError: there is no recipient, or an address is invalid.
    """
    recipients = message.recipients or tuple(config.to)
    if not recipients:
        raise PermanentDeliveryError("no recipients: set recipients.email in the request, or 'to' in the receiver")
    mail = EmailMessage(_POLICY)
    mail["From"] = _address(config.sender)
    mail["To"] = tuple(_address(recipient) for recipient in recipients)
    mail["Subject"] = f"[{message.priority}] {message.subject}"
    mail["Date"] = format_datetime(current_clock().now())
    digest = hashlib.sha256(message.idempotency_key.encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<{digest}@{config.sender.rpartition('@')[2]}>"
    mail["X-Priority"] = _PRIORITY.get(message.priority, "3")
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_text(message))
    mail.add_alternative(_html(message), subtype="html")
    return mail


def _subject(text: str) -> str:
    """Return a subject for a header: as ASCII, or as encoded words if it is not plain text."""
    text = " ".join(visible_line(text).split())
    if _PLAIN_SUBJECT.fullmatch(text) and "=?" not in text:
        return text
    return Header(text, "utf-8", header_name="Subject").encode()


def _address(text: str) -> Address:
    """Return an address.

    Raises:
        PermanentDeliveryError: the address is not plain ASCII; servers that accept others are rare.
    """
    if not _SENDABLE.fullmatch(text) or "=?" in text:
        raise PermanentDeliveryError(f"{visible_line(text)[:80]!r} is not a valid email address")
    try:
        return Address(addr_spec=text)
    except (ValueError, IndexError) as error:
        raise PermanentDeliveryError(f"{text!r} is not a valid email address: {error}") from error


def _text(message: Message) -> str:
    links = "".join(f"\n{one_line(link.label)}: {one_line(link.url)}" for link in message.links)
    return visible(f"{message.body.rstrip()}\n{links}\n\n-- \n{_footer(message)}\n")


def _html(message: Message) -> str:
    links = "".join(
        f'<li><a href="{html.escape(link.url)}">{html.escape(link.label)}</a></li>' for link in message.links
    )
    return visible(
        f"<html><body><h2>{html.escape(message.subject)}</h2>"
        f'<div style="white-space: pre-wrap">{html.escape(message.body)}</div>'
        f"{f'<ul>{links}</ul>' if links else ''}<p><small>{html.escape(_footer(message))}</small></p></body></html>"
    )


def _footer(message: Message) -> str:
    return one_line(footer(message))


def _failure(error: Any, message: Message, config: EmailConfig) -> DeliveryError:
    """Return the delivery error for an error of the SMTP session."""
    library = _library()
    certificate = error.__cause__ if isinstance(error.__cause__, ssl.SSLCertVerificationError) else error
    if isinstance(certificate, ssl.SSLCertVerificationError):
        return RetryableDeliveryError(f"the mail server's certificate is not trusted: {certificate.verify_message}")
    if isinstance(error, library.SMTPAuthenticationError):
        # Retryable, because a rotated password may not have reached both sides yet.
        return RetryableDeliveryError(f"the mail server rejected the login: {error.code} {error.message}")
    if isinstance(error, library.SMTPResponseException) and error.code >= 400:
        reply = f"the mail server responded {error.code} {error.message}"
        if error.code >= 500:
            return PermanentDeliveryError(reply)
        # 450, and the extended codes 4.1 and 4.2, are about the address or the mailbox.
        about_recipient = isinstance(error, library.SMTPRecipientRefused) and (
            error.code == 450 or error.message.startswith(("4.1.", "4.2."))
        )
        return RetryableDeliveryError(reply, concerns_receiver=not about_recipient)
    if isinstance(error, library.SMTPNotSupported):
        return PermanentDeliveryError(f"the mail server does not support the configured options: {error}")
    text = f"{config.host}:{config.port}: {str(error) or type(error).__name__}"
    return UnknownDeliveryError(text) if message.is_sent else RetryableDeliveryError(text)


def _library() -> Any:
    with importing(extra="notification", purpose="mail"):
        import aiosmtplib
    return aiosmtplib
