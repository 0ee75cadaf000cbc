"""Say what one request was and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from reconciler.apiserver.ownership.managed_fields import manager_of
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.storage.store import Stored
from reconciler.http import HTTPRequest

__all__ = ["WRITES", "LoggedRequest", "changed_paths", "logged", "printable"]

_MAX_PATHS = 64
_MAX_CHARACTERS = 256
"""How much of a path or a header is kept, so that a log of so many requests has a bound in bytes too."""

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
CYCLE_HEADER = "x-reconcile-id"
"""A client may say by it which of its cycles a request belongs to; the server does nothing else with it."""


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
        name: the object's name; for a create the name that was given to it, or was asked for in JSON. Empty for
            collections.
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
        field_manager: of a write: under which name its fields are managed; the parameter ``fieldManager``, or what the
            server makes of the User-Agent.
        cycle: the X-Reconcile-Id header, by which a client may say which of its cycles the request belongs to.
        fault: what a fault did to the request, or empty.
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

    @property
    def writes(self) -> bool:
        """Tell whether it asked for a change: any verb but get, list and watch."""
        return self.verb in WRITES

    @property
    def who(self) -> str:
        """Return the User-Agent, and the field manager where the User-Agent does not begin with it."""
        agent, manager = self.user_agent or "nobody", self.field_manager
        return agent if not manager or agent.startswith(manager) else f"{agent} as {manager}"

    def __str__(self) -> str:
        """Return one line: when, what, who, outcome, what changed, and what a fault did."""
        what, _, outcome = self.summary().partition(": ")
        moment = self.time.isoformat(sep=" ", timespec="milliseconds").partition("+")[0]
        fault = f" [fault: {self.fault}]" if self.fault else ""
        return printable(f"{moment} {what} by {self.who}: {outcome}{fault}")

    def summary(self) -> str:
        """Return one line for people: verb, what, outcome."""
        what = f"{self.resource}/{self.name}" if self.name else self.resource or self.path
        if self.subresource:
            what = f"{what}/{self.subresource}"
        where = f" in {self.namespace}" if self.namespace else ""
        outcome = f"{self.status} {self.reason}".rstrip() if self.status else "no answer"
        versions = ""
        if self.effective:
            versions = f", version {self.after}" if self.before is None else f", version {self.before} to {self.after}"
        paths = f", changed {' '.join(self.changed)}" if self.changed else ""
        return printable(f"{self.verb} {what}{where}: {outcome}{versions}{paths}")


def printable(text: str) -> str:
    """Return a text on one line, with escapes for characters that are not printable, such as line separators."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def logged(
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
    """Return what is to be remembered of a request.

    Args:
        time: when it was answered.
        request: the request.
        call: what it asked of a kind; None for other paths.
        status: the HTTP status of the answer.
        reason: the reason of a refusal.
        before: the version before a write.
        after: the version after a write; the same object when nothing was changed.
        fault: what a fault did to it.
    """
    headers = request.headers
    agent, content = headers.get("user-agent", "")[:_MAX_CHARACTERS], headers.get("content-type", "")[:_MAX_CHARACTERS]
    if call is None:
        return LoggedRequest(
            time,
            request.method[:_MAX_CHARACTERS].lower(),
            request.method[:_MAX_CHARACTERS],
            request.path[:_MAX_CHARACTERS],
            status=status,
            reason=reason,
            user_agent=agent,
            content_type=content,
            fault=fault,
        )
    info = call.endpoint.info
    effective = after is not None and after is not before
    return LoggedRequest(
        time,
        call.verb,
        request.method,
        request.path[:_MAX_CHARACTERS],
        info.group,
        call.endpoint.version,
        info.plural,
        info.kind,
        None if call.namespace is None else call.namespace[:_MAX_CHARACTERS],
        call.name[:_MAX_CHARACTERS] or _name_of_new(request, call, after),
        call.subresource[:_MAX_CHARACTERS],
        status,
        reason,
        before.rv if before is not None else None,
        after.rv if after is not None else None,
        effective,
        changed_paths(before.doc, after.doc) if effective and before is not None and after is not None else (),
        agent,
        content,
        manager_of(call)[:_MAX_CHARACTERS] if call.verb in WRITES else "",
        headers.get(CYCLE_HEADER, "")[:_MAX_CHARACTERS],
        fault,
    )


def _name_of_new(request: HTTPRequest, call: Call, after: Stored | None) -> str:
    """Return the name of what a create made, or would have made."""
    if after is not None:
        return str(after.doc["metadata"]["name"])
    if call.verb != "create":
        return ""
    try:
        asked = msgspec.json.decode(request.body, type=_Asked).metadata.name
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return asked[:_MAX_CHARACTERS]


class _AskedMetadata(msgspec.Struct):
    name: str = ""


class _Asked(msgspec.Struct):
    metadata: _AskedMetadata = msgspec.field(default_factory=_AskedMetadata)


_BOOKKEEPING = frozenset({"/metadata/resourceVersion", "/metadata/generation", "/metadata/managedFields"})


def changed_paths(before: Any, after: Any) -> tuple[str, ...]:
    """Return the JSON pointers at which two documents differ, lists as wholes; parts that are shared cost nothing."""
    found: list[str] = []
    for path in _differences(before, after, ""):
        if path not in _BOOKKEEPING:
            found.append(path[:_MAX_CHARACTERS])
            if len(found) == _MAX_PATHS:
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
