"""Deliver by mail."""

from __future__ import annotations

import email.policy
import hashlib
import html
import logging
import re
import ssl
from collections.abc import Sequence
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from reconciler.clock import current_clock
from reconciler.errors import MissingExtra
from reconciler.notification.channels.address_guard import check_mail_server
from reconciler.notification.channels.limits import GuardedConfig
from reconciler.notification.credentials import Credentials
from reconciler.notification.errors import (
    DeliveryError,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.message import Message
from reconciler.notification.redaction.text import one_line, visible

if TYPE_CHECKING:
    import aiosmtplib

__all__ = ["EmailChannel", "EmailConfig", "email_message"]

_log = logging.getLogger("reconciler.notification")


class _Policy(email.policy.EmailPolicy):
    """A policy that writes a subject as it is given, rather than what the parser of headers makes of it.

    The parser decodes what looks like an encoded word, ``=?utf-8?q?a=0d=0aBcc:_x?=``, and some versions of Python write
    the line ends in it into the header.
    """

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:
        """Return the header as it is stored."""
        return (name, _subject(value)) if name == "Subject" else super().header_store_parse(name, value)


_POLICY = _Policy(linesep="\r\n", cte_type="7bit", refold_source="none")
"""Not every server on the way takes eight bits."""

_ADDRESS = r"^[^\s@<>,;:\"()\[\]]+@[^\s@<>,;:\"()\[\]]+$"
_SENDABLE = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}")
"""Addresses that go into a command of SMTP and a header as they are, without quotation marks."""

_PLAIN_SUBJECT = re.compile(r"[ -~]{1,200}")
_PRIORITY = {"Critical": "1", "High": "2", "Medium": "3", "Low": "5"}


class EmailConfig(GuardedConfig):
    """Say how mail is sent."""

    host: str
    """The server."""

    port: int = Field(default=587, ge=1, le=65535)
    """Its port: 587 for STARTTLS, 465 for TLS from the start, 25 for neither."""

    security: Literal["starttls", "tls", "none"] = "starttls"
    """``none`` sends everything in the clear, the password too, and so refuses one."""

    username: str | None = None
    """For AUTH; needs `password_credential`."""

    password_credential: str | None = None
    """Name of the credential that is the password."""

    sender: str = Field(pattern=_ADDRESS)
    """Whom the mail comes from."""

    to: list[str] = Field(default_factory=list)
    """Whom it goes to, unless the request says so itself under ``recipients.email``."""

    ca_file: str | None = None
    """PEM file of the authorities to trust in place of the system's."""

    timeout: float = Field(default=20.0, gt=0, le=300)
    """Seconds for each step of the conversation."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.username is None) != (self.password_credential is None):
            raise ValueError("username and password_credential belong together")
        if self.username is not None and self.security == "none":
            raise ValueError("security: none would send the password in the clear")
        return self

    def credential_names(self) -> Sequence[str]:
        """Return the name of the password."""
        return [self.password_credential] if self.password_credential is not None else []


class EmailChannel:
    """Send each message as a mail of its own, as text and as HTML.

    All attempts of a message have the same ``Message-ID``, by which mail servers know a repeated one.

    Args:
        name: the channel's name.
        config: how mail is sent.
        credentials: looked up for each mail.

    Raises:
        MissingExtra: aiosmtplib is not installed.
    """

    def __init__(self, name: str, config: EmailConfig, credentials: Credentials) -> None:
        _library()
        self.name = name
        self._config = config
        self._credentials = credentials

    async def deliver(self, message: Message) -> None:
        """Send the mail. Cancellation breaks the conversation off; a mail that was handed over stays so.

        Raises:
            PermanentDeliveryError: the server refuses it for good (5xx), or nobody is named.
            RetryableDeliveryError: it refuses it for now (4xx), or cannot be reached.
            UnknownDeliveryError: the connection was lost after the mail was sent.
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
            tls_context=_context(self._config),
        )
        await check_mail_server(self._config.host, self._config.port)
        try:
            async with client:
                if self._config.username is not None and password is not None:
                    await client.login(self._config.username, password)
                await _hand_over(client, mail, message)
        except DeliveryError:
            raise
        except (TimeoutError, library.SMTPException, OSError) as error:
            raise _failure(error, message, self._config) from error


async def _hand_over(client: aiosmtplib.SMTP, mail: EmailMessage, message: Message) -> None:
    """Send the mail; the receiver may have it from the moment when its text goes out."""
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
        raise PermanentDeliveryError(f"the mail server refuses every recipient: {refused[0]}")
    if refused:
        told = message.namespace, message.name, len(refused), len(recipients), message.channel
        _log.warning("%s/%s: %d of %d recipients are refused by the mail server of %s", *told)
    message.mark_sent()
    await client.data(mail.as_bytes())


def email_message(message: Message, config: EmailConfig) -> EmailMessage:
    """Return the mail for a message.

    Raises:
        PermanentDeliveryError: nobody is named, or an address cannot be read.
    """
    recipients = message.recipients or tuple(config.to)
    if not recipients:
        raise PermanentDeliveryError("nobody is named: give recipients.email in the request, or 'to' in the receiver")
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
    """Return a subject as a header has it: in ASCII, and as encoded words if it could be taken for something else."""
    text = " ".join(visible(one_line(text)).split())
    if _PLAIN_SUBJECT.fullmatch(text) and "=?" not in text:
        return text
    return Header(text, "utf-8", header_name="Subject").encode()


def _address(text: str) -> Address:
    """Return an address.

    Raises:
        PermanentDeliveryError: it is not a plain address in ASCII; a server that takes others is rare.
    """
    if not _SENDABLE.fullmatch(text) or "=?" in text:
        raise PermanentDeliveryError(f"{visible(one_line(text))[:80]!r} is not an address that mail can be sent to")
    try:
        return Address(addr_spec=text)
    except (ValueError, IndexError) as error:
        raise PermanentDeliveryError(f"{text!r} is not an address that mail can be sent to: {error}") from error


def _text(message: Message) -> str:
    links = "".join(f"\n{one_line(link.label)}: {one_line(link.url)}" for link in message.links)
    return visible(f"{message.body.rstrip()}\n{links}\n\n-- \n{_about(message)}\n")


def _html(message: Message) -> str:
    links = "".join(
        f'<li><a href="{html.escape(link.url)}">{html.escape(link.label)}</a></li>' for link in message.links
    )
    return visible(
        f"<html><body><h2>{html.escape(message.subject)}</h2>"
        f'<div style="white-space: pre-wrap">{html.escape(message.body)}</div>'
        f"{f'<ul>{links}</ul>' if links else ''}<p><small>{html.escape(_about(message))}</small></p></body></html>"
    )


def _about(message: Message) -> str:
    return one_line(f"{message.priority} | {message.type} | {message.namespace}/{message.name}")


def _context(config: EmailConfig) -> ssl.SSLContext | None:
    return None if config.security == "none" else ssl.create_default_context(cafile=config.ca_file)


def _failure(error: Any, message: Message, config: EmailConfig) -> DeliveryError:
    """Return what an error of the conversation means."""
    library = _library()
    certificate = error.__cause__ if isinstance(error.__cause__, ssl.SSLCertVerificationError) else error
    if isinstance(certificate, ssl.SSLCertVerificationError):
        return RetryableDeliveryError(f"the mail server's certificate is not trusted: {certificate.verify_message}")
    if isinstance(error, library.SMTPAuthenticationError):
        # A password that was rotated on one side arrives on the other in a moment.
        return RetryableDeliveryError(f"the mail server refuses the login: {error.code} {error.message}")
    if isinstance(error, library.SMTPResponseException) and error.code >= 400:
        said = f"the mail server says {error.code} {error.message}"
        return PermanentDeliveryError(said) if error.code >= 500 else RetryableDeliveryError(said)
    if isinstance(error, library.SMTPNotSupported):
        return PermanentDeliveryError(f"the mail server cannot do what is configured: {error}")
    where = f"{config.host}:{config.port}"
    what = f"{where}: {error}" if str(error) else f"{where}: {type(error).__name__}"
    return UnknownDeliveryError(what) if message.is_sent else RetryableDeliveryError(what)


def _library() -> Any:
    try:
        import aiosmtplib
    except ImportError:
        raise MissingExtra("aiosmtplib", extra="notification", purpose="mail") from None
    return aiosmtplib
