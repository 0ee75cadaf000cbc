"""The forms of texts that ``rules.txt`` names; each function yields what is wrong with a text."""

from __future__ import annotations

import functools
import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from reconciler.apiserver.cel.model import RESERVED_WORD
from reconciler.apiserver.schema import formats

__all__ = ["FORMS", "parsed_address"]

_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_NOT_ENDPOINTS = {
    "unspecified": "may not be unspecified ({})",
    "loopback": "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    "link_local": "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
}
_MACROS = ("@annually", "@daily", "@every", "@hourly", "@midnight", "@monthly", "@weekly", "@yearly")
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_OF_NAMES = (
    *("condition-reason", "descending", "env-name", "header", "label-1035", "label-value", "no-backstep", "port-name"),
    *("subdomain", "sysctl", "trimmed", "url-path"),
)


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


def _endpoint(text: str) -> list[str]:
    """Return why the address of an endpoint is not allowed; what is not an address is found elsewhere."""
    found = parsed_address(text)
    return [message.format(text) for kind, message in _NOT_ENDPOINTS.items() if getattr(found, f"is_{kind}", False)]


def _endpoint_or_name(text: str) -> Iterator[str]:
    yield from (problem.partition(",")[0] for problem in _ip(text))
    yield from _endpoint(text)


def _domain_path(text: str) -> Iterator[str]:
    domain, _, path = text.partition("/")
    if not domain or not path:
        yield 'must be a domain-prefixed path (such as "acme.io/foo")'
        return
    yield from formats.form_problems("subdomain", domain)
    if not re.fullmatch(_PATH, path):
        yield f"Invalid path (regex used for validation is '{_PATH}')"


def _host(text: str) -> Iterable[str]:
    if parsed_address(text) is not None:
        return ("must be a DNS name, not an IP address",)
    return formats.form_problems("wildcard" if "*" in text else "subdomain", text)


def _time_zone(text: str) -> Iterator[str]:
    if text.lower() == "local":
        yield "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    elif text not in zoneinfo.available_timezones():
        yield f"unknown time zone {text}"


def _regular_expression(text: str) -> Iterator[str]:
    if text and (problem := formats.pattern_problem(text)):
        yield f"must be a valid regular expression, but isn't: {problem}"


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
    if problems := formats.form_problems("subdomain", text):
        yield ",".join(problems)
    elif text.count(".") < 2:
        yield "should be a domain with at least three segments separated by dots"


def _mixed_label(text: str) -> list[str]:
    words = "may have mixed case, but should otherwise match: "
    return [f"{words}{problem}" for problem in formats.form_problems("label-1035", text.lower())]


FORMS: dict[str, Callable[[str], Iterable[str]]] = {
    **{form: functools.partial(formats.form_problems, form) for form in _OF_NAMES},
    "cel-identifier": lambda text: () if _IDENTIFIER.fullmatch(text) and not RESERVED_WORD.fullmatch(text) else ("",),
    "cidr": _cidr,
    "config-key": lambda text: (
        [f"must not be '{text}'"] if text in (".", "..") else formats.form_problems("config-key", text)
    ),
    "domain": lambda text: formats.form_problems("subdomain", text.removesuffix(".")),
    "domain-path": _domain_path,
    "endpoint-ip": _endpoint,
    "endpoint-ip-or-name": _endpoint_or_name,
    "host": _host,
    "ip": _ip,
    "label": formats.label_problems,
    "mixed-label-1035": _mixed_label,
    "path-name": formats.path_name_problems,
    "qualified": formats.qualified_name_problems,
    "regular-expression": _regular_expression,
    "schedule": _schedule,
    "search-domain": lambda text: (
        [] if text == "." else formats.form_problems("subdomain-or-underscores", text.removesuffix("."))
    ),
    "three-segments": _three_segments,
    "time-zone": _time_zone,
}
