"""The durable record of a request: what is read from the API server and written to the status around a delivery.

Attempts and channels are addressed by their keys, so a replay on a newer version adds nothing twice. Under ``Bounded``
and ``AtMostOnce`` an attempt is written ahead of its call, as an entry of ``deliveryAttempts`` with the result
``unknown``, which the real result replaces. If the process dies in between, the entry remains and counts as made.

The cache can lag behind, above all after a failover. So an action that cannot be undone first reads from the server,
unless this process has just written the status.

Observers (metrics, audit, Events) see a change only once its status write is durable.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec
from pydantic import BaseModel

from reconciler._core.lru import LRU
from reconciler._core.wire import JSONObject
from reconciler.clock import current_clock
from reconciler.errors import Conflict, NotFound
from reconciler.events import EventRecorder
from reconciler.meta import Request, equal
from reconciler.meta.documents import format_micro_time, format_time, human_duration
from reconciler.notification.api import (
    TERMINAL_PHASES,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestStatus,
)
from reconciler.notification.policies import KeysByNamespace
from reconciler.notification.router import Resolution
from reconciler.notification.schedule import ERRORS_LIMIT, StatusChange, Summary
from reconciler.objects.kinds import original_document
from reconciler.status import StatusBatcher
from reconciler.status.mutations import Mutation, Set, Upsert

if TYPE_CHECKING:
    from reconciler.cache import CachedClient


_log = logging.getLogger("reconciler.notification")

OUTBOX_LIMIT = 10_000
"""Maximum requests whose changes wait for their status write. The oldest are dropped first, and counted."""


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
    """

    def __init__(self) -> None:
        self._failing: LRU[str, _Failures] = LRU(_LOGGED_CHANNELS)

    def status_saved(self, change: StatusChange) -> None:
        """Log the attempts of a change."""
        now = current_clock().monotonic()
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


RequestStatusBatcher: TypeAlias = StatusBatcher[NotificationRequestStatus]
"""The status batcher of a NotificationRequest."""

ROUTED_LIMIT = 64
"""Maximum channels that routing can select for a request; their attempts must fit into an object."""

OBJECT_BYTES = 1_500_000
"""Maximum bytes of a request with its complete status; etcd stores 1.5 MiB."""

ENTRY_BYTES = 800
"""Bytes of an attempt without its error, and of the fields that say who wrote it."""

MESSAGE_LIMIT = 4096
"""Maximum characters in a condition message; the API accepts 32,768."""

_DERIVED = {"queued_at", *Summary.__annotations__}


def set_change(status: RequestStatusBatcher, change: StatusChange) -> None:
    """Record a change: attempts, channels, derived fields and conditions."""
    before, after = change.before, change.after
    if before.phase is None and not before.channels and after.channels:
        names = ", ".join(channel.name for channel in after.channels)
        _set_routing_condition(status, "ChannelsNamed", f"the request names its channels: {names}", resolved=True)
    stored = {channel.name: channel for channel in before.channels}
    status.record(
        *map(_upsert_attempt, change.attempts),
        *[_upsert_channel(channel) for channel in after.channels if channel != stored.get(channel.name)],
        *_set_derived(after),
    )
    if after.next_step_time is None and before.next_step_time is not None:
        status.merge(next_step_time=None)
    _set_ready_condition(status, after)


def set_routing(
    status: RequestStatusBatcher,
    before: NotificationRequestStatus,
    resolution: Resolution | None,
    *,
    now: datetime,
) -> NotificationRequestStatus:
    """Record the channels that routing selected, and return the status with them.

    If it selected none, or there is no routing (None), only the condition changes, which says why.
    """
    failure = _routing_failure(resolution)
    if failure is not None:
        _set_routing_condition(status, *failure)
    if resolution is None or failure is not None:
        return before
    channels = [ChannelStatus(name=name, reason="Routed") for name in resolution.channels]
    status.record(*map(_upsert_channel, channels))
    status.set(queued_at=format_micro_time(now))
    message = f"receivers {', '.join(resolution.receivers) or 'none'}: channels {', '.join(resolution.channels)}"
    if resolution.fallback:
        message = f"fallback channel {', '.join(resolution.channels)}: {resolution.fallback}"
    if resolution.problem:
        message += f"; from the previous routing configuration, because the latest is invalid: {resolution.problem}"
    reason = "StaleRouting" if resolution.problem else "RoutingRuleMatched"
    reason = "RoutingFallback" if resolution.fallback else reason
    _set_routing_condition(status, reason, message, resolved=True)
    return before.model_copy(update={"channels": channels, "queued_at": now})


def _routing_failure(resolution: Resolution | None) -> tuple[str, str] | None:
    """Return the reason and the message if routing selected no channels, or None."""
    if resolution is None:
        return "NoRouting", "spec.channels is empty and the operator has no routing: set spec.channels"
    problem = resolution.problem
    if resolution.pending:
        reason = "RoutingFailed" if problem else "RoutingPending"
        return reason, f"waiting: {problem or 'no routing configuration has been loaded yet'}"
    receivers = ", ".join(resolution.receivers) or "none"
    if len(resolution.channels) > ROUTED_LIMIT:
        count = len(resolution.channels)
        return "TooManyChannels", f"receivers {receivers}: {count} channels; the maximum is {ROUTED_LIMIT}"
    if not resolution.channels:
        return "RoutingFailed" if problem else "NoChannels", problem or f"receivers {receivers}: no channels"
    return None


def upsert_attempts(status: RequestStatusBatcher, attempts: Sequence[DeliveryAttempt]) -> None:
    """Record attempts that are ahead of their calls; their results replace them."""
    status.record(*map(_upsert_attempt, attempts))


def _upsert_attempt(attempt: DeliveryAttempt) -> Mutation:
    return Upsert(("deliveryAttempts",), _document(attempt), ("channel", "attempt"))


def _upsert_channel(channel: ChannelStatus) -> Mutation:
    return Upsert(("channels",), _document(channel), ("name",))


def _set_derived(after: NotificationRequestStatus, *, exclude_defaults: bool = False) -> list[Mutation]:
    """Return the mutations that set the derived fields.

    The fields belong to this operator: a value that someone else wrote must not keep an attempt from being saved.
    """
    fields = after.model_dump(
        mode="json", by_alias=True, include=_DERIVED, exclude_none=True, exclude_defaults=exclude_defaults
    )
    return [Set((name,), value, overwrite=True) for name, value in fields.items()]


def attempts_ahead(due: Sequence[ChannelStatus], *, now: datetime) -> tuple[DeliveryAttempt, ...]:
    """Return the attempts on due channels, of unknown result, to be written before the calls."""
    return tuple(
        DeliveryAttempt(channel=channel.name, attempt=channel.attempts + 1, timestamp=now, result="unknown")
        for channel in due
    )


def remove_write_ahead(
    status: RequestStatusBatcher,
    attempts: Sequence[DeliveryAttempt],
    *,
    except_for: Sequence[DeliveryAttempt] = (),
) -> None:
    """Remove write-ahead attempts that were not made: the call was deferred, or cancelled before it was sent."""
    made = {(attempt.channel, attempt.attempt) for attempt in except_for}
    for attempt in attempts:
        if (attempt.channel, attempt.attempt) in made:
            continue
        # With the timestamp: the entry of another process stays, whatever became of its call.
        document = _document(attempt)
        members = {key: document[key] for key in ("channel", "attempt", "timestamp", "result")}
        status.remove("deliveryAttempts", item=members)


def is_too_large(obj: NotificationRequest, channels: Sequence[str]) -> bool:
    """Return whether a request may grow beyond what etcd stores when all its attempts are recorded."""
    entries = len(channels) * (obj.spec.retry_policy.max_attempts + 1)
    errors = ERRORS_LIMIT * 4 * (obj.spec.retry_policy.max_attempts + 1)  # a character takes up to four bytes
    return len(msgspec.json.encode(original_document(obj))) + entries * ENTRY_BYTES + errors > OBJECT_BYTES


def set_failed(status: RequestStatusBatcher, reason: str, message: str, *, now: datetime) -> None:
    """Record that a request has failed; a request that has ended does not change."""
    set_ended(status, NotificationRequestStatus(phase="Failed", reason=reason, message=message, completion_time=now))


def set_ended(status: RequestStatusBatcher, after: NotificationRequestStatus) -> None:
    """Record that a request has ended without a delivery; a request that has ended before does not change.

    Of the status only the derived fields are recorded.
    """
    if status.current.get("phase") in TERMINAL_PHASES:
        return
    status.record(*_set_derived(after, exclude_defaults=True))
    _set_ready_condition(status, after)


def _set_ready_condition(status: RequestStatusBatcher, after: NotificationRequestStatus) -> None:
    is_sent = after.phase in {"Sent", "PartiallySent"}
    status.set_condition("Ready", is_sent, reason=after.reason or "", message=after.message or "")


def _set_routing_condition(status: RequestStatusBatcher, reason: str, message: str, *, resolved: bool = False) -> None:
    status.set_condition("RoutingResolved", resolved, reason=reason, message=message[:MESSAGE_LIMIT])


def _document(model: BaseModel) -> JSONObject:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


TOTAL_LIMIT = 500
"""Number of requests with unsaved results from which on a namespace delivers only while it has none. Far below what a
controller keeps (1000), because a lost result means that a call is repeated."""

NAMESPACE_LIMIT = 100
"""Maximum requests of a namespace with unsaved results; then no other request of the namespace is delivered."""


def may_deliver(request: Request, unsaved: KeysByNamespace) -> bool:
    """Return whether few enough results of other requests are unsaved for a request to be delivered."""
    most = NAMESPACE_LIMIT if len(unsaved) < TOTAL_LIMIT else 1
    return unsaved.count(request.namespace) < most or request in unsaved


Progress = frozenset[tuple[str, str, int, datetime | None]]
"""The progress of a request's channels; it never returns to an earlier value."""


def progress_of(status: NotificationRequestStatus) -> Progress:
    """Return the progress of a request's channels."""
    return frozenset([(each.name, each.state, each.attempts, each.next_attempt_time) for each in status.channels])


async def is_up_to_date(client: CachedClient, obj: NotificationRequest) -> bool:
    """Read a request from the server; return whether it is as it was read before. Cancellation changes nothing."""
    try:
        live = await client.live.get(NotificationRequest, obj.name, obj.namespace)
    except NotFound:
        return False
    if live.uid != obj.uid or live.metadata.deletion_timestamp is not None:
        return False
    same = live.resource_version == obj.resource_version
    return same or equal(live.to_dict().get("status"), obj.to_dict().get("status"))


async def delete_finished(client: CachedClient, obj: NotificationRequest) -> bool | None:
    """Delete a request that has ended; return False if it no longer exists, None if it changed and must be read again.

    The deletion is conditional on the version that was just read from the server, so a request that has changed since
    is kept. A cancelled call may have deleted it.
    """
    try:
        live = await client.live.get(NotificationRequest, obj.name, obj.namespace)
        if live.uid != obj.uid or live.status.completion_time != obj.status.completion_time:
            return None
        await client.delete(
            NotificationRequest,
            obj.name,
            obj.namespace,
            uid=live.uid,
            resource_version=live.resource_version,
            propagation="Background",
        )
    except NotFound:
        return False
    except Conflict:
        return None
    return True
