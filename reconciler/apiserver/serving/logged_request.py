"""An entry of the request log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from reconciler.apiserver.access.users import ADMIN
from reconciler.apiserver.builtin.kinds import REVIEWS
from reconciler.apiserver.ownership.managed_fields import manager_of
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.storage.store import Stored
from reconciler.http import HTTPRequest
from reconciler.wire import JSONValue

__all__ = ["WRITES", "LoggedRequest", "changed_paths", "log_entry", "printable"]

_MAX_PATHS = 64
_MAX_CHARACTERS = 256
"""How much of a path or a header is kept, so that the size of the log is bounded in bytes too."""

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
CYCLE_HEADER = "x-reconcile-id"
"""The header with which a client marks the requests of one reconcile; the server only logs it."""
_BOOKKEEPING = frozenset({"/metadata/resourceVersion", "/metadata/generation", "/metadata/managedFields"})
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request and its outcome.

    Attributes:
        time: when it was answered.
        verb: the API's verb: get, list, watch, create, update, patch, delete, deletecollection; for other paths the
            HTTP method in lower case.
        method: the HTTP method.
        path: the path without the query.
        group: the API group.
        version: the API version.
        resource: the plural name; empty for other paths.
        kind: the kind; empty for other paths.
        namespace: the namespace in the path, or None.
        name: the object's name; of a create, the name that the object got, or the name in a JSON body. Empty for
            collections.
        subresource: empty for the object itself.
        status: the HTTP status of the response, even if a fault withheld or replaced it afterwards; 0 if a fault
            prevented the request from being handled.
        reason: the reason of an error response, or empty.
        before: the object's resourceVersion before, or None.
        after: the object's resourceVersion after, or None.
        effective: whether the request changed stored data.
        changed: JSON pointers of what changed, such as ``/status/phase``, without the server's own bookkeeping
            (resourceVersion, generation, managedFields); at most 64.
        user_agent: the User-Agent header.
        content_type: the Content-Type header.
        field_manager: of a write, the name of its field manager: the parameter ``fieldManager``, or what the server
            derives from the User-Agent.
        cycle: the X-Reconcile-Id header, with which a client marks the requests of one reconcile.
        fault: what a fault did to the request, or empty.
        user: the name of the user; empty for an administrator without a name of its own, and for paths of no kind.
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
    field_manager: str = ""
    cycle: str = ""
    fault: str = ""
    user: str = ""

    @property
    def writes(self) -> bool:
        """Return whether it is a write: any verb but get, list and watch, except for reviews, which store nothing."""
        return self.verb in WRITES and self.group not in REVIEWS

    @property
    def who(self) -> str:
        """Return the User-Agent, the field manager unless the User-Agent starts with it, and the user."""
        agent, manager = self.user_agent or "nobody", self.field_manager
        shown = agent if not manager or agent.startswith(manager) else f"{agent} as {manager}"
        return f"{shown} ({self.user})" if self.user else shown

    def __str__(self) -> str:
        """Return one line: time, request, client, outcome, changes, and what a fault did."""
        what, _, outcome = self.summary().partition(": ")
        moment = self.time.isoformat(sep=" ", timespec="milliseconds").partition("+")[0]
        fault = f" [fault: {self.fault}]" if self.fault else ""
        return printable(f"{moment} {what} by {self.who}: {outcome}{fault}")

    def summary(self) -> str:
        """Return one line for people: verb, object, outcome."""
        what = f"{self.resource}/{self.name}" if self.name else self.resource or self.path
        if self.subresource:
            what = f"{what}/{self.subresource}"
        where = f" in {self.namespace}" if self.namespace else ""
        outcome = f"{self.status} {self.reason}".rstrip() if self.status else "no response"
        versions = ""
        if self.effective:
            versions = f", version {self.after}" if self.before is None else f", version {self.before} to {self.after}"
        paths = f", changed {' '.join(self.changed)}" if self.changed else ""
        return printable(f"{self.verb} {what}{where}: {outcome}{versions}{paths}")


def printable(text: str) -> str:
    """Return a string on one line, with characters that are not printable, such as line separators, escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def log_entry(
    time: datetime,
    request: HTTPRequest,
    call: Call | None,
    status: int,
    reason: str,
    *,
    before: Stored | None,
    after: Stored | None,
    fault: str = "",
) -> LoggedRequest:
    """Return the log entry of a request, whose path belongs to no kind if it makes no call."""
    headers = request.headers
    texts: dict[str, Any] = {
        "verb": request.method.lower(),
        "method": request.method,
        "path": request.path,
        "user_agent": headers.get("user-agent", ""),
        "content_type": headers.get("content-type", ""),
    }
    if call is not None:
        info = call.endpoint.info
        texts |= {
            "verb": call.verb,
            "group": info.group,
            "version": call.endpoint.version,
            "resource": info.plural,
            "kind": info.kind,
            "namespace": call.namespace,
            "name": call.name or _name_of_created(request, call, after),
            "subresource": call.subresource,
            "field_manager": manager_of(call) if call.verb in WRITES else "",
            "cycle": headers.get(CYCLE_HEADER, ""),
            "user": "" if call.user is ADMIN else call.user.name,
        }
    return LoggedRequest(
        time,
        status=status,
        reason=reason,
        before=None if before is None else before.rv,
        after=None if after is None else after.rv,
        effective=after is not None and after is not before,
        changed=() if before is None or after is None else changed_paths(before.doc, after.doc),
        fault=fault,
        **{name: text and text[:_MAX_CHARACTERS] for name, text in texts.items()},
    )


def _name_of_created(request: HTTPRequest, call: Call, after: Stored | None) -> str:
    """Return the name of the object that a create made or asked for."""
    if after is not None:
        return str(after.doc["metadata"]["name"])
    if call.verb != "create":
        return ""
    try:
        asked = msgspec.json.decode(request.body, type=_Body).metadata.name
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return asked


class _BodyMetadata(msgspec.Struct):
    name: str = ""


class _Body(msgspec.Struct):
    metadata: _BodyMetadata = msgspec.field(default_factory=_BodyMetadata)


def changed_paths(before: JSONValue, after: JSONValue) -> tuple[str, ...]:
    """Return the JSON pointers at which two documents differ, lists as wholes; shared parts are not compared."""
    found: list[str] = []
    for path in _differences(before, after, ""):
        if path not in _BOOKKEEPING:
            found.append(path[:_MAX_CHARACTERS])
            if len(found) == _MAX_PATHS:
                break
    return tuple(found)


def _differences(before: object, after: object, path: str) -> Iterator[str]:
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
