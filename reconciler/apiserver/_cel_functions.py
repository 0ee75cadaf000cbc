"""Bring the functions that Kubernetes adds to CEL: lists, sets, regular expressions, URLs, addresses, quantities.

Values of the types that Kubernetes adds are maps with a tag, since the engine takes no Python objects.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qs, urlsplit

from reconciler.apiserver._cel_engine import Overload, cel_types

__all__ = ["functions"]

_SUFFIXES: dict[str, Decimal] = {
    "": Decimal(1),
    **{name: Decimal(10) ** power for name, power in (("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9))},
    **{name: Decimal(10) ** power for name, power in (("T", 12), ("P", 15), ("E", 18))},
    **{name: Decimal(1024) ** (index + 1) for index, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?")
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)


def _number(text: str) -> Decimal | None:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    digits, suffix = match.group(1), match.group(2) or ""
    try:
        if suffix[:1] in ("e", "E") and len(suffix) > 1:
            return Decimal(digits + suffix)
        return Decimal(digits) * _SUFFIXES[suffix]
    except (InvalidOperation, KeyError):
        return None


def _quantity(text: str) -> dict[str, Any]:
    if _number(text) is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    return {"quantity": text}


def _semver(text: str) -> dict[str, Any]:
    if _SEMVER.fullmatch(text) is None:
        raise ValueError(f"{text} is no semantic version")
    return {"semver": text}


def _semver_key(text: str) -> tuple[Any, ...]:
    match = _SEMVER.fullmatch(text)
    assert match is not None  # noqa: S101 - checked when it was made
    major, minor, patch, pre = match.groups()
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")] if pre else []
    return (int(major), int(minor), int(patch), 0 if parts else 1, parts)


def _order(value: dict[str, Any]) -> Any:
    if "quantity" in value:
        return _number(value["quantity"])
    return _semver_key(value["semver"])


def _compare(one: dict[str, Any], other: dict[str, Any]) -> int:
    left, right = _order(one), _order(other)
    return int(left > right) - int(left < right)


def _plus(sign: int) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    def add(one: dict[str, Any], other: Any) -> dict[str, Any]:
        number = Decimal(other) if isinstance(other, int) else _order(other)
        return {"quantity": format(_order(one) + sign * number, "f")}

    return add


def _is(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _url(text: str) -> dict[str, Any]:
    parts = urlsplit(text)
    if not parts.scheme and not text.startswith("/"):
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    return {"url": text}


def _of_url(read: Callable[[Any], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda value: read(urlsplit(value["url"]))


def _ip(text: str) -> dict[str, Any]:
    return {"ip": str(ipaddress.ip_address(text))}


def _address(value: dict[str, Any]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(value["ip"])


def _cidr(text: str) -> dict[str, Any]:
    if "/" not in text:
        raise ValueError(f"network address parse error during conversion from string: {text}")
    ipaddress.ip_network(text, strict=False)
    return {"cidr": text}


def _network(value: dict[str, Any]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(value["cidr"], strict=False)


def _contains_ip(value: dict[str, Any], other: Any) -> bool:
    return ipaddress.ip_address(other if isinstance(other, str) else other["ip"]) in _network(value)


def _contains_cidr(value: dict[str, Any], other: Any) -> bool:
    inner = ipaddress.ip_network(other if isinstance(other, str) else other["cidr"], strict=False)
    return inner.version == _network(value).version and inner.subnet_of(_network(value))  # type: ignore[arg-type]


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    found = [match.group(0) for match in re.finditer(pattern, text)]
    return found if most < 0 else found[:most]


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match.group(0) if match else ""


def _extreme(choose: Callable[[list[Any]], Any], name: str) -> Callable[[list[Any]], Any]:
    def of(items: list[Any]) -> Any:
        if not items:
            raise ValueError(f"{name} called on empty list")
        return choose(items)

    return of


def functions() -> list[Overload]:
    """Return the functions for `new_environment`."""
    kind = cel_types()
    text, yes, whole, real, any_ = kind.STRING, kind.BOOL, kind.INT, kind.DOUBLE, kind.DYN
    tagged = kind.Map(kind.STRING, kind.DYN)
    items, texts = kind.List(any_), kind.List(text)
    return [
        ("isSorted", True, yes, [items], lambda values: all(a <= b for a, b in itertools.pairwise(values))),
        ("sum", True, any_, [items], sum),
        ("min", True, any_, [items], _extreme(min, "min")),
        ("max", True, any_, [items], _extreme(max, "max")),
        ("find", True, text, [text, text], _find),
        ("findAll", True, texts, [text, text], _find_all),
        ("findAll", True, texts, [text, text, whole], _find_all),
        ("sets.contains", False, yes, [items, items], lambda one, other: all(value in one for value in other)),
        ("sets.equivalent", False, yes, [items, items], lambda a, b: all(x in b for x in a) and all(x in a for x in b)),
        ("sets.intersects", False, yes, [items, items], lambda one, other: any(value in one for value in other)),
        ("isQuantity", False, yes, [text], _is(_quantity)),
        ("quantity", False, tagged, [text], _quantity),
        ("isInteger", True, yes, [tagged], lambda value: _order(value) == _order(value).to_integral_value()),
        ("asInteger", True, whole, [tagged], lambda value: int(_order(value))),
        ("asApproximateFloat", True, real, [tagged], lambda value: float(_order(value))),
        ("sign", True, whole, [tagged], lambda value: (_order(value) > 0) - (_order(value) < 0)),
        ("add", True, tagged, [tagged, any_], _plus(1)),
        ("sub", True, tagged, [tagged, any_], _plus(-1)),
        ("isLessThan", True, yes, [tagged, tagged], lambda one, other: _compare(one, other) < 0),
        ("isGreaterThan", True, yes, [tagged, tagged], lambda one, other: _compare(one, other) > 0),
        ("compareTo", True, whole, [tagged, tagged], _compare),
        ("isSemver", False, yes, [text], _is(_semver)),
        ("semver", False, tagged, [text], _semver),
        ("major", True, whole, [tagged], lambda value: _semver_key(value["semver"])[0]),
        ("minor", True, whole, [tagged], lambda value: _semver_key(value["semver"])[1]),
        ("patch", True, whole, [tagged], lambda value: _semver_key(value["semver"])[2]),
        ("isURL", False, yes, [text], _is(_url)),
        ("url", False, tagged, [text], _url),
        ("getScheme", True, text, [tagged], _of_url(lambda parts: parts.scheme)),
        ("getHost", True, text, [tagged], _of_url(lambda parts: parts.netloc.rpartition("@")[2])),
        ("getHostname", True, text, [tagged], _of_url(lambda parts: parts.hostname or "")),
        ("getPort", True, text, [tagged], _of_url(lambda parts: str(parts.port or ""))),
        ("getEscapedPath", True, text, [tagged], _of_url(lambda parts: parts.path)),
        ("getQuery", True, kind.Map(text, texts), [tagged], _of_url(lambda parts: parse_qs(parts.query))),
        ("isIP", False, yes, [text], _is(_ip)),
        ("ip", False, tagged, [text], _ip),
        ("ip.isCanonical", False, yes, [text], lambda value: str(ipaddress.ip_address(value)) == value),
        ("family", True, whole, [tagged], lambda value: _address(value).version),
        ("isUnspecified", True, yes, [tagged], lambda value: _address(value).is_unspecified),
        ("isLoopback", True, yes, [tagged], lambda value: _address(value).is_loopback),
        ("isLinkLocalMulticast", True, yes, [tagged], lambda value: _address(value).is_multicast),
        ("isLinkLocalUnicast", True, yes, [tagged], lambda value: _address(value).is_link_local),
        (
            "isGlobalUnicast",
            True,
            yes,
            [tagged],
            lambda value: not (_address(value).is_multicast or _address(value).is_loopback),
        ),
        ("isCIDR", False, yes, [text], _is(_cidr)),
        ("cidr", False, tagged, [text], _cidr),
        ("containsIP", True, yes, [tagged, any_], _contains_ip),
        ("containsCIDR", True, yes, [tagged, any_], _contains_cidr),
        ("prefixLength", True, whole, [tagged], lambda value: _network(value).prefixlen),
        ("masked", True, tagged, [tagged], lambda value: {"cidr": str(_network(value))}),
    ]
