"""Tell a request that writes a status from every other one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

__all__ = ["Addressed", "status_write"]

_OBJECT = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/]+)/(?P<name>[^/]+?)(?P<status>/status)?$"
)
"""An object or its status. What stands before it is a prefix of the server, such as a proxy's."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """Name the object whose status a request writes.

    Attributes:
        group: the API group; empty for the core kinds. The version is left out, since all versions are one object.
        plural: the kind's name in paths.
        namespace: None for objects of the cluster.
        name: the object's name.
    """

    group: str
    plural: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        kind = f"{self.plural}.{self.group}" if self.group else self.plural
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"


def status_write(method: str, url: str, body: Callable[[], object], *, query: object = None) -> Addressed | None:
    """Return the object whose status a request writes; None when it does not.

    A PUT or PATCH of ``/status`` does, and so does a PATCH of the object itself that says something of the status, as
    it is for kinds without the subresource. A PUT of the object itself always carries the status and is not counted.
    One with ``dryRun`` writes nothing.

    Args:
        method: of HTTP.
        url: the URL, or its path and query.
        body: returns the body, as JSON or decoded; asked for only if it matters.
        query: parameters that are not in the URL.
    """
    if method not in {"PATCH", "PUT"}:
        return None
    parts = urlsplit(url)
    found = _OBJECT.search(parts.path)
    if found is None or "dryRun" in parts.query or "dryRun" in str(query):
        return None
    if found["status"] is None and not (method == "PATCH" and _speaks_of_status(body())):
        return None
    namespace = found["namespace"]
    return Addressed(
        unquote(found["group"] or ""),
        unquote(found["plural"]),
        None if namespace is None else unquote(namespace),
        unquote(found["name"]),
    )


def _speaks_of_status(body: Any) -> bool:
    if isinstance(body, (bytes, bytearray, str)):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError):
            return False
    if isinstance(body, dict):
        return "status" in body
    return isinstance(body, list) and any(
        isinstance(step, dict) and step.get("op") != "test" and str(step.get("path", "")).startswith("/status")
        for step in body
    )
