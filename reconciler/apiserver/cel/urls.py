"""Read URLs as Go's ``net/url`` does, for the URL functions and the ``uri`` format of CEL rules."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote

from reconciler.apiserver.encoding.text import quoted

__all__ = ["URL", "check_request_uri", "read_url"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
_BAD_IN_HOST = re.compile(r"[\s\\^`{}|]")
_PORT = re.compile(r":[0-9]*")
_PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9\-_.~!$&'()*+,;=:@/\[\]]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class URL:
    """Hold the parts of a URL.

    Attributes:
        scheme: in lower case, or empty.
        host: with the port, and with brackets around an IPv6 address.
        path: as it is written.
        query: as it is written, without the question mark.
    """

    scheme: str
    host: str
    path: str
    query: str

    @property
    def hostname(self) -> str:
        """Return the host without port and brackets."""
        if self.host.startswith("["):
            return self.host[1 : self.host.rindex("]")]
        return self.host.rpartition(":")[0] if ":" in self.host else self.host

    @property
    def port(self) -> str:
        """Return the port, or nothing."""
        return self.host.rpartition(":")[2] if ":" in self.host.rpartition("]")[2] else ""

    @property
    def escaped_path(self) -> str:
        """Return the path, escaped where it has to be."""
        if _PLAIN_PATH.fullmatch(self.path):
            return self.path
        return quote(unquote(self.path), safe="$&+,/:;=@-_.~")

    @property
    def values(self) -> dict[str, list[str]]:
        """Return the parameters of the query."""
        return parse_qs(self.query, keep_blank_values=True)


def check_request_uri(text: str) -> None:
    """Demand an absolute URI or an absolute path.

    Raises:
        ValueError: it is none, in Go's words.
    """
    _read(text, text, request=True)


@functools.lru_cache(maxsize=256)
def read_url(text: str) -> URL:
    """Return the parts of an absolute URI or an absolute path.

    Raises:
        ValueError: it is none, in Go's words.
    """
    check_request_uri(text)
    return _read(text, text.partition("#")[0], request=False)


def _read(whole: str, text: str, *, request: bool) -> URL:
    def refused(why: str) -> ValueError:
        return ValueError(f"parse {quoted(whole)}: {why}")

    if _CONTROL.search(text):
        raise refused("net/url: invalid control character in URL")
    if not text and request:
        raise refused("empty url")
    if text.startswith(":"):
        raise refused("missing protocol scheme")
    found = _SCHEME.match(text)
    scheme = found.group(0).lower() if found else ""
    rest, _, query = (text[len(scheme) + 1 :] if scheme else text).partition("?")
    if not rest.startswith("/"):
        if scheme:
            return URL(scheme, "", "", query)
        if request:
            raise refused("invalid URI for request")
    host = ""
    if rest.startswith("//") and (scheme or (not request and not rest.startswith("///"))):
        authority, slash, path = rest[2:].partition("/")
        host, rest = authority.rpartition("@")[2], slash + path
        problem = _host_problem(host)
        if problem:
            raise refused(problem)
    bad = _BAD_ESCAPE.search(rest)
    if bad:
        raise refused(f"invalid URL escape {quoted(bad.group(0))}")
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
