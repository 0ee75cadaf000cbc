"""The meaning of the official clients' exceptions for a request, without the secrets in their texts."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.errors import NotSent, OutcomeUnknown, TransportError, describe_error, error_text

__all__ = ["before_sending", "before_the_write", "from_aiohttp", "from_urllib3", "shown_cause"]

_PASSWORD = re.compile(r"(?<=://)[^\s/]*@")
"""User and password in the address of a proxy, which aiohttp's errors quote."""


def _without_password(text: str) -> str:
    return _PASSWORD.sub("***@", text)


def shown_cause(error: Exception) -> Exception | None:
    """Return the error as the cause of another one; None if its own text, which a traceback shows, has a password."""
    return None if _PASSWORD.search(error_text(error)) else error


_AIOHTTP_NOT_SENT = {
    *("ClientConnectorError", "ClientConnectorCertificateError", "ConnectionTimeoutError"),
    "ClientHttpProxyError",  # the proxy refuses the tunnel
}
"""Raised before anything of the request was sent. aiohttp's other errors may come later."""

_URLLIB3_NOT_SENT = {"NewConnectionError", "ConnectTimeoutError"}


def from_aiohttp(request: str, error: Exception) -> TransportError | None:
    """Return what an error means for the request; None if it is not a network error."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _AIOHTTP_NOT_SENT:
        return NotSent(f"{request}: {_without_password(error_text(error))}")
    if isinstance(error, OSError) or "ClientError" in names:
        return OutcomeUnknown(f"{request}: {_without_password(describe_error(error))}")
    return None


def from_urllib3(request: str, error: Exception) -> TransportError | None:
    """Return what an error means for the request; None if it is not a network error."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if "ProxyError" in names:  # urllib3 1 also raises it when a connection through the proxy breaks
        cause = error.original_error  # type: ignore[attr-defined]
        names |= {cls.__name__ for cls in type(cause).__mro__}
        if str(cause).startswith("Tunnel connection failed"):
            return NotSent(f"{request}: the proxy refused the connection: {cause}")
    bad_certificate = any(isinstance(argument, ssl.SSLCertVerificationError) for argument in error.args)
    if names & _URLLIB3_NOT_SENT or bad_certificate:
        return NotSent(f"{request}: {_without_password(error_text(error))}")
    if isinstance(error, OSError) or "HTTPError" in names:
        return OutcomeUnknown(f"{request}: {_without_password(describe_error(error))}")
    return None


@contextmanager
def before_sending(request: str) -> Iterator[None]:
    """Report a failure of the credentials as `NotSent`. A hook is foreign code, and its message may contain a token."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        raise NotSent(f"{request}: the credentials could not be renewed ({type(error).__name__})") from None


@contextmanager
def before_the_write() -> Iterator[None]:
    """Report a failure before a write as `NotSent`: the write itself was not started."""
    try:
        yield
    except OutcomeUnknown as error:
        raise NotSent(str(error)) from error
