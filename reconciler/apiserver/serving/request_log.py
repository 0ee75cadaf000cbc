"""The request log: who wrote what, when, and how often in one reconcile.

The log is bounded and counts what it drops. Adding a request costs the same however many came before it; a query reads
the whole log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.apiserver.serving.logged_request import LoggedRequest, printable
from reconciler.apiserver.serving.manifests import Defined

__all__ = ["LoggedWrites", "RequestLog", "ServerAction"]

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

    def find(self, **wanted: Any) -> list[LoggedRequest]:
        """Return the requests whose attributes equal all of `wanted` that are not None, oldest first."""
        tests = [(name, value) for name, value in wanted.items() if value is not None]
        return [entry for entry in self._entries if all(_equals(getattr(entry, name), value) for name, value in tests)]

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
        subresource: str | None = None,
        by: str | None = None,
        effective: bool | None = None,
        gap: float = 1.0,
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
            subresource: as for `writes`.
            by: as for `writes`.
            effective: as for `writes`.
            gap: seconds without a write that end a cycle; 1.0 by default.
        """
        found = self.writes(kind, name, namespace, subresource=subresource, by=by, effective=effective)
        groups: list[list[LoggedRequest]] = []
        last: dict[tuple[object, ...], list[LoggedRequest]] = {}
        for entry in found:
            key = (entry.group, entry.resource, entry.namespace, entry.name, entry.user_agent, entry.cycle)
            group = last.get(key)
            quiet = group is not None and (entry.time - group[-1].time).total_seconds() > gap
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


def _equals(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        return found in wanted
    return bool(found == wanted)


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
