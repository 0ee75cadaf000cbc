"""Remember the requests that were answered, and answer who wrote what, when, and how often in one cycle.

The log is bounded, and what it let go is counted. Remembering a request costs the same however many came before it;
a question goes through what is remembered.
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
    """Hold what happened beside requests: watches were cut, the server restarted, it removed what had lost its owner.

    Attributes:
        time: when.
        what: one line.
        group: the API group of the object that it happened to; empty for what is about the server.
        resource: its plural name; empty for what is about the server.
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
        """Return one line: when and what."""
        return f"{self.time.isoformat(sep=' ', timespec='milliseconds').partition('+')[0]} {printable(self.what)}"


class LoggedWrites(tuple[LoggedRequest, ...]):
    """Hold writes, oldest first: a tuple that prints as one line each."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return one line for each write."""
        return "\n".join(map(str, self)) or "no writes"

    def __repr__(self) -> str:
        """Return the same, so that a failed assertion shows it."""
        return f"<{len(self)} writes\n{self}>" if self else "<no writes>"


class RequestLog:
    """Keep the last requests, and what happened beside them.

    Args:
        capacity: how many requests are kept.

    Attributes:
        dropped: how many older ones were let go.
        actions_dropped: how many older incidents were let go.
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
        """Remember a request."""
        if len(self._entries) == self._entries.maxlen:
            self.dropped += 1
        self._entries.append(entry)
        self._added += 1
        for follower in self._followers:
            follower(entry)

    def follow(self, follower: Callable[[LoggedRequest], None]) -> None:
        """Call `follower` with each request from now on, when it is remembered; it must not raise."""
        self._followers.append(follower)

    def note(self, incident: ServerAction) -> None:
        """Remember what happened beside requests; the last 1000 are kept."""
        self.actions_dropped += len(self._actions) == _MAX_ACTIONS
        self._actions.append((self._added, incident))

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._actions.clear()

    def find(self, **wanted: Any) -> list[LoggedRequest]:
        """Return the requests whose attributes equal all of `wanted` that are not None; oldest first."""
        tests = [(name, value) for name, value in wanted.items() if value is not None]
        return [entry for entry in self._entries if all(_meets(getattr(entry, name), value) for name, value in tests)]

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
        """Return the remembered writes that meet all conditions, oldest first; they print as one line each.

        ::

            print(server.log.writes(Database, "db1"))

        Args:
            kind: a class with a ``crd()``, a kind, a plural name, or ``"group/version/Kind"``; None for all.
            name: the object's name.
            namespace: the namespace.
            subresource: ``"status"``; ``""`` for writes of objects themselves.
            by: a part of the User-Agent or of the field manager.
            effective: True for those that changed something, False for the others.
        """
        wanted = _named(kind)
        return LoggedWrites(
            entry
            for entry in self._entries
            if entry.writes
            and (wanted is None or wanted.names(entry))
            and (name is None or entry.name == name)
            and (namespace is None or entry.namespace == namespace)
            and (subresource is None or entry.subresource == subresource)
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
        """Return the writes that `writes` returns, grouped into cycles: one object, one writer, one run of work.

        This library's client says by a header ``X-Reconcile-Id`` which writes belong together, and so may any other;
        then it is exact. LoggedWrites without it belong together as long as none comes more than `gap` seconds after the one
        before it; a controller that wakes itself at once is then seen as one cycle with many writes, which is what it
        amounts to.

        ::

            assert [len(cycle) for cycle in server.log.cycles(Database, "db1", by="operator")] == [1, 1]

        Args:
            kind: as for `writes`.
            name: as for `writes`.
            namespace: as for `writes`.
            subresource: as for `writes`.
            by: as for `writes`.
            effective: as for `writes`.
            gap: seconds of silence that end a cycle; 1.0 by default.
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
        """Return what happened, a line each, in order: writes, requests that a fault struck, and incidents.

        Args:
            kind: as for `writes`; with it or a name, only requests to such objects are among the lines.
            name: as for `writes`.
            namespace: as for `writes`.
            most: how many of the newest lines; 200 by default. A line in front says how many were left out.
        """
        wanted = _named(kind)

        def told(entry: LoggedRequest | ServerAction) -> bool:
            return (
                (wanted is None or wanted.names(entry))
                and (name is None or entry.name == name)
                and (namespace is None or entry.namespace == namespace)
            )

        first = self._added - len(self._entries)
        # An incident stands before the request that came next.
        lines = [(before, 0, str(found)) for before, found in self._actions if not found.resource or told(found)]
        lines += [
            (number, 1, str(entry))
            for number, entry in enumerate(self._entries, first)
            if (entry.writes or entry.fault) and told(entry)
        ]
        lines.sort(key=lambda line: line[:2])
        texts = [text for _, _, text in lines]
        if self.dropped or self.actions_dropped:
            texts.insert(0, f"({self.dropped} older requests are no longer in the log)")
        left_out = len(texts) - most
        return texts if left_out <= 0 else [f"({left_out} earlier lines are left out)", *texts[-most:]]


def _meets(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        return found in wanted
    return bool(found == wanted)


@dataclass(frozen=True, slots=True)
class _Named:
    """Tell whether a request is to a kind; empty parts are not looked at."""

    kind: str
    group: str | None
    version: str | None

    def names(self, entry: LoggedRequest | ServerAction) -> bool:
        if self.kind not in (entry.kind, entry.resource) or self.group not in (None, entry.group):
            return False
        return isinstance(entry, ServerAction) or self.version in (None, entry.version)


def _named(kind: object) -> _Named | None:
    if kind is None:
        return None
    if isinstance(kind, Defined):
        spec = kind.crd()["spec"]
        return _Named(spec["names"]["kind"], spec["group"], None)
    if not isinstance(kind, str):
        raise TypeError(f"{kind!r} is no kind: give a class with crd(), a kind, a plural name, or 'group/version/Kind'")
    *front, last = kind.split("/")
    return _Named(last, "/".join(front[:-1]) if front else None, front[-1] if front else None)
