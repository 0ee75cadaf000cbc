"""Keep requests away from addresses that only this machine or its network segment can mean.

A receiver that names such an address could read a cloud's metadata service or a neighbour's private port.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from reconciler.notification._errors import PermanentDeliveryError

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["check_literal", "guarded_resolver", "is_local"]


def is_local(address: str) -> bool:
    """Say whether an address is loopback, link-local, unspecified or multicast, also inside an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    embedded = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    parsed = embedded or parsed
    return parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast


def check_literal(host: str) -> None:
    """Refuse a host that is written as a local address, in any of the forms that the system takes for one.

    Raises:
        PermanentDeliveryError: it is one.
    """
    candidates = [host.strip("[]")]
    with contextlib.suppress(OSError, UnicodeEncodeError):
        candidates.append(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001, 2130706433
    if any(is_local(candidate) for candidate in candidates):
        raise PermanentDeliveryError(_refusal(host))


def guarded_resolver() -> AbstractResolver:
    """Return a resolver that drops local addresses, so that a name cannot lead to one either."""
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
                raise PermanentDeliveryError(_refusal(host))
            return allowed

        async def close(self) -> None:
            await self._inner.close()

    return Guarded()


def _refusal(host: Any) -> str:
    return (
        f"{host} is an address of this machine or its link, which messages are not sent to: "
        "set allow_local_addresses for this receiver if it is meant"
    )
