"""Parsers for the types that Kubernetes adds to CEL: IP addresses, CIDR networks, URLs and semantic versions.

They accept what the Go packages ``net/netip``, ``net/url`` and ``github.com/blang/semver`` accept, and raise ValueError
with their messages.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from reconciler.apiserver.encoding.text import quoted

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_BITS = re.compile(r"0|[1-9][0-9]{0,2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
_BAD_IN_HOST = re.compile(r"[\s\\^`{}|]")
_PORT = re.compile(r":[0-9]*")
_PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9\-_.~!$&'()*+,;=:@/\[\]]|%[0-9A-Fa-f]{2})*")
_PRERELEASE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_AFTER_NUMBERS = re.compile(rf"(-{_PRERELEASE}(\.{_PRERELEASE})*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")
_NETWORK_ERROR = "network address parse error during conversion from string: "


@functools.lru_cache(maxsize=256)
def read_address(text: str) -> Address:
    """Return an IP address.

    Raises:
        ValueError: the text is not an address, has a zone, or is an IPv4-mapped IPv6 address.
    """
    try:
        address = _parse_address(text)
    except ValueError as error:
        raise ValueError(f"IP Address {quoted(text)} parse error during conversion from string: {error}") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError(f"IP address {quoted(text)} with zone value is not allowed")
        if address.ipv4_mapped:
            raise ValueError(f"IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return address


def _parse_address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        large = any(float(octet) > 255 for octet in re.findall(r"[0-9]+(?=[.]|$)", text) if "." in text)
        why = "IPv4 field has value >255" if large else "unable to parse IP"
        raise ValueError(f"ParseAddr({quoted(text)}): {why}") from None


@functools.lru_cache(maxsize=256)
def read_network(text: str) -> Network:
    """Return a network, with the address that it was written with; raise `ValueError` if it is not in CIDR notation."""
    first, slash, bits = text.rpartition("/")
    try:
        if not slash:
            raise ValueError("no '/'")
        address = _parse_address(first)
        if not _BITS.fullmatch(bits) or int(bits) > address.max_prefixlen:
            raise ValueError("prefix length out of range")
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
            raise ValueError("IPv6 zones cannot be present in a prefix")
    except ValueError as error:
        problem = f"netip.ParsePrefix({quoted(text)}): {error}"
        raise ValueError(f"{_NETWORK_ERROR}{_NETWORK_ERROR}{problem}") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise ValueError(f"{_NETWORK_ERROR}IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    found: Any = ipaddress.ip_interface((address.packed, int(bits)))
    return found  # type: ignore[no-any-return]


def is_link_local_multicast(address: Address) -> bool:
    """Return whether an address is a link-local multicast address."""
    packed = address.packed
    if address.version == 4:
        return packed[:3] == b"\xe0\x00\x00"
    return packed[0] == 0xFF and packed[1] & 0x0F == 0x02


def is_global_unicast(address: Address) -> bool:
    """Return whether an address is a global unicast address; private addresses are, as in Go."""
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not special and str(address) != "255.255.255.255"


def check_request_uri(text: str) -> None:
    """Raise `ValueError` if a string is neither an absolute URI nor an absolute path."""
    _parse_url(text)


@functools.lru_cache(maxsize=256)
def read_url(text: str) -> Mapping[str, Any]:
    """Return the parts of an absolute URI or an absolute path, each by the function that returns it in rules.

    Raises:
        ValueError: the text is neither.
    """
    check_request_uri(text)
    scheme, host, path, query = _parse_url(text.partition("#")[0], host_first=True)
    name = host[1 : host.rindex("]")] if host.startswith("[") else host.rpartition(":")[0] if ":" in host else host
    port = host.rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""
    escaped = path if _PLAIN_PATH.fullmatch(path) else quote(unquote(path), safe="$&+,/:;=@-_.~")
    found = {"getScheme": scheme, "getHost": host, "getHostname": name, "getPort": port, "getEscapedPath": escaped}
    return {**found, "getQuery": parse_qs(query, keep_blank_values=True)}


def _parse_url(text: str, *, host_first: bool = False) -> tuple[str, str, str, str]:
    """Return scheme, host, path and query; with `host_first`, two slashes at the beginning are followed by a host."""

    def error(why: str) -> ValueError:
        return ValueError(f"parse {quoted(text)}: {why}")

    if _CONTROL.search(text):
        raise error("net/url: invalid control character in URL")
    if not text:
        raise error("empty url")
    if text.startswith(":"):
        raise error("missing protocol scheme")
    found = _SCHEME.match(text)
    scheme = found.group(0).lower() if found else ""
    rest, _, query = (text[len(scheme) + 1 :] if scheme else text).partition("?")
    if not rest.startswith("/"):
        if scheme:
            return scheme, "", "", query
        raise error("invalid URI for request")
    host = ""
    if rest.startswith("//") and (scheme or (host_first and not rest.startswith("///"))):
        authority, slash, path = rest[2:].partition("/")
        host, rest = authority.rpartition("@")[2], slash + path
        if problem := _host_problem(host):
            raise error(problem)
    if bad := _BAD_ESCAPE.search(rest):
        raise error(f"invalid URL escape {quoted(bad.group(0))}")
    return scheme, host, rest, query


def _host_problem(host: str) -> str:
    if host.startswith("["):
        if "]" not in host:
            return "missing ']' in host"
        port = host.rpartition("]")[2]
    else:
        port = ":" + host.partition(":")[2] if ":" in host else ""
    if port and not _PORT.fullmatch(port):
        return f"invalid port {quoted(port)} after host"
    bad = _BAD_IN_HOST.search(host)
    return f"invalid character {quoted(bad.group(0))} in host name" if bad else ""


def read_version(text: str, *, normalize: bool = False) -> str:
    """Return a semantic version without its build metadata.

    To be normalized, it may have a leading ``v``, leading zeros and missing parts.

    Raises:
        ValueError: the text is not a semantic version.
    """
    parts = (_normalized(text) if normalize else text).split(".", 2)
    if len(parts) != 3:
        raise ValueError("No Major.Minor.Patch elements found")
    patch = re.split("[+-]", parts[2])[0]
    for name, number in zip(("major", "minor", "patch"), (*parts[:2], patch), strict=True):
        if not re.fullmatch("[0-9]+", number):
            raise ValueError(f"Invalid character(s) found in {name} number {quoted(number)}")
        if len(number) > 1 and number.startswith("0"):
            raise ValueError(f"{name.capitalize()} number must not contain leading zeroes {quoted(number)}")
    if not _AFTER_NUMBERS.fullmatch(parts[2][len(patch) :]):
        raise ValueError(f"Invalid character(s) found in prerelease or build meta data {quoted(parts[2])}")
    return ".".join(parts).partition("+")[0]


def version_order(version: str) -> tuple[Any, ...]:
    """Return the sort key of a version: major, minor, patch and prerelease."""
    numbers, _, pre = version.partition("-")
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")] if pre else []
    major, minor, patch = (int(part) for part in numbers.split("."))
    return (major, minor, patch, 0 if parts else 1, parts)


def _normalized(text: str) -> str:
    parts = text.removeprefix("v").split(".", 2)
    for index, part in enumerate(parts):
        if len(part) > 1:
            bare = part.lstrip("0")
            parts[index] = bare if bare[:1].isdigit() else f"0{bare}"
    if len(parts) < 3:
        if "+" in parts[-1] or "-" in parts[-1]:
            raise ValueError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)
