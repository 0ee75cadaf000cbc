"""Parsers for the types that Kubernetes adds to CEL: IP addresses, CIDR networks, URLs and semantic versions.

They accept what the Go packages ``net/netip``, ``net/url`` and ``github.com/blang/semver`` accept, and raise ValueError
with their messages.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
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
_IDENTIFIER = re.compile(r"[0-9A-Za-z-]+")


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


@functools.lru_cache(maxsize=256)
def read_network(text: str) -> Network:
    """Return a network, with the address that it was written with; raise `ValueError` if it is not in CIDR notation."""
    try:
        network = _parse_network(text)
    except ValueError as error:
        prefix = "network address parse error during conversion from string: "
        raise ValueError(f"{prefix}{prefix}{error}") from None
    if isinstance(network.ip, ipaddress.IPv6Address) and network.ip.ipv4_mapped:
        prefix = "network address parse error during conversion from string: "
        raise ValueError(f"{prefix}IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return network


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


def _parse_address(text: str) -> Address:
    marks = [mark for mark in text if mark in ".:%"]
    if not marks:
        raise _address_error(text, "unable to parse IP")
    if marks[0] == "%":
        raise _address_error(text, "missing IPv6 address")
    if marks[0] == ".":
        return ipaddress.IPv4Address(bytes(_octets(text)))
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        raise _address_error(text, "unexpected character") from None


def _octets(text: str) -> list[int]:
    octets: list[int] = []
    digits = ""
    for at, letter in enumerate(text):
        if letter.isascii() and letter.isdigit():
            if digits == "0":
                raise _address_error(text, "IPv4 field has octet with leading zero")
            digits += letter
            if int(digits) > 255:
                raise _address_error(text, "IPv4 field has value >255")
        elif letter != ".":
            raise _address_error(text, "unexpected character", text[at:])
        elif at == len(text) - 1 or not digits:
            raise _address_error(text, "IPv4 field must have at least one digit", text[at:])
        elif len(octets) == 3:
            raise _address_error(text, "IPv4 address too long")
        else:
            octets.append(int(digits))
            digits = ""
    if len(octets) < 3:
        raise _address_error(text, "IPv4 address too short")
    return [*octets, int(digits)]


def _address_error(text: str, why: str, at: str = "") -> ValueError:
    place = f" (at {quoted(at)})" if at else ""
    return ValueError(f"ParseAddr({quoted(text)}): {why}{place}")


def _parse_network(text: str) -> Network:
    prefix = f"netip.ParsePrefix({quoted(text)}): "
    first, slash, bits = text.rpartition("/")
    if not slash:
        raise ValueError(f"{prefix}no '/'")
    try:
        address = _parse_address(first)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise ValueError(f"{prefix}IPv6 zones cannot be present in a prefix")
    if not _BITS.fullmatch(bits):
        raise ValueError(f"{prefix}bad bits after slash: {quoted(bits)}")
    if int(bits) > address.max_prefixlen:
        raise ValueError(f"{prefix}prefix length out of range")
    found: Any = ipaddress.ip_interface((address.packed, int(bits)))
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class URL:
    """The parts of a URL.

    Attributes:
        scheme: in lower case, or empty.
        host: with the port, and with brackets around an IPv6 address.
        path: as written.
        query: as written, without the question mark.
    """

    scheme: str
    host: str
    path: str
    query: str

    @property
    def hostname(self) -> str:
        """The host without port and brackets."""
        if self.host.startswith("["):
            return self.host[1 : self.host.rindex("]")]
        return self.host.rpartition(":")[0] if ":" in self.host else self.host

    @property
    def port(self) -> str:
        """The port, or an empty string."""
        return self.host.rpartition(":")[2] if ":" in self.host.rpartition("]")[2] else ""

    @property
    def escaped_path(self) -> str:
        """The path, escaped where necessary."""
        if _PLAIN_PATH.fullmatch(self.path):
            return self.path
        return quote(unquote(self.path), safe="$&+,/:;=@-_.~")

    @property
    def values(self) -> dict[str, list[str]]:
        """The parameters of the query."""
        return parse_qs(self.query, keep_blank_values=True)


def check_request_uri(text: str) -> None:
    """Raise `ValueError` if a string is neither an absolute URI nor an absolute path."""
    _parse_url(text, text, request=True)


@functools.lru_cache(maxsize=256)
def read_url(text: str) -> URL:
    """Return the parts of an absolute URI or an absolute path; raise `ValueError` for any other text."""
    check_request_uri(text)
    return _parse_url(text, text.partition("#")[0], request=False)


def _parse_url(whole: str, text: str, *, request: bool) -> URL:
    def error(why: str) -> ValueError:
        return ValueError(f"parse {quoted(whole)}: {why}")

    if _CONTROL.search(text):
        raise error("net/url: invalid control character in URL")
    if not text and request:
        raise error("empty url")
    if text.startswith(":"):
        raise error("missing protocol scheme")
    found = _SCHEME.match(text)
    scheme = found.group(0).lower() if found else ""
    rest, _, query = (text[len(scheme) + 1 :] if scheme else text).partition("?")
    if not rest.startswith("/"):
        if scheme:
            return URL(scheme, "", "", query)
        if request:
            raise error("invalid URI for request")
    host = ""
    if rest.startswith("//") and (scheme or (not request and not rest.startswith("///"))):
        authority, slash, path = rest[2:].partition("/")
        host, rest = authority.rpartition("@")[2], slash + path
        problem = _host_problem(host)
        if problem:
            raise error(problem)
    bad = _BAD_ESCAPE.search(rest)
    if bad:
        raise error(f"invalid URL escape {quoted(bad.group(0))}")
    return URL(scheme, host, rest, query)


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
    if normalize:
        text = _normalized(text)
    if not text:
        raise ValueError("Version string empty")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise ValueError("No Major.Minor.Patch elements found")
    last, plus, build = parts[2].partition("+")
    last, dash, pre = last.partition("-")
    for name, number in zip(("major", "minor", "patch"), (parts[0], parts[1], last), strict=True):
        _check_number(name, number)
    if dash:
        _check_identifiers(pre, "Prerelease is empty", "prerelease", numbers=True)
    if plus:
        _check_identifiers(build, "Build meta data is empty", "build meta data", numbers=False)
    return f"{parts[0]}.{parts[1]}.{last}{dash}{pre}"


def version_order(version: str) -> tuple[Any, ...]:
    """Return the sort key of a version: major, minor, patch and prerelease."""
    numbers, _, pre = version.partition("-")
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")] if pre else []
    major, minor, patch = (int(part) for part in numbers.split("."))
    return (major, minor, patch, 0 if parts else 1, parts)


def _check_number(name: str, number: str) -> None:
    if number.strip("0123456789"):
        raise ValueError(f"Invalid character(s) found in {name} number {quoted(number)}")
    if len(number) > 1 and number.startswith("0"):
        raise ValueError(f"{name.capitalize()} number must not contain leading zeroes {quoted(number)}")
    if not number:
        raise ValueError('strconv.ParseUint: parsing "": invalid syntax')


def _check_identifiers(text: str, empty: str, name: str, *, numbers: bool) -> None:
    for part in text.split("."):
        if not part:
            raise ValueError(empty)
        if not _IDENTIFIER.fullmatch(part):
            raise ValueError(f"Invalid character(s) found in {name} {quoted(part)}")
        if numbers and part.isdigit() and len(part) > 1 and part.startswith("0"):
            raise ValueError(f"Numeric PreRelease version must not contain leading zeroes {quoted(part)}")


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
