"""Bring the functions that Kubernetes adds to CEL: regular expressions, URLs, addresses, quantities, formats.

Values of the types that Kubernetes adds are maps with a tag, since the engine takes no Python objects; values that are
equal are equal maps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

from reconciler.apiserver.cel.engine import Function
from reconciler.apiserver.cel.formats import NAMED_FORMATS
from reconciler.apiserver.cel.lists import hidden_functions, list_functions
from reconciler.apiserver.cel.numbers import (
    quantity_number,
    quantity_text,
    read_quantity,
    read_version,
    version_order,
)
from reconciler.apiserver.cel.parsers import (
    Network,
    is_global,
    is_local_multicast,
    read_address,
    read_network,
)
from reconciler.apiserver.cel.urls import URL, check_request_uri, read_url

__all__ = ["functions"]

Tagged = dict[str, Any]
_QUANTITY, _VERSION, _URL = "kubernetes.Quantity", "kubernetes.Semver", "kubernetes.URL"
_FORMAT, _IP, _CIDR = "kubernetes.NamedFormat", "net.IP", "net.CIDR"


def functions() -> list[Function]:
    """Return the functions for the engine."""
    return [
        *list_functions(),
        *hidden_functions(),
        *_patterns(),
        *_quantities(),
        *_versions(),
        *_urls(),
        *_addresses(),
        *_formats(),
    ]


def _is(read: Callable[..., Any]) -> Callable[..., bool]:
    """Make the function that tells whether a text can be read."""

    def check(*values: Any) -> bool:
        try:
            read(*values)
        except ValueError:
            return False
        return True

    return check


# regular expressions


def _patterns() -> list[Function]:
    return [
        Function("find", "string", ("string", "string"), _find),
        Function("findAll", "list(string)", ("string", "string"), _find_all),
        Function("findAll", "list(string)", ("string", "string", "int"), _find_all),
    ]


@functools.lru_cache(maxsize=256)
def _pattern(text: str) -> Any:
    """Return a compiled pattern of RE2, whose time is linear in the text, as that of Go's engine."""
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        raise ValueError(f"Illegal regex: error parsing regexp: {error}: `{text}`") from None


def _find(text: str, pattern: str) -> str:
    match = _pattern(pattern).search(text)
    return match.group(0) if match else ""


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    found = [match.group(0) for match in _pattern(pattern).finditer(text)]
    return found if most < 0 else found[:most]


# quantities and versions


def _quantity(text: str) -> Tagged:
    return {"quantity": quantity_text(read_quantity(text))}


def _number(value: Tagged) -> Decimal:
    return quantity_number(value["quantity"])


def _integer(value: Tagged) -> int:
    number = _number(value)
    if number != number.to_integral_value() or not -(2**63) <= number < 2**63:
        raise ValueError("cannot convert value to integer")
    return int(number)


def _combine(sign: int) -> Callable[[Tagged, Any], Tagged]:
    def combine(one: Tagged, other: Any) -> Tagged:
        number = Decimal(other) if isinstance(other, int) else _number(other)
        with localcontext() as context:
            context.prec = 100
            return {"quantity": quantity_text(_number(one) + sign * number)}

    return combine


def _compare(one: Tagged, other: Tagged) -> int:
    left, right = _order(one), _order(other)
    return int(left > right) - int(left < right)


def _order(value: Tagged) -> Any:
    return _number(value) if "quantity" in value else version_order(value["semver"])


def _comparisons(kind: str) -> list[Function]:
    both = (kind, kind)
    return [
        Function("isLessThan", "bool", both, lambda one, other: _compare(one, other) < 0),
        Function("isGreaterThan", "bool", both, lambda one, other: _compare(one, other) > 0),
        Function("compareTo", "int", both, _compare),
    ]


def _quantities() -> list[Function]:
    one = (_QUANTITY,)
    return [
        Function("quantity", _QUANTITY, ("string",), _quantity, False),
        Function("isQuantity", "bool", ("string",), _is(_quantity), False),
        Function("sign", "int", one, lambda value: (_number(value) > 0) - (_number(value) < 0), False),
        Function("isInteger", "bool", one, _is(_integer)),
        Function("asInteger", "int", one, _integer),
        Function("asApproximateFloat", "double", one, lambda value: float(_number(value))),
        *(
            Function(name, _QUANTITY, (_QUANTITY, other), _combine(sign))
            for name, sign in (("add", 1), ("sub", -1))
            for other in (_QUANTITY, "int")
        ),
        *_comparisons(_QUANTITY),
    ]


def _version(text: str, normalize: bool = False) -> Tagged:
    return {"semver": read_version(text, normalize=normalize)}


def _part(index: int) -> Callable[[Tagged], int]:
    return lambda value: int(version_order(value["semver"])[index])


def _versions() -> list[Function]:
    return [
        *(Function("semver", _VERSION, given, _version, False) for given in (("string",), ("string", "bool"))),
        *(Function("isSemver", "bool", given, _is(_version), False) for given in (("string",), ("string", "bool"))),
        *(Function(name, "int", (_VERSION,), _part(index)) for index, name in enumerate(("major", "minor", "patch"))),
        *_comparisons(_VERSION),
    ]


# URLs, addresses, networks


def _url(text: str) -> Tagged:
    read_url(text)
    return {"url": text}


def _to_url(text: str) -> Tagged:
    try:
        return _url(text)
    except ValueError as error:
        raise ValueError(f"URL parse error during conversion from string: {error}") from None


def _of_url(read: Callable[[URL], Any]) -> Callable[[Tagged], Any]:
    return lambda value: read(read_url(value["url"]))


def _urls() -> list[Function]:
    one = (_URL,)
    return [
        Function("isURL", "bool", ("string",), _is(check_request_uri), False),
        Function("url", _URL, ("string",), _to_url, False),
        Function("getScheme", "string", one, _of_url(lambda url: url.scheme)),
        Function("getHost", "string", one, _of_url(lambda url: url.host)),
        Function("getHostname", "string", one, _of_url(lambda url: url.hostname)),
        Function("getPort", "string", one, _of_url(lambda url: url.port)),
        Function("getEscapedPath", "string", one, _of_url(lambda url: url.escaped_path)),
        Function("getQuery", "map(string, list(string))", one, _of_url(lambda url: url.values)),
    ]


def _ip(text: str) -> Tagged:
    return {"ip": str(read_address(text))}


def _cidr(text: str) -> Tagged:
    return {"cidr": str(read_network(text))}


def _text(value: Tagged) -> str:
    return str(value.get("ip") or value["cidr"])


def _of_ip(read: Callable[[Any], Any]) -> Callable[[Tagged], Any]:
    return lambda value: read(read_address(value["ip"]))


def _of_cidr(read: Callable[[Network], Any]) -> Callable[[Tagged], Any]:
    return lambda value: read(read_network(value["cidr"]))


def _given(value: Any, read: Callable[[str], Any]) -> Any:
    """Return what is given as a value or as a text."""
    if not isinstance(value, str):
        return read(_text(value))
    try:
        return read(value)
    except ValueError:
        raise ValueError("no such overload") from None


def _contains_ip(value: Tagged, other: Any) -> bool:
    return _given(other, read_address) in read_network(value["cidr"]).network


def _contains_cidr(value: Tagged, other: Any) -> bool:
    outer, inner = read_network(value["cidr"]).network, _given(other, read_network).network
    return outer.version == inner.version and bool(inner.subnet_of(outer))


def _addresses() -> list[Function]:
    one, network = (_IP,), (_CIDR,)
    return [
        Function("isIP", "bool", ("string",), _is(_ip), False),
        Function("ip", _IP, ("string",), _ip, False),
        Function("ip.isCanonical", "bool", ("string",), lambda text: str(read_address(text)) == text, False),
        Function("string", "string", one, _text, False),
        Function("family", "int", one, _of_ip(lambda address: address.version)),
        Function("isUnspecified", "bool", one, _of_ip(lambda address: address.is_unspecified)),
        Function("isLoopback", "bool", one, _of_ip(lambda address: address.is_loopback)),
        Function("isLinkLocalMulticast", "bool", one, _of_ip(is_local_multicast)),
        Function("isLinkLocalUnicast", "bool", one, _of_ip(lambda address: address.is_link_local)),
        Function("isGlobalUnicast", "bool", one, _of_ip(is_global)),
        Function("isCIDR", "bool", ("string",), _is(_cidr), False),
        Function("cidr", _CIDR, ("string",), _cidr, False),
        Function("string", "string", network, _text, False),
        Function("ip", _IP, network, _of_cidr(lambda found: {"ip": str(found.ip)})),
        Function("masked", _CIDR, network, _of_cidr(lambda found: {"cidr": str(found.network)})),
        Function("prefixLength", "int", network, _of_cidr(lambda found: found.network.prefixlen)),
        *(Function("containsIP", "bool", (_CIDR, other), _contains_ip) for other in ("string", _IP)),
        *(Function("containsCIDR", "bool", (_CIDR, other), _contains_cidr) for other in ("string", _CIDR)),
    ]


# named formats; their results are made optionals when a rule is compiled


def _format(name: str) -> Callable[[], Tagged]:
    return lambda: {"format": name}


def _named(name: str) -> Tagged:
    return {"format": name} if name in NAMED_FORMATS else {}


def _formats() -> list[Function]:
    return [
        *(Function(f"format.{name}", _FORMAT, (), _format(name), False) for name in NAMED_FORMATS),
        Function("format.named", "dyn", ("string",), _named, False),
        Function("validate", "dyn", (_FORMAT, "string"), lambda value, text: NAMED_FORMATS[value["format"]](text)),
    ]
