"""Say what the network did: words and types for its failures, and which proxy stands before a server."""

from __future__ import annotations

import ipaddress
import ssl
from urllib.parse import urlsplit

from reconciler.client.session.answers import label
from reconciler.client.transport.http11 import Garbled
from reconciler.client.transport.redaction import without_password
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError, InvalidResponse, OutcomeUnknown, TransportError
from reconciler.http import HTTPRequest

__all__ = ["is_local", "proxy_of_environment", "refuse_virtual_time", "unknown", "words"]


def refuse_virtual_time() -> None:
    """Raise if the clock in force is virtual.

    Raises:
        ConfigurationError: it is: sockets take real time, during which virtual time would run away.
    """
    if getattr(current_clock(), "virtual", False):
        raise ConfigurationError(
            "a client over sockets cannot run under virtual time, since the network takes real time: use the embedded "
            "server in process, Client(server), or leave virtual time"
        )


def unknown(request: HTTPRequest, error: BaseException) -> TransportError:
    """Return the error for a request that may have reached the server, but brought no answer."""
    hint = "" if request.method == "GET" else "; it may have been executed: read before repeating it"
    if isinstance(error, Garbled):
        return InvalidResponse(f"{label(request)}: invalid answer: {words(error)}{hint}")
    if request.stream:
        return OutcomeUnknown(f"{label(request)}: the stream broke: {words(error)}")
    return OutcomeUnknown(f"{label(request)}: no answer: {words(error)}{hint}")


def words(error: BaseException) -> str:
    """Say what went wrong in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or str(error)
        return f"its certificate is not trusted ({reason}); check the certificate-authority in the configuration"
    if isinstance(error, TimeoutError) and not error.strerror:
        return "timed out"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def is_local(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_of_environment(scheme: str, host: str) -> str | None:
    """Return the proxy that HTTP_PROXY and its kin name for a server; never for this machine, as in Go.

    Raises:
        ConfigurationError: it is not the address of an HTTP proxy.
    """
    import urllib.request  # it loads 20 modules that nothing else here needs

    if is_local(host) or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(scheme)
    if not proxy:
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not address.isprintable() or " " in address:
        raise ConfigurationError(
            f"the environment's {scheme.upper()}_PROXY is {without_password(proxy)!r}: write it as http://host:port"
        )
    return address
