"""What happened in a world, in order, as data: reconciles and their reasons, requests, effects, and what users did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reconciler.apiserver.serving.request_log import LoggedRequest
from reconciler.controller.effects import EffectCall
from reconciler.controller.reconcile.cycle import ReconcileRun
from reconciler.meta import Request

Happening = Literal["user", "started", "ended", "event", "begun", "request", "effect", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One thing that happened.

    Attributes:
        what: ``"user"`` a step of the scenario, ``"started"`` and ``"ended"`` a process of the operator, ``"event"`` a
            watch event that enqueued a key, ``"begun"`` and ``"done"`` a reconcile, ``"request"`` an answered request,
            ``"effect"`` a call of an effect.
        at: virtual seconds since the world began.
        process: the number of the operator's process, from 1; 0 for the user, and the server's own work.
        run: the reconcile that it belongs to; None outside a reconcile.
        request: the request and its outcome, with the versions before and after.
        key: the key of a reconcile or of an event.
        effect: the call of an effect.
        text: a line for people: the step of the user, the kind and version of a watch event.
        error: how a reconcile or an effect failed.
    """

    what: Happening
    at: float
    process: int = 0
    run: ReconcileRun | None = None
    request: LoggedRequest | None = None
    key: Request | None = None
    effect: EffectCall | None = None
    text: str = ""
    error: BaseException | None = None


class Trace:
    """The events of a world, oldest first.

    Attributes:
        events: the events.
    """

    def __init__(self) -> None:
        self.events: list[TraceEvent] = []

    def __iter__(self) -> Iterator[TraceEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def add(self, event: TraceEvent) -> None:
        """Append an event."""
        self.events.append(event)

    def writes(self) -> list[TraceEvent]:
        """Return the requests of the operator that changed something, each with the reconcile that sent it."""
        return [
            event
            for event in self.events
            if event.process and event.request is not None and event.request.writes and event.request.effective
        ]
