"""The forms of texts that ``rules.txt`` names; each function yields what is wrong with a text."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from reconciler.apiserver.cel.model import RESERVED_WORDS
from reconciler.apiserver.schema.names import (
    CONFIG_KEY_MESSAGE,
    is_config_key,
    label_1035_problems,
    label_problems,
    label_value_problems,
    path_name_problems,
    qualified_name_problems,
    subdomain_problems,
)

__all__ = ["FORMS", "parsed_address", "port_name_problems"]

_UNDERSCORED = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*"
_WILDCARD = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"


def _pattern(pattern: str, message: str) -> Callable[[str], Iterable[str]]:
    compiled = re.compile(pattern)
    return lambda text: () if compiled.fullmatch(text) else (message,)


def parsed_address(text: str) -> Any:
    """Return an IP address or network, or None."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _ip(text: str) -> Iterator[str]:
    if parsed_address(text) is None or "/" in text:
        yield "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def _cidr(text: str) -> Iterator[str]:
    if parsed_address(text) is None or "/" not in text:
        yield "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def _endpoint(text: str) -> Iterator[str]:
    """Yield why the address of an endpoint is not allowed; what is not an address is found elsewhere."""
    found = parsed_address(text)
    if getattr(found, "is_unspecified", False):
        yield f"may not be unspecified ({text})"
    if getattr(found, "is_loopback", False):
        yield "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if getattr(found, "is_link_local", False):
        yield "may not be in the link-local range (169.254.0.0/16, fe80::/10)"


def _endpoint_or_name(text: str) -> Iterator[str]:
    yield from (problem.partition(",")[0] for problem in _ip(text))
    yield from _endpoint(text)


def port_name_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with the name of a port."""
    if len(text) > 15:
        yield "must be no more than 15 characters"
    if re.search("[^-a-z0-9]", text):
        yield "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    if not re.search("[a-z]", text):
        yield "must contain at least one letter (a-z)"
    if "--" in text:
        yield "must not contain consecutive hyphens"
    if text.startswith("-") or text.endswith("-"):
        yield "must not begin or end with a hyphen"


def _domain_path(text: str) -> Iterator[str]:
    domain, _, path = text.partition("/")
    if not domain or not path:
        yield 'must be a domain-prefixed path (such as "acme.io/foo")'
        return
    yield from subdomain_problems(domain)
    if not re.fullmatch(_PATH, path):
        yield f"Invalid path (regex used for validation is '{_PATH}')"


def _descending(text: str) -> Iterator[str]:
    if text.startswith("/"):
        yield "must be a relative path"
    yield from _no_backstep(text)


def _no_backstep(text: str) -> Iterator[str]:
    if ".." in text.split("/"):
        yield "must not contain '..'"


def _url_path(text: str) -> Iterator[str]:
    for wrong in ("//", "/./", "/../", "%2f", "%2F"):
        if wrong in text:
            yield f"must not contain '{wrong}'"
    for wrong in ("/..", "/."):
        if text.endswith(wrong):
            yield f"cannot end with '{wrong}'"


def _host(text: str) -> Iterable[str]:
    if parsed_address(text) is not None:
        return ("must be a DNS name, not an IP address",)
    return _WILDCARDS(text) if "*" in text else subdomain_problems(text)


_WILDCARDS = _pattern(
    _WILDCARD,
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
    f"regex used for validation is '{_WILDCARD}')",
)


def _time_zone(text: str) -> Iterator[str]:
    if text.lower() == "local":
        yield "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    elif text not in zoneinfo.available_timezones():
        yield f"unknown time zone {text}"


_MACROS = ("@annually", "@daily", "@every", "@hourly", "@midnight", "@monthly", "@weekly", "@yearly")
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def _schedule(text: str) -> Iterator[str]:
    """Yield why a schedule is not a macro such as ``@daily``, or five fields with numbers in their ranges."""
    fields = text.split()
    if "TZ" in text:
        yield "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    elif text.startswith("@"):
        if fields[0] not in _MACROS:
            yield f"unrecognized descriptor: {text}"
    elif len(fields) != 5:
        yield f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    else:
        yield from [found for field, bounds in zip(fields, _FIELDS, strict=True) for found in _field(field, *bounds)][
            :1
        ]


def _field(text: str, low: int, high: int) -> Iterator[str]:
    for number in map(int, re.findall(r"(?<![/\w])\d+", text)):
        if number > high:
            yield f"end of range ({number}) above maximum ({high}): {text}"
        if number < low:
            yield f"beginning of range ({number}) below minimum ({low}): {text}"


def _three_segments(text: str) -> Iterator[str]:
    if problems := subdomain_problems(text):
        yield ",".join(problems)
    elif text.count(".") < 2:
        yield "should be a domain with at least three segments separated by dots"


def _mixed_label(text: str) -> list[str]:
    words = "may have mixed case, but should otherwise match: "
    return [f"{words}{problem}" for problem in label_1035_problems(text.lower())]


def _cel_identifier(text: str) -> tuple[str, ...]:
    return () if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", text) and text not in RESERVED_WORDS else ("",)


FORMS: dict[str, Callable[[str], Iterable[str]]] = {
    "cel-identifier": _cel_identifier,
    "cidr": _cidr,
    "config-key": lambda text: () if is_config_key(text) else (CONFIG_KEY_MESSAGE,),
    "descending": _descending,
    "domain-path": _domain_path,
    "endpoint-ip": _endpoint,
    "endpoint-ip-or-name": _endpoint_or_name,
    "env-name": _pattern(
        "[ -<>-~]+", "a valid environment variable name must consist only of printable ASCII characters other than '='"
    ),
    "header": _pattern(
        "[-A-Za-z0-9]+",
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
        "validation is '[-A-Za-z0-9]+')",
    ),
    "host": _host,
    "ip": _ip,
    "label": label_problems,
    "label-1035": label_1035_problems,
    "label-value": label_value_problems,
    "mixed-label-1035": _mixed_label,
    "no-backstep": _no_backstep,
    "path-name": path_name_problems,
    "port-name": port_name_problems,
    "qualified": qualified_name_problems,
    "schedule": _schedule,
    "subdomain": subdomain_problems,
    "subdomain-or-underscores": _pattern(
        _UNDERSCORED,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
        "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        f"'{_UNDERSCORED}')",
    ),
    "sysctl": _pattern(_SYSCTL, f"must have at most 253 characters and match regex ^{_SYSCTL}$"),
    "three-segments": _three_segments,
    "time-zone": _time_zone,
    "trimmed": _pattern(r"(?s)\S(.*\S)?", "must not have leading or trailing whitespace"),
    "url-path": _url_path,
}
