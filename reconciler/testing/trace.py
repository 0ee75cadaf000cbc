"""What happened in a world, in order, as data: steps of users, reconciles and their reasons, requests and effects."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import reconciler
from reconciler._core.wire import JSONObject
from reconciler.apiserver.serving.request_log import LoggedRequest
from reconciler.controller.effects import EffectCall
from reconciler.controller.reconcile.cycle import ReconcileRun
from reconciler.meta import Request
from reconciler.meta.documents import Version
from reconciler.recording.collector import ReconcileTrace

Happening = Literal["step", "started", "ended", "event", "begun", "request", "effect", "done", "disturbed"]

Author = Literal["user", "operator", "somebody"]
"""Who sent a request: the user of the scenario, the operator, or somebody who interferes."""

_STEP = asyncio.Handle._run.__code__  # noqa: SLF001
"""Below it on the stack is who runs the event loop."""
_NOT_USERS = tuple(f"{Path(module.__file__ or '').parent}/" for module in (reconciler, asyncio))


@dataclass(frozen=True, slots=True)
class StateChange:
    """A change of one object in the store.

    Attributes:
        before: its document before; None if it was created.
        after: its document after; None if it is gone.
    """

    before: JSONObject | None
    after: JSONObject | None

    @property
    def document(self) -> JSONObject:
        """Return the newest document of the object."""
        found = self.before if self.after is None else self.after
        assert found is not None  # noqa: S101 - one of them is there
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One thing that happened.

    Attributes:
        what: ``"step"`` a step of the scenario, ``"started"`` and ``"ended"`` a process of the operator, ``"event"`` a
            watch event that enqueued a key, ``"begun"`` and ``"done"`` a reconcile, ``"request"`` an answered request,
            ``"effect"`` a call of an effect, ``"disturbed"`` a disturbance.
        at: virtual seconds since the world began.
        author: who sent the request.
        process: the number of the operator's process, from 1; 0 for others.
        reconcile: the trace of the reconcile that it belongs to; None outside a reconcile.
        request: the request and its outcome.
        changes: the changes that the request caused, also those of objects that were collected with it.
        key: the key of a reconcile or of an event.
        basis: of a reconcile that is done: the version of its object that it read; None if there was none.
        effect: the call of an effect.
        line: the line of the operator's code that sent the request, such as ``"operator.py:12 in reconcile_object"``.
        text: a line for people.
        error: how a reconcile or a process failed.
    """

    what: Happening
    at: float
    author: Author = "operator"
    process: int = 0
    reconcile: ReconcileTrace | None = None
    request: LoggedRequest | None = None
    changes: tuple[StateChange, ...] = ()
    key: Request | None = None
    basis: Version | None = None
    effect: EffectCall | None = None
    line: str = ""
    text: str = ""
    error: BaseException | None = None

    @property
    def run(self) -> ReconcileRun | None:
        """Return why the reconcile runs that it belongs to; None outside a reconcile."""
        return None if self.reconcile is None else self.reconcile.run


class WorldTrace:
    """The events of a world, oldest first.

    Attributes:
        events: the events.
    """

    def __init__(self, events: Iterable[TraceEvent] = ()) -> None:
        self.events = list(events)

    def __iter__(self) -> Iterator[TraceEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def add(self, event: TraceEvent) -> None:
        """Append an event."""
        self.events.append(event)

    def writes(self, author: Author = "operator") -> list[TraceEvent]:
        """Return the requests of the operator, or of somebody else, that changed something, without bookkeeping.

        Each has the reconcile that sent it.
        """
        return [
            event
            for event in self.events
            if event.request is not None
            and event.author == author
            and event.request.effective
            and not is_bookkeeping(event.request)
        ]


def is_bookkeeping(entry: LoggedRequest) -> bool:
    """Return whether a request only keeps a lease, a watch or an Event."""
    return entry.verb == "watch" or entry.resource in ("leases", "events")


def calling_line() -> str:
    """Return the line of the operator's code that called this, directly or not; ``""`` if there is none."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack, without its source
    while frame is not None and frame.f_code is not _STEP:
        name = frame.f_code.co_filename
        if not name.startswith(_NOT_USERS) and not name.startswith("<"):
            return f"{Path(name).name}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""
