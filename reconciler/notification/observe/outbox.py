"""Tell others what a pass came to, once it is durable: events, metrics and audit hear of nothing else.

Tell people of a request by Kubernetes Events, when something changed and not otherwise.

Say what a reconciler counts.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from reconciler.events import EventRecorder
from reconciler.notification.api.types import DeliveryAttempt, NotificationRequest, NotificationRequestStatus

__all__ = ["Announcer", "NotificationStatistics", "Observer", "Outbox", "Recorded"]

_log = logging.getLogger("reconciler.notification")

OUTBOX_LIMIT = 10_000
"""Requests whose records wait for their status write; the oldest are dropped first, and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Be what one pass recorded.

    Attributes:
        request: the request, as the pass read it.
        before: the status that the pass began with.
        after: the status that it recorded.
        attempts: the attempts that it added to the ledger.
        deferred: names of the channels that asked to come back later.
    """

    request: NotificationRequest
    before: NotificationRequestStatus
    after: NotificationRequestStatus
    attempts: tuple[DeliveryAttempt, ...] = ()
    deferred: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Say whether the pass brought the request to its end."""
        return self.after.completion_time is not None and self.before.completion_time is None


class Observer(Protocol):
    """Hear of what was recorded."""

    def recorded(self, record: Recorded) -> None:
        """Take note, without waiting; called on the event loop after the status write, once for each record."""
        ...


class Outbox:
    """Hold records until their status is written, then hand them to the observers.

    Args:
        observers: who hears. One that raises is logged, and harms nobody.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._waiting: OrderedDict[str, list[Recorded]] = OrderedDict()
        self.dropped = 0

    def add(self, record: Recorded) -> None:
        """Keep a record until `commit`."""
        uid = record.request.uid
        self._waiting.setdefault(uid, []).append(record)
        self._waiting.move_to_end(uid)
        if len(self._waiting) > OUTBOX_LIMIT:
            _, lost = self._waiting.popitem(last=False)
            self.dropped += len(lost)

    def commit(self, uid: str) -> None:
        """Hand out what waits for this request, in order: its status is written."""
        for record in self._waiting.pop(uid, ()):
            for observer in self._observers:
                try:
                    observer.recorded(record)
                except Exception:  # noqa: BLE001 - an observer is foreign code
                    _log.exception("%s could not take note of a delivery", type(observer).__name__)


class Announcer:
    """Emit an Event when the phase of a request changed.

    Args:
        events: returns the recorder; asked at each use, since a reconciler has none before it belongs to a controller.
    """

    def __init__(self, events: Callable[[], EventRecorder]) -> None:
        self._events = events

    def recorded(self, record: Recorded) -> None:
        """Emit what changed; a repeated run of the same pass changes nothing any more."""
        after = record.after
        if after.phase == record.before.phase:
            return
        events = self._events()
        tell = events.warning if after.phase in {"Failed", "PartiallySent"} else events.normal
        tell(record.request, after.reason or "", after.message or "")


@dataclass(frozen=True, slots=True)
class NotificationStatistics:
    """Count what a reconciler did since it was made.

    Attributes:
        delivered: attempts that delivered.
        failed: attempts that failed, or of which nobody knows the outcome.
        deferred: deliveries that were put off without an attempt.
        early: runs that came before anything was due, and did nothing.
        stale: runs that were put off because the server had a newer version.
        live_reads: reads from the server before a first delivery.
        finished: requests that reached a terminal phase.
        expired: finished requests that were deleted by their ``ttlSecondsAfterFinished``.
        active: requests that are being delivered at this moment.
        waiting: deliveries that wait for a turn at this moment.
        untold: requests whose records were dropped because their status could not be written for too long.
    """

    delivered: int = 0
    failed: int = 0
    deferred: int = 0
    early: int = 0
    stale: int = 0
    live_reads: int = 0
    finished: int = 0
    expired: int = 0
    active: int = 0
    waiting: int = 0
    untold: int = 0
