"""The address guard: blocks requests to this machine, link-local and metadata addresses.

A receiver with such an address could read a cloud's metadata service or a private port of this machine. There are three
checks, each on the address that is actually used:

* the host of the URL after normalization: a literal address in any notation, or a name of this machine;
* the addresses that a name resolves to: local ones are dropped, and the connection goes to one of the others;
* the address of each socket, right before it connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import unicodedata
from typing import TYPE_CHECKING, Any

from reconciler.notification.channel import PermanentDeliveryError, RetryableDeliveryError

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver, ResolveResult

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOCAL_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "255.255.255.255/32",
        "fec0::/10",  # site-local, deprecated
        # Metadata services whose addresses are not link-local: Alibaba, Azure, Oracle, AWS, Google.
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
    )
]

_EMBEDDING = [
    ipaddress.ip_network("::/96"),  # IPv4-compatible
    ipaddress.ip_network("::ffff:0:0:0/96"),  # IPv4-translated
    ipaddress.ip_network("64:ff9b::/96"),  # NAT64
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64, local use
]
"""IPv6 networks whose addresses contain an IPv4 address in their last 32 bits."""

_ISATAP = (0x00005EFE, 0x02005EFE)
"""The 32 bits before the IPv4 address in an ISATAP address, in any network."""


def is_local(address: str) -> bool:
    """Return whether a receiver must not have this address.

    These are loopback, link-local, unspecified and multicast addresses, the addresses of this machine, metadata
    services of clouds, the API server of the cluster that this process runs in, and IPv6 addresses that contain such an
    IPv4 address.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(_is_local(each) for each in (parsed, *_embedded(parsed)))


def _is_local(address: _Address) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or any(address in network for network in _LOCAL_NETWORKS)
        or str(address) == os.environ.get("KUBERNETES_SERVICE_HOST", "").strip("[]")
        or _is_own(address)
    )


def _is_own(address: _Address) -> bool:
    """Return whether an interface of this machine has the address.

    The system connects to an address of its own from the same address. Connecting a datagram socket sends nothing.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), 9))
        return bool(probe.getsockname()[0] == str(address))
    return False


def _embedded(address: _Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address contains."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    number = int(address)
    if any(address in network for network in _EMBEDDING) or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return [each for each in found if each is not None]


def canonical_host(host: str) -> str:
    """Return a host as resolvers normalize it: full-width digits and letters as ASCII, every full stop as a dot."""
    return unicodedata.normalize("NFKC", host).replace("。", ".").casefold()


def check_literal(host: str) -> None:
    """Raise if a host, from `canonical_host`, is a literal local address in any notation that the system accepts.

    Raises:
        PermanentDeliveryError: the host is a local address.
    """
    bare = host.strip("[]").rstrip(".")
    candidates = [bare]
    with contextlib.suppress(OSError, UnicodeEncodeError, ValueError):
        candidates.append(socket.inet_ntoa(socket.inet_aton(bare)))  # 127.1, 0177.0.0.1, 0x7f000001, 2130706433
    if bare == "localhost" or bare.endswith(".localhost") or any(is_local(candidate) for candidate in candidates):
        raise PermanentDeliveryError(_blocked(host))


async def check_name(host: str, port: int) -> None:
    """Raise if any address of a host is local. For requests where a proxy resolves the name and connects.

    Raises:
        PermanentDeliveryError: an address is local.
        RetryableDeliveryError: the name cannot be resolved here, so its addresses are unknown.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise RetryableDeliveryError(
            f"{host} cannot be resolved here, so the address that the proxy would connect to is unknown: "
            "set allow_local_addresses for this receiver if the proxy may resolve names"
        ) from None
    if any(is_local(str(each[4][0])) for each in found):
        raise PermanentDeliveryError(_blocked(host))


async def check_mail_server(host: str, port: int) -> None:
    """Raise if a mail server is at a local address other than this machine's, which is common and allowed.

    A name that cannot be resolved passes; the connection will fail.

    Raises:
        PermanentDeliveryError: an address is link-local or a metadata address.
    """
    with contextlib.suppress(OSError, UnicodeError):
        for *_, (address, *_) in await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM):
            parsed = ipaddress.ip_address(str(address).partition("%")[0])
            if is_local(str(address)) and not parsed.is_loopback and not _is_own(parsed):
                raise PermanentDeliveryError(f"the mail server {host} is at a link-local or metadata address")


def checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an entry of `socket.getaddrinfo`.

    Raises:
        PermanentDeliveryError: the address is local, or a name that would be resolved only when connecting.
    """
    family, kind, protocol, _, (host, *_) = address
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        raise PermanentDeliveryError(_blocked(host)) from None
    if is_local(host):
        raise PermanentDeliveryError(_blocked(host))
    return socket.socket(family, kind, protocol)


def guarded_resolver() -> AbstractResolver:
    """Return a resolver that drops local addresses."""
    import aiohttp
    from aiohttp.abc import AbstractResolver

    class Guarded(AbstractResolver):
        def __init__(self) -> None:
            self._inner = aiohttp.ThreadedResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await self._inner.resolve(host, port, family)
            allowed = [each for each in found if not is_local(each["host"])]
            if not allowed:
                raise PermanentDeliveryError(_blocked(host))
            return allowed

        async def close(self) -> None:
            await self._inner.close()

    return Guarded()


def _blocked(host: Any) -> str:
    return (
        f"{host} is an address of this machine, a link-local, metadata or API server address, which is blocked: "
        "set allow_local_addresses for this receiver to allow it"
    )
