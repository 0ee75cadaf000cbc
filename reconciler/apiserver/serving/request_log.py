"""The request log: who wrote what, when, and how often in one reconcile.

The log is bounded and counts what it drops. Adding a request costs the same however many came before it; a query reads
the whole log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypedDict, Unpack, runtime_checkable

import msgspec

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import UNDECODABLE, JSONValue
from reconciler.apiserver.builtin.kinds import REVIEWS
from reconciler.apiserver.managed_fields import manager_of
from reconciler.apiserver.serving.handler import HandlerResult
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import ADMIN
from reconciler.apiserver.verbs.routing import Call
from reconciler.http import HTTPRequest

_MAX_PATHS = 64
_MAX_CHARACTERS = 256
"""How much of a path or a header is kept, so that the size of the log is bounded in bytes too."""

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
CYCLE_HEADER = "x-reconcile-id"
"""The header with which a client marks the requests of one reconcile; the server only logs it."""
_BOOKKEEPING = frozenset({"/metadata/resourceVersion", "/metadata/generation", "/metadata/managedFields"})
_ABSENT = object()


@runtime_checkable
class Defined(Protocol):
    """A class with a CustomResourceDefinition."""

    def crd(self) -> Mapping[str, Any]:
        """Return the CustomResourceDefinition."""
        ...


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


class RequestConditions(TypedDict, total=False):
    """Conditions on logged requests; None is not compared."""

    verb: str | Collection[str] | None
    """Such as ``"patch"``, or several."""
    kind: str | None
    """The kind."""
    resource: str | None
    """The plural name."""
    name: str | None
    """The object's name."""
    namespace: str | None
    """The namespace."""
    subresource: str | None
    """``"status"``; ``""`` for requests to objects themselves."""
    status: int | None
    """The HTTP status of the response."""
    user_agent: str | None
    """A part of the User-Agent header."""
    effective: bool | None
    """Whether the request changed stored data."""


def printable(text: str) -> str:
    """Return a string on one line, with characters that are not printable, such as line separators, escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def log_entry(
    time: datetime, request: HTTPRequest, call: Call | None, result: HandlerResult, fault: str
) -> LoggedRequest:
    """Return the log entry of a request, whose path belongs to no kind if it makes no call."""
    headers = request.headers
    before, after = (None, None) if result.written is None else (result.written.before, result.written.after)
    texts: dict[str, Any] = {
        "verb": request.method.lower(),
        "method": request.method,
        "path": request.path,
        "user_agent": headers.get("user-agent", ""),
        "content_type": headers.get("content-type", ""),
    }
    if call is not None:
        info = call.endpoint.resource.info
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
        status=result.response.status,
        reason=result.reason,
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
    except UNDECODABLE:
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
    for key in {**before, **after} if before.keys() != after.keys() else before:
        old, new = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if old is not new and (old != new or type(old) is not type(new)):
            yield from _differences(old, new, f"{path}/{key.replace('~', '~0').replace('/', '~1')}")


_MAX_ACTIONS = 1000


@dataclass(frozen=True, slots=True)
class ServerAction:
    """An action of the server that is not a response: it cut watches, restarted, or collected garbage.

    Attributes:
        time: when.
        what: one line.
        group: the API group of the affected object; empty if it concerns the server.
        resource: its plural name; empty if it concerns the server.
        kind: its kind.
        namespace: its namespace, or None.
        name: its name.
    """

    time: datetime
    what: str
    group: str = ""
    resource: str = ""
    kind: str = ""
    namespace: str | None = None
    name: str = ""

    def __str__(self) -> str:
        """Return one line: the time and the action."""
        return f"{self.time.isoformat(sep=' ', timespec='milliseconds').partition('+')[0]} {printable(self.what)}"


class LoggedWrites(tuple[LoggedRequest, ...]):
    """Writes, oldest first: a tuple that prints one line for each."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return one line for each write."""
        return "\n".join(map(str, self)) or "no writes"

    def __repr__(self) -> str:
        """Return the same lines, so that a failed assertion shows them."""
        return f"<{len(self)} writes\n{self}>" if self else "<no writes>"


class RequestLog:
    """The most recent requests, and the server's own actions between them.

    Args:
        capacity: how many requests are kept.

    Attributes:
        dropped: how many older requests were dropped.
        actions_dropped: how many older actions were dropped.
    """

    def __init__(self, capacity: int) -> None:
        self._entries: deque[LoggedRequest] = deque(maxlen=capacity)
        self._actions: deque[tuple[int, ServerAction]] = deque(maxlen=_MAX_ACTIONS)
        self._followers: list[Callable[[LoggedRequest], None]] = []
        self._added = 0
        self.dropped = 0
        self.actions_dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LoggedRequest]:
        return iter(self._entries)

    def add(self, entry: LoggedRequest) -> None:
        """Add a request."""
        if len(self._entries) == self._entries.maxlen:
            self.dropped += 1
        self._entries.append(entry)
        self._added += 1
        for follower in self._followers:
            follower(entry)

    def follow(self, follower: Callable[[LoggedRequest], None]) -> None:
        """Call `follower` with each request from now on, when it is added; it must not raise."""
        self._followers.append(follower)

    def note(self, action: ServerAction) -> None:
        """Add an action of the server; the most recent 1000 are kept."""
        self.actions_dropped += len(self._actions) == _MAX_ACTIONS
        self._actions.append((self._added, action))

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()
        self._actions.clear()

    def find(self, **wanted: Unpack[RequestConditions]) -> list[LoggedRequest]:
        """Return the requests that meet all conditions, oldest first."""
        if unknown := wanted.keys() - RequestConditions.__annotations__:
            raise TypeError(f"unknown conditions on requests: {', '.join(sorted(unknown))}")
        agent = wanted.pop("user_agent", None) or ""
        known = {name: (value,) if isinstance(value, (str, int)) else value for name, value in wanted.items()}
        tests = [(name, values) for name, values in known.items() if isinstance(values, Collection)]
        return [
            entry
            for entry in self._entries
            if agent in entry.user_agent and all(getattr(entry, name) in values for name, values in tests)
        ]

    def writes(
        self,
        kind: object = None,
        name: str | None = None,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        by: str | None = None,
        effective: bool | None = None,
    ) -> LoggedWrites:
        """Return the logged writes that meet all conditions, oldest first; they print one line each.

        ::

            print(server.log.writes(Database, "db1"))

        Args:
            kind: a class with a ``crd()``, a kind, a plural name, or ``"group/version/Kind"``; None for all.
            name: the object's name.
            namespace: the namespace.
            subresource: ``"status"``; ``""`` for writes to objects themselves.
            by: a part of the User-Agent or of the field manager.
            effective: True for writes that changed something, False for the others.
        """
        matches = _filter(kind, name, namespace)
        return LoggedWrites(
            entry
            for entry in self._entries
            if entry.writes
            and matches(entry)
            and subresource in (None, entry.subresource)
            and (by is None or by in entry.user_agent or by in entry.field_manager)
            and (effective is None or entry.effective is effective)
        )

    def cycles(
        self,
        kind: object = None,
        name: str | None = None,
        namespace: str | None = None,
        *,
        gap: DurationLike = 1.0,
        **more: Any,
    ) -> list[LoggedWrites]:
        """Return what `writes` returns, grouped by reconcile: one object, one client, one cycle.

        This library's client marks the writes of a reconcile with the header ``X-Reconcile-Id``, and any other client
        can; the groups are exact then. Writes without the header are grouped until a pause of more than `gap` seconds.
        A controller that wakes itself immediately thus shows as one cycle with many writes, which is what it amounts
        to.

        ::

            assert [len(cycle) for cycle in server.log.cycles(Database, "db1", by="operator")] == [1, 1]

        Args:
            kind: as for `writes`.
            name: as for `writes`.
            namespace: as for `writes`.
            more: the keywords of `writes`.
            gap: the duration (seconds, a timedelta or ``"1s"``) without a write that ends a cycle; 1.0 by default.
        """
        pause = seconds_of("gap", gap, zero=True)
        found = self.writes(kind, name, namespace, **more)
        groups: list[list[LoggedRequest]] = []
        last: dict[tuple[object, ...], list[LoggedRequest]] = {}
        for entry in found:
            key = (entry.group, entry.resource, entry.namespace, entry.name, entry.user_agent, entry.cycle)
            group = last.get(key)
            quiet = group is not None and (entry.time - group[-1].time).total_seconds() > pause
            if group is None or (quiet and not entry.cycle):
                group = last[key] = []
                groups.append(group)
            group.append(entry)
        return [LoggedWrites(group) for group in groups]

    def timeline(
        self, kind: object = None, name: str | None = None, namespace: str | None = None, *, most: int = 200
    ) -> list[str]:
        """Return what happened, one line each, in order: writes, requests hit by a fault, and actions of the server.

        Args:
            kind: as for `writes`; with it or a name, only requests to such objects are included.
            name: as for `writes`.
            namespace: as for `writes`.
            most: how many of the newest lines; 200 by default. A first line says how many were left out.
        """
        matches = _filter(kind, name, namespace)
        first = self._added - len(self._entries)
        # An action comes before the request that followed it.
        lines = [(before, 0, str(found)) for before, found in self._actions if not found.resource or matches(found)]
        lines += [
            (number, 1, str(entry))
            for number, entry in enumerate(self._entries, first)
            if (entry.writes or entry.fault) and matches(entry)
        ]
        lines.sort(key=lambda line: line[:2])
        texts = [text for _, _, text in lines]
        if self.dropped or self.actions_dropped:
            texts.insert(0, f"({self.dropped} older requests are no longer in the log)")
        left_out = len(texts) - most
        return texts if left_out <= 0 else [f"({left_out} earlier lines are left out)", *texts[-most:]]


def _filter(kind: object, name: str | None, namespace: str | None) -> Callable[[LoggedRequest | ServerAction], bool]:
    """Return whether an entry concerns such objects; None and empty parts of a kind are not compared."""
    word, group, version = _parts_of_kind(kind)

    def matches(entry: LoggedRequest | ServerAction) -> bool:
        return (
            (word is None or word in (entry.kind, entry.resource))
            and group in (None, entry.group)
            and (isinstance(entry, ServerAction) or version in (None, entry.version))
            and name in (None, entry.name)
            and namespace in (None, entry.namespace)
        )

    return matches


def _parts_of_kind(kind: object) -> tuple[str | None, str | None, str | None]:
    if kind is None:
        return None, None, None
    if isinstance(kind, Defined):
        spec = kind.crd()["spec"]
        return spec["names"]["kind"], spec["group"], None
    if not isinstance(kind, str):
        raise TypeError(f"{kind!r} is not a kind: pass a class with crd(), a kind, a plural, or 'group/version/Kind'")
    *front, last = kind.split("/")
    return last, "/".join(front[:-1]) if front else None, front[-1] if front else None
