"""Tell others what a pass came to, once it is durable: events, metrics and audit hear of nothing else."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from reconciler.notification.api.resource import NotificationRequest
from reconciler.notification.api.status import DeliveryAttempt, NotificationRequestStatus

__all__ = ["Observer", "Outbox", "Recorded"]

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
