"""Observers of saved status changes: metrics, audit and Events see a change only once its status write is durable."""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from reconciler._core.lru import LRU
from reconciler.clock import Clock, current_clock
from reconciler.events import EventRecorder
from reconciler.meta.documents import format_time, human_duration
from reconciler.notification.api import DeliveryAttempt, NotificationRequest, NotificationRequestStatus

_log = logging.getLogger("reconciler.notification")

OUTBOX_LIMIT = 10_000
"""Maximum requests whose changes wait for their status write. The oldest are dropped first, and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """The changes of one reconcile to the status of a request.

    Attributes:
        request: the request, as the reconcile read it.
        before: the status at the start of the reconcile.
        after: the status that was written.
        attempts: the attempts that were added.
        deferred: names of the channels that deferred the delivery.
    """

    request: NotificationRequest
    before: NotificationRequestStatus
    after: NotificationRequestStatus
    attempts: tuple[DeliveryAttempt, ...] = ()
    deferred: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Return whether the request reached its final phase with this change."""
        return self.after.completion_time is not None and self.before.completion_time is None


class Observer(Protocol):
    """An observer of saved status changes."""

    def status_saved(self, change: StatusChange, /) -> None:
        """Called on the event loop after the status write, once for each change. Must not block."""
        ...


class Outbox:
    """Status changes that wait for their status write before they go to the observers.

    Args:
        observers: the observers. An exception of an observer is logged and affects nothing else.

    Attributes:
        counts: the changes so far, by the names of `NotificationStatistics`.
        dropped: number of changes that were dropped because their status was not written.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._waiting: OrderedDict[str, list[StatusChange]] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.dropped = 0

    def add(self, change: StatusChange) -> None:
        """Count a change, and hold it until `publish`."""
        self.counts.update("delivered" if attempt.result == "success" else "failed" for attempt in change.attempts)
        self.counts["deferred"] += len(change.deferred)
        self.counts["finished"] += change.finished
        uid = change.request.uid
        self._waiting.setdefault(uid, []).append(change)
        self._waiting.move_to_end(uid)
        if len(self._waiting) > OUTBOX_LIMIT:
            _, lost = self._waiting.popitem(last=False)
            self.dropped += len(lost)

    def publish(self, uid: str) -> None:
        """Pass the changes of a request to the observers, in order: its status is written."""
        for change in self._waiting.pop(uid, ()):
            for observer in self._observers:
                try:
                    observer.status_saved(change)
                except Exception as error:  # noqa: BLE001 - observers are user code
                    name, key = type(observer).__name__, f"{change.request.namespace}/{change.request.name}"
                    _log.exception("%s: observer %s failed: %s: %s", key, name, type(error).__name__, error)


_LOG_INTERVAL = 10.0
"""Seconds between two log lines about failed attempts on one channel."""

_LOGGED_CHANNELS = 1_000


@dataclass(slots=True)
class _Failures:
    since: float
    logged_at: float = -math.inf
    unlogged: int = 0
    number: int = 0


class AttemptLog:
    """An observer that logs failed attempts, and the first success on a channel after them.

    Of one channel at most one failure in ten seconds is logged, with the number of those that were not.

    Args:
        clock: returns the source of monotonic time; None for the current clock.
    """

    def __init__(self, clock: Callable[[], Clock | None]) -> None:
        self._clock = clock
        self._failing: LRU[str, _Failures] = LRU(_LOGGED_CHANNELS)

    def status_saved(self, change: StatusChange) -> None:
        """Log the attempts of a change."""
        now = (self._clock() or current_clock()).monotonic()
        for attempt in change.attempts:
            if attempt.result == "success":
                self._log_recovery(attempt.channel, now)
            else:
                self._log_failure(change, attempt, now)

    def _log_recovery(self, channel: str, now: float) -> None:
        failures = self._failing.pop(channel, None)
        if failures is not None:
            text = "receiver %s delivers again, after %d failed attempts in %s"
            _log.info(text, channel, failures.number, human_duration(now - failures.since))

    def _log_failure(self, change: StatusChange, attempt: DeliveryAttempt, now: float) -> None:
        failures = self._failing[attempt.channel] = self._failing.get(attempt.channel) or _Failures(now)
        failures.number += 1
        if now - failures.logged_at < _LOG_INTERVAL:
            failures.unlogged += 1
            return
        others = f" (and {failures.unlogged} other attempts since the last line)" if failures.unlogged else ""
        failures.logged_at, failures.unlogged = now, 0
        due = {each.name: each.next_attempt_time for each in change.after.channels}.get(attempt.channel)
        _log.warning(
            "receiver %s: attempt %d of %s/%s failed%s: %s; %s",
            attempt.channel,
            attempt.attempt,
            change.request.namespace,
            change.request.name,
            others,
            attempt.error or attempt.result,
            "not retried" if due is None else f"next attempt at {format_time(due)}",
        )


class EventEmitter:
    """An observer that emits a Kubernetes Event when the phase of a request changes, and when a delivery is deferred.

    Args:
        events: returns the recorder; called at each use, since a reconciler has none before it is added to a manager.
    """

    def __init__(self, events: Callable[[], EventRecorder]) -> None:
        self._events = events

    def status_saved(self, change: StatusChange) -> None:
        """Emit an Event if the phase has changed, or a channel deferred the delivery."""
        after = change.after
        for channel in after.channels:
            if channel.name in change.deferred and channel.last_error:
                self._events().warning(change.request, "DeliveryDeferred", channel.last_error)
        if after.phase == change.before.phase:
            return
        events = self._events()
        emit = events.warning if after.phase in {"Failed", "PartiallySent"} else events.normal
        emit(change.request, after.reason or "", after.message or "")


@dataclass(frozen=True, slots=True)
class NotificationStatistics:
    """Counts of a reconciler since it was created.

    Attributes:
        delivered: successful attempts.
        failed: attempts that failed or whose outcome is unknown.
        deferred: deliveries that were deferred without an attempt.
        early: reconciles before anything was due, which did nothing.
        stale: reconciles that stopped because the server had a newer version.
        live_reads: reads from the server before a first delivery.
        finished: requests that reached a terminal phase.
        expired: finished requests that were deleted by ``ttlSecondsAfterFinished``.
        active: requests that are being delivered now.
        waiting: deliveries that wait in a queue now.
        unpublished: status changes that were dropped before observers saw them, because their status could not be
            written for too long.
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
    unpublished: int = 0
