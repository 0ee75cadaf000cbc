"""Remember the requests that were answered: bounded, what was dropped is counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.apiserver._routing import Call
from reconciler.apiserver._storage import Stored
from reconciler.http import HTTPRequest

__all__ = ["LoggedRequest", "RequestLog", "changed_paths", "logged"]

_MOST_PATHS = 64


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """Hold one request and what came of it.

    Attributes:
        time: when it was answered.
        verb: in the API's words: get, list, watch, create, update, patch, delete, deletecollection; for other paths the
            HTTP method in lower case.
        method: the HTTP method.
        path: the path without query.
        group: the API group.
        version: the API version.
        resource: the plural name; empty for other paths.
        kind: the kind; empty for other paths.
        namespace: the namespace in the path, or None.
        name: the object's name; for a create the name that was given to it. Empty for collections.
        subresource: empty for the object itself.
        status: the HTTP status of the answer that was made, even if a fault withheld or replaced it afterwards; 0 when
            a fault kept the request from being handled.
        reason: the reason of a refusal, or empty.
        before: the object's resourceVersion before, or None.
        after: the object's resourceVersion after, or None.
        effective: whether something was changed in storage.
        changed: pointers of what was changed, such as ``/status/phase``, apart from the server's own bookkeeping
            (resourceVersion, generation, managedFields); at most 64.
        user_agent: the User-Agent header.
        content_type: the Content-Type header.
    """

    time: datetime
    verb: str
    method: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    kind: str = ""
    namespace: str | None = None
    name: str = ""
    subresource: str = ""
    status: int = 0
    reason: str = ""
    before: int | None = None
    after: int | None = None
    effective: bool = False
    changed: tuple[str, ...] = ()
    user_agent: str = ""
    content_type: str = ""

    def summary(self) -> str:
        """Return one line for people: verb, what, outcome."""
        what = f"{self.resource}/{self.name}" if self.name else self.resource or self.path
        if self.subresource:
            what = f"{what}/{self.subresource}"
        where = f" in {self.namespace}" if self.namespace else ""
        outcome = f"{self.status} {self.reason}".rstrip() if self.status else "no answer"
        versions = f", version {self.before} to {self.after}" if self.effective else ""
        paths = f", changed {' '.join(self.changed)}" if self.changed else ""
        return f"{self.verb} {what}{where}: {outcome}{versions}{paths}"


def logged(
    time: datetime,
    request: HTTPRequest,
    call: Call | None,
    status: int,
    reason: str,
    *,
    before: Stored | None,
    after: Stored | None,
) -> LoggedRequest:
    """Return what is to be remembered of a request.

    Args:
        time: when it was answered.
        request: the request.
        call: what it asked of a kind; None for other paths.
        status: the HTTP status of the answer.
        reason: the reason of a refusal.
        before: the version before a write.
        after: the version after a write; the same object when nothing was changed.
    """
    agent, content = request.headers.get("user-agent", ""), request.headers.get("content-type", "")
    if call is None:
        verb = request.method.lower()
        return LoggedRequest(
            time,
            verb,
            request.method,
            request.path,
            status=status,
            reason=reason,
            user_agent=agent,
            content_type=content,
        )
    info = call.endpoint.info
    effective = after is not None and after is not before
    return LoggedRequest(
        time,
        call.verb,
        request.method,
        request.path,
        info.group,
        call.endpoint.version,
        info.plural,
        info.kind,
        call.namespace,
        call.name or (after.doc["metadata"]["name"] if after is not None else ""),
        call.subresource,
        status,
        reason,
        before.rv if before is not None else None,
        after.rv if after is not None else None,
        effective,
        changed_paths(before.doc, after.doc) if effective and before is not None and after is not None else (),
        agent,
        content,
    )


class RequestLog:
    """Keep the last requests.

    Args:
        capacity: how many are kept.

    Attributes:
        dropped: how many older ones were let go.
    """

    def __init__(self, capacity: int) -> None:
        self._entries: deque[LoggedRequest] = deque(maxlen=capacity)
        self.dropped = 0

    def add(self, entry: LoggedRequest) -> None:
        """Remember a request."""
        if len(self._entries) == self._entries.maxlen:
            self.dropped += 1
        self._entries.append(entry)

    def clear(self) -> None:
        """Forget all requests."""
        self._entries.clear()

    def find(self, **wanted: Any) -> list[LoggedRequest]:
        """Return the requests whose attributes equal all of `wanted` that are not None; oldest first."""
        tests = [(name, value) for name, value in wanted.items() if value is not None]
        return [entry for entry in self._entries if all(_meets(getattr(entry, name), value) for name, value in tests)]


def _meets(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple, set, frozenset)):
        return found in wanted
    return bool(found == wanted)


_BOOKKEEPING = frozenset({"/metadata/resourceVersion", "/metadata/generation", "/metadata/managedFields"})


def changed_paths(before: Any, after: Any) -> tuple[str, ...]:
    """Return the JSON pointers at which two documents differ, lists as wholes; parts that are shared cost nothing."""
    found: list[str] = []
    for path in _differences(before, after, ""):
        if path not in _BOOKKEEPING:
            found.append(path)
            if len(found) == _MOST_PATHS:
                break
    return tuple(found)


def _differences(before: Any, after: Any, path: str) -> Iterator[str]:
    if before is after:
        return
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after or type(before) is not type(after):
            yield path
        return
    for key in before.keys() | after.keys() if before.keys() != after.keys() else before:
        old, new = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if old is not new and (old != new or type(old) is not type(new)):
            yield from _differences(old, new, f"{path}/{key.replace('~', '~0').replace('/', '~1')}")


_ABSENT = object()
