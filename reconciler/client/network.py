"""Addresses, proxies, the errors that network failures become, and quotations without passwords and tokens."""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from reconciler._core.redaction import PLACEHOLDER, redact
from reconciler.client.http11 import MalformedResponse
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError, InvalidResponse, OutcomeUnknown, TransportError
from reconciler.http import HTTPRequest

_LONGEST = 200

_LOOKS_RANDOM = re.compile(r"(?<![\w/.+=-])(?=[\w+=-]{0,200}\d)(?=[\w+=-]{0,200}[A-Za-z])[\w+=-]{20,}")
"""Other text that may be a secret: long, with letters and digits, and not a path. Names of pods look like that, too."""


def excerpt(text: str) -> str:
    """Return the beginning of a foreign program's output, in one line, with possible secrets hidden."""
    text = _LOOKS_RANDOM.sub(PLACEHOLDER, redact(text[: 10 * _LONGEST]))
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:_LONGEST]


def without_password(address: str) -> str:
    """Return an address without user, password, path and query, for messages."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    host = re.split(r"[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}{mark}{host}"[:_LONGEST]


class Origin(NamedTuple):
    """The parts of a server's or a proxy's address.

    Attributes:
        secure: whether it speaks TLS.
        host: name or address.
        port: the port.
        authority: host and port as they were written.
        prefix: the path before all paths, without a slash at its end.
        authorization: the header value for the user and password in the address; ``""`` for none.
    """

    secure: bool
    host: str
    port: int
    authority: str
    prefix: str
    authorization: str

    def __repr__(self) -> str:
        return f"<Origin {self.text}>"  # without the password in the authorization

    @property
    def text(self) -> str:
        """The address without user, password and path."""
        return f"http{'s' if self.secure else ''}://{self.authority}"


@functools.lru_cache(maxsize=64)
def origin_of(address: str) -> Origin:
    """Return the parts of an address.

    Raises:
        ValueError: it is not an address with http:// or https:// and a host.
    """
    if not is_http_address(address):
        raise ValueError(address)
    parts = urlsplit(address)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    authority = parts.netloc.rpartition("@")[2]
    return Origin(secure, parts.hostname or "", port, authority, parts.path.rstrip("/"), authorization)


def is_http_address(address: str) -> bool:
    """Return whether a string is an address with http:// or https:// and a host."""
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_from_environment(address: str) -> str | None:
    """Return the proxy that ``HTTPS_PROXY`` and the related variables name for a server; never for this machine, as Go.

    Raises:
        ConfigurationError: the value is not the address of an HTTP proxy.
    """
    import urllib.request  # it loads 20 modules that nothing else here needs

    parts = urlsplit(address)
    host = parts.hostname or ""
    if is_local(host) or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    if not is_http_address(address) or not address.isprintable() or " " in address:
        raise ConfigurationError(
            f"the environment's {parts.scheme.upper()}_PROXY is {without_password(proxy)!r}: write it as "
            "http://host:port"
        )
    return address


def refuse_virtual_time() -> None:
    """Raise if the current clock is virtual.

    Raises:
        ConfigurationError: sockets take real time, during which virtual time would run away.
    """
    if getattr(current_clock(), "virtual", False):
        raise ConfigurationError(
            "a client over sockets cannot run under virtual time, because the network takes real time: use the "
            "embedded server in process, Client(server), or leave virtual time"
        )


def outcome_unknown(request: HTTPRequest, error: BaseException) -> TransportError:
    """Return the error for a request that may have reached the server, but has no response."""
    hint = "" if request.method == "GET" else "; it may have been executed: read before retrying"
    if isinstance(error, MalformedResponse):
        return InvalidResponse(f"{request.label}: invalid response: {describe(error)}{hint}")
    if request.stream:
        return OutcomeUnknown(f"{request.label}: the stream broke: {describe(error)}")
    return OutcomeUnknown(f"{request.label}: no response: {describe(error)}{hint}")


def describe(error: BaseException) -> str:
    """Return what went wrong, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or str(error)
        return f"its certificate is not trusted ({reason}); check the certificate-authority in the configuration"
    if isinstance(error, TimeoutError) and not error.strerror:
        return "timed out"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
