"""Read addresses and networks as Go's ``net/netip`` does, for the IP and CIDR functions of CEL rules."""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Any

from reconciler.apiserver.encoding.text import quoted

__all__ = ["Address", "Network", "is_global", "is_local_multicast", "read_address", "read_network"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_BITS = re.compile(r"0|[1-9][0-9]{0,2}")


@functools.lru_cache(maxsize=256)
def read_address(text: str) -> Address:
    """Return an address.

    Raises:
        ValueError: it is none, or has a zone, or is an IPv4 address in an IPv6 one; in the real server's words.
    """
    try:
        address = _parse(text)
    except ValueError as error:
        raise ValueError(f"IP Address {quoted(text)} parse error during conversion from string: {error}") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError(f"IP address {quoted(text)} with zone value is not allowed")
        if address.ipv4_mapped:
            raise ValueError(f"IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return address


@functools.lru_cache(maxsize=256)
def read_network(text: str) -> Network:
    """Return a network, with the address that it was written with.

    Raises:
        ValueError: it is none, in the real server's words.
    """
    try:
        network = _parse_prefix(text)
    except ValueError as error:
        said = "network address parse error during conversion from string: "
        raise ValueError(f"{said}{said}{error}") from None
    if isinstance(network.ip, ipaddress.IPv6Address) and network.ip.ipv4_mapped:
        said = "network address parse error during conversion from string: "
        raise ValueError(f"{said}IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return network


def is_local_multicast(address: Address) -> bool:
    """Tell whether an address is one of link-local multicast."""
    packed = address.packed
    if address.version == 4:
        return packed[:3] == b"\xe0\x00\x00"
    return packed[0] == 0xFF and packed[1] & 0x0F == 0x02


def is_global(address: Address) -> bool:
    """Tell whether an address is one of global unicast; private ones are, too."""
    apart = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not apart and str(address) != "255.255.255.255"


def _parse(text: str) -> Address:
    marks = [mark for mark in text if mark in ".:%"]
    if not marks:
        raise _refused(text, "unable to parse IP")
    if marks[0] == "%":
        raise _refused(text, "missing IPv6 address")
    if marks[0] == ".":
        return ipaddress.IPv4Address(bytes(_octets(text)))
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        raise _refused(text, "unexpected character") from None


def _octets(text: str) -> list[int]:
    octets: list[int] = []
    digits = ""
    for at, letter in enumerate(text):
        if letter.isascii() and letter.isdigit():
            if digits == "0":
                raise _refused(text, "IPv4 field has octet with leading zero")
            digits += letter
            if int(digits) > 255:
                raise _refused(text, "IPv4 field has value >255")
        elif letter != ".":
            raise _refused(text, "unexpected character", text[at:])
        elif at == len(text) - 1 or not digits:
            raise _refused(text, "IPv4 field must have at least one digit", text[at:])
        elif len(octets) == 3:
            raise _refused(text, "IPv4 address too long")
        else:
            octets.append(int(digits))
            digits = ""
    if len(octets) < 3:
        raise _refused(text, "IPv4 address too short")
    return [*octets, int(digits)]


def _refused(text: str, why: str, at: str = "") -> ValueError:
    place = f" (at {quoted(at)})" if at else ""
    return ValueError(f"ParseAddr({quoted(text)}): {why}{place}")


def _parse_prefix(text: str) -> Network:
    said = f"netip.ParsePrefix({quoted(text)}): "
    first, slash, bits = text.rpartition("/")
    if not slash:
        raise ValueError(f"{said}no '/'")
    try:
        address = _parse(first)
    except ValueError as error:
        raise ValueError(f"{said}{error}") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise ValueError(f"{said}IPv6 zones cannot be present in a prefix")
    if not _BITS.fullmatch(bits):
        raise ValueError(f"{said}bad bits after slash: {quoted(bits)}")
    if int(bits) > address.max_prefixlen:
        raise ValueError(f"{said}prefix length out of range")
    found: Any = ipaddress.ip_interface((address.packed, int(bits)))
    return found  # type: ignore[no-any-return]
