"""Scheduling decisions as pure functions: which channels are due, and the status that results from a reconcile.

A reconcile calls `plan` (which channels are due, or how long to wait), makes the deliveries, and calls `settle` (the
new status and the next due time). Invariants for all inputs:

* A channel that delivered is never due again, and a request in a terminal phase never changes again.
* No channel is attempted more often than ``maxAttempts``.
* An attempt that was written ahead of its call and has no result counts as made: under ``Bounded`` it is used up, under
  ``AtMostOnce`` the channel ends ``Unknown``.
* Each channel has its own due time, computed once from the end of its attempt and stored. A reconcile that comes early
  (a watch event, a restart, a write by someone else) waits for the rest of the time.
* Phase, reason, message and counts are derived from the channels. The phase becomes terminal with the last attempt, not
  one backoff later.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from reconciler._core.backoff import MAX_RETRY_AFTER, Backoff
from reconciler.meta.documents import format_micro_time
from reconciler.notification.api import (
    CHANNEL_LIMIT,
    TERMINAL_PHASES,
    AttemptResult,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestSpec,
    NotificationRequestStatus,
    Phase,
    RetryPolicy,
)
from reconciler.notification.redaction import shortened

_MESSAGE_LIMIT = 1024


DERIVED = set(NotificationRequestStatus.model_fields) - {
    "channels",
    "delivery_attempts",
    "conditions",
    "observed_generation",
}
"""The status fields that are derived from the channels and attempts."""


def summarize(
    status: NotificationRequestStatus, spec: NotificationRequestSpec, *, now: datetime
) -> NotificationRequestStatus:
    """Return a status with the phase, the reason, the message and the counts that follow from its channels.

    Without any channel the request has failed. A terminal phase is reached now.
    """
    channels = status.channels
    delivered = [channel for channel in channels if channel.state == "Delivered"]
    failed = [channel for channel in channels if channel.state in {"Failed", "Unknown"}]
    waiting = [channel for channel in channels if channel.state in _OPEN]
    phase, reason = _phase(delivered, failed, waiting)
    step, step_time = _next_step(waiting) if waiting else after_completion(now, spec.ttl_seconds_after_finished)
    return status.model_copy(
        update={
            "phase": phase,
            "reason": reason,
            "message": _message(channels, delivered, failed, waiting, spec.retry_policy),
            "total_attempts": sum(channel.attempts for channel in channels),
            "successful_deliveries": len(delivered),
            "failed_deliveries": len(failed) + sum(channel.attempts > 0 for channel in waiting),
            "completion_time": None if waiting else now,
            "next_step": step,
            "next_step_time": step_time,
        }
    )


def after_completion(ended: datetime, ttl: int | None) -> tuple[str, datetime | None]:
    """Return the next step of a request that has ended, and its time."""
    return ("none", None) if ttl is None else ("deletion", ended + timedelta(seconds=ttl))


def _next_step(waiting: Sequence[ChannelStatus]) -> tuple[str, datetime | None]:
    """Return the next attempt, and its time; None for now."""
    first = min(waiting, key=lambda channel: (channel.next_attempt_time is not None, channel.next_attempt_time))
    others = [each for each in waiting if each is not first and each.next_attempt_time == first.next_attempt_time]
    more = f" and {len(others)} more" if others else ""
    return f"attempt {first.attempts + 1} on {first.name}{more}", first.next_attempt_time


def _phase(
    delivered: Sequence[ChannelStatus], failed: Sequence[ChannelStatus], waiting: Sequence[ChannelStatus]
) -> tuple[Phase, str]:
    if waiting:
        if all(channel.reason == "Deferred" for channel in waiting):
            return "Retrying", "DeliveryDeferred"
        return "Retrying", "PartialFailureRetrying" if delivered else "AllDeliveriesRetrying"
    if delivered and not failed:
        return "Sent", "AllDeliveriesSucceeded"
    if delivered:
        unknown = any(channel.state == "Unknown" for channel in failed)
        return "PartiallySent", "DeliveryUnknown" if unknown else "PartialDeliverySuccess"
    return "Failed", _failure_reason({channel.reason for channel in failed})


def _failure_reason(reasons: set[str | None]) -> str:
    if not reasons:
        return "NoChannelsResolved"
    if reasons == {"UnknownChannel"}:
        return "UnknownChannel"
    if "OutcomeUnknown" in reasons:
        return "DeliveryUnknown"
    return "MaxRetriesExhausted" if "AttemptsExhausted" in reasons else "AllDeliveriesFailed"


def _message(
    channels: Sequence[ChannelStatus],
    delivered: Sequence[ChannelStatus],
    failed: Sequence[ChannelStatus],
    waiting: Sequence[ChannelStatus],
    policy: RetryPolicy,
) -> str:
    if not channels:
        return "No channel to deliver to."
    sentences = [f"Delivered to {len(delivered)} of {len(channels)} channels" + _names(delivered)]
    sentences += [f"{channel.name} {_outcome(channel)}: {_cause(channel)}" for channel in failed]
    sentences += [_next_attempt(channel, policy) for channel in waiting]
    return shortened("; ".join(sentences), _MESSAGE_LIMIT)


def _names(channels: Sequence[ChannelStatus]) -> str:
    return f" ({', '.join(channel.name for channel in channels)})" if channels else ""


def _outcome(channel: ChannelStatus) -> str:
    if channel.state == "Unknown":
        return "may have delivered and will not be retried"
    if not channel.attempts:
        return "was not attempted"
    return "failed after 1 attempt" if channel.attempts == 1 else f"failed after {channel.attempts} attempts"


def _cause(channel: ChannelStatus) -> str:
    return (channel.last_error or channel.reason or "unknown")[:128]


def _next_attempt(channel: ChannelStatus, policy: RetryPolicy) -> str:
    if channel.next_attempt_time is None:
        return f"{channel.name} is due now"
    when = format_micro_time(channel.next_attempt_time)
    return f"{channel.name} will be retried at {when} (attempt {channel.attempts + 1} of {policy.max_attempts})"


class DeliveryVerdict(Enum):
    """The result of a delivery, as far as it is known."""

    DELIVERED = "delivered"
    RETRYABLE = "retryable"
    PERMANENT = "permanent"
    DEFERRED = "deferred"
    UNKNOWN = "unknown"  # the receiver may have the message
    DOUBTFUL = "doubtful"  # it failed, but the receiver may still have the message
    UNKNOWN_CHANNEL = "unknown channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The result of one delivery.

    Attributes:
        ended: when it ended; the backoff starts here.
        error: the error text, redacted and of limited length.
        retry_after: seconds that the receiver asked to wait, or None.
    """

    channel: str
    verdict: DeliveryVerdict
    started: datetime
    ended: datetime
    seconds: float = 0.0
    error: str = ""
    retry_after: float | None = None


BATCH_WINDOW = timedelta(seconds=1)
"""Channels due within this time of the first one are delivered with it, in one reconcile and one status write."""

CLOCK_TOLERANCE = timedelta(seconds=2)
"""How far the clocks of two machines may differ before a stored due time counts as written by a wrong clock."""

MIN_DEFERRAL = 1.0
"""Minimum deferral in seconds. A deferral uses no attempt, so nothing else limits how fast deferrals repeat."""

MAX_DELAY = 2 * 86_400.0
"""Maximum seconds between an attempt and the next: the longest backoff with the largest jitter. A longer stored delay
is not this operator's."""

MAX_DEFERRED_TIME = timedelta(hours=24)
"""How long a channel can be deferred without a break before a deferral counts as a failed attempt."""

ERRORS_LIMIT = CHANNEL_LIMIT * 512
"""Maximum error characters for one attempt on all channels: routing can select more than a request can name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The channels that are due now, or the time to wait.

    Attributes:
        due: the channels to deliver to now; empty if it is too early or all have ended.
        waiting: all channels that have attempts left, including those that are due.
        wait: seconds until channels are due; None if some are due now or none will be.
        needs_repair: whether the stored status must be settled although nothing is due: it has a due time from a wrong
            clock, an attempt without a result, or a phase that lags behind its channels.
    """

    due: tuple[ChannelStatus, ...] = ()
    waiting: tuple[ChannelStatus, ...] = ()
    wait: float | None = None
    needs_repair: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """The changes of one reconcile to the status of a request.

    Attributes:
        request: the request, as the reconcile read it.
        before: the status at the start of the reconcile.
        after: the status that results.
        attempts: the attempts that are added.
        deferred: names of the channels that deferred the delivery.
    """

    request: NotificationRequest
    before: NotificationRequestStatus
    after: NotificationRequestStatus
    attempts: tuple[DeliveryAttempt, ...] = ()
    deferred: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Return whether the request reaches its final phase with this change."""
        return self.after.completion_time is not None and self.before.completion_time is None


def channels_of(spec: NotificationRequestSpec, status: NotificationRequestStatus) -> tuple[str, ...]:
    """Return the channels of a request without duplicates: those in its spec, then those in its status."""
    return tuple(dict.fromkeys([*(spec.channels or ()), *(channel.name for channel in status.channels)]))


def plan(spec: NotificationRequestSpec, status: NotificationRequestStatus, *, now: datetime) -> Plan:
    """Decide which of a request's channels are due at `now`, or how long to wait."""
    if status.phase in TERMINAL_PHASES:
        return Plan()
    interrupted = _interrupted(status)
    states = _channel_states(spec, status, interrupted)
    waiting = [channel for channel in states if channel.state in _OPEN]
    ready = [channel for channel in waiting if channel.name not in interrupted]
    if not ready:
        return Plan(needs_repair=True)
    bounded = [_with_bounded_wait(channel, now) for channel in ready]
    moment = _batch_due(bounded, now)
    if moment > now:
        return Plan(wait=(moment - now).total_seconds(), needs_repair=bounded != waiting)  # interrupted ones differ too
    due = tuple(channel for channel in bounded if _due_time(channel, now) <= now)
    return Plan(due=due, waiting=tuple(bounded))


def is_deferred(channel: ChannelStatus, *, now: datetime) -> bool:
    """Return whether a channel is deferred, for less than `MAX_DEFERRED_TIME` so far."""
    return channel.reason == "Deferred" and _deferral_end(channel, now) > now


def next_due(channels: Iterable[ChannelStatus], *, now: datetime, queued: Collection[str] = ()) -> datetime | None:
    """Return when a request must be reconciled next, never before `now`; None if no timer is needed.

    Args:
        channels: the channels of the request.
        now: the current time.
        queued: the channels for which the request waits in the `FairQueue`, which wakes it. For these, only the end of
            a deferral needs a timer.
    """
    waiting = [channel for channel in channels if channel.state in _OPEN]
    due = [channel for channel in waiting if channel.name not in queued]
    deferred = [channel for channel in waiting if channel.name in queued and is_deferred(channel, now=now)]
    times = [max(_batch_due(due, now), now)] if due else []
    return min([*times, *(_deferral_end(channel, now) for channel in deferred)], default=None)


def settle(
    request: NotificationRequest,
    before: NotificationRequestStatus,
    deliveries: Iterable[Delivery] = (),
    *,
    now: datetime,
    rng: random.Random | None = None,
) -> StatusChange:
    """Compute the new status of a request from the old one and the results of the deliveries.

    Channels without a result were not attempted; results of finished channels are ignored.
    """
    if before.phase in TERMINAL_PHASES:
        return StatusChange(request=request, before=before, after=before)
    spec = request.spec
    interrupted = _interrupted(before)
    results = {**interrupted, **{each.channel: each for each in deliveries}}
    attempts: list[DeliveryAttempt] = []
    states: list[ChannelStatus] = []
    deferred: list[str] = []
    channels = _channel_states(spec, before, interrupted)
    most = ERRORS_LIMIT // max(len(channels), CHANNEL_LIMIT)
    for channel in channels:
        delivery = results.get(channel.name)
        after = channel
        if channel.state in _OPEN and delivery is not None:
            if len(delivery.error) > most:
                delivery = replace(delivery, error=shortened(delivery.error, most))
            after = _state_after(channel, delivery, spec, rng)
            if after.attempts > channel.attempts:
                attempts.append(_attempt(delivery, after))
            elif after.reason == "Deferred":
                deferred.append(channel.name)
        states.append(_with_bounded_wait(after, now))  # an interrupted attempt has the time of another process
    new = before.model_copy(
        update={
            "channels": states,
            "delivery_attempts": [*before.delivery_attempts, *attempts],
            "queued_at": before.queued_at or min([now, *(delivery.started for delivery in results.values())]),
        }
    )
    return StatusChange(
        request=request,
        before=before,
        after=summarize(new, spec, now=now),
        attempts=tuple(attempts),
        deferred=tuple(deferred),
    )


_END_OF_TIME = datetime.max.replace(tzinfo=UTC)
_OPEN = frozenset({"Pending", "Retrying"})
_NO_NEXT_ATTEMPT: dict[str, None] = {"delay_seconds": None, "next_attempt_time": None, "deferred_since": None}


def _channel_states(
    spec: NotificationRequestSpec, status: NotificationRequestStatus, interrupted: Collection[str]
) -> list[ChannelStatus]:
    """Return the state of each channel. Where ``deliveryAttempts`` is ahead of the stored state, it takes precedence.

    An attempt without a result does not count here: `_interrupted` turns it into a `Delivery`, which does.
    """
    stored = {channel.name: channel for channel in status.channels}
    made: dict[str, int] = {}
    delivered: set[str] = set()
    ended: dict[str, datetime] = {}
    for attempt in status.delivery_attempts:
        made[attempt.channel] = max(made.get(attempt.channel, 0), attempt.attempt)
        end = _later(attempt.timestamp, attempt.duration_seconds)
        ended[attempt.channel] = max(ended.get(attempt.channel, end), end)
        if attempt.result == "success":
            delivered.add(attempt.channel)
    for name in interrupted:
        made[name] -= 1
    result = []
    policy = spec.retry_policy
    for name in channels_of(spec, status):
        channel = stored.get(name) or ChannelStatus(name=name)
        if made.get(name, 0) > channel.attempts:
            channel = channel.model_copy(update={"attempts": made[name], "next_attempt_time": None})
        if name in delivered and channel.state != "Delivered":
            channel = channel.model_copy(update={"state": "Delivered", "reason": "Delivered", **_NO_NEXT_ATTEMPT})
        elif channel.state in _OPEN and channel.attempts >= policy.max_attempts:
            channel = channel.model_copy(update={"state": "Failed", "reason": "AttemptsExhausted", **_NO_NEXT_ATTEMPT})
        elif channel.state in _OPEN and channel.attempts and channel.next_attempt_time is None:
            channel = _rescheduled(channel, ended.get(name) or channel.last_attempt_time, policy)
        result.append(channel)
    return result


def _rescheduled(channel: ChannelStatus, ended: datetime | None, policy: RetryPolicy) -> ChannelStatus:
    """Return a channel whose due time someone removed, with the one that its last attempt leads to, without jitter."""
    if ended is None:
        return channel
    delay = replace(_backoff(policy), jitter=0.0).delay(channel.attempts - 1)
    return channel.model_copy(
        update={
            "state": "Retrying",
            "reason": channel.reason or "AttemptFailed",
            "last_attempt_time": ended,
            "delay_seconds": delay,
            "next_attempt_time": _later(ended, delay),
        }
    )


def _backoff(policy: RetryPolicy) -> Backoff:
    return Backoff(policy.initial_backoff_seconds, policy.backoff_multiplier, policy.max_backoff_seconds, policy.jitter)


def _interrupted(status: NotificationRequestStatus) -> dict[str, Delivery]:
    """Return a result of unknown outcome for each attempt that was written ahead of its call and has no result."""
    counted = {channel.name: channel.attempts for channel in status.channels}
    last: dict[str, DeliveryAttempt] = {}
    for attempt in sorted(status.delivery_attempts, key=lambda each: each.attempt, reverse=True):
        last.setdefault(attempt.channel, attempt)
    return {
        name: Delivery(
            channel=name,
            verdict=DeliveryVerdict.UNKNOWN,
            started=attempt.timestamp,
            ended=attempt.timestamp,
            error="the operator stopped before it could save the result",
        )
        for name, attempt in last.items()
        if attempt.result == "unknown" and attempt.attempt > counted.get(name, 0)
    }


def _with_bounded_wait(channel: ChannelStatus, now: datetime) -> ChannelStatus:
    """Return the channel with a due time at most one delay from now.

    A later due time was stored by a clock that was ahead of this one. So a clock that jumps delays a channel by one
    delay at most.
    """
    if channel.next_attempt_time is None:
        return channel
    delay = timedelta(seconds=min(channel.delay_seconds or 0.0, MAX_DELAY))
    if channel.next_attempt_time - now <= delay + CLOCK_TOLERANCE:
        return channel
    return channel.model_copy(update={"next_attempt_time": now + delay})


def _later(moment: datetime, seconds: float) -> datetime:
    """Return the moment this many seconds later; the end of time at the latest, since somebody may edit a status."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return _END_OF_TIME


def _due_time(channel: ChannelStatus, now: datetime) -> datetime:
    """Return when a waiting channel is due; a channel without attempts is due now."""
    return channel.next_attempt_time or now


def _batch_due(waiting: Sequence[ChannelStatus], now: datetime) -> datetime:
    """Return when the next batch of channels is due: the last due time within `BATCH_WINDOW` of the first."""
    times = [_due_time(channel, now) for channel in waiting]
    first = min(times)
    if any(channel.next_attempt_time is None for channel in waiting):
        return first
    return max(time for time in times if time <= first + BATCH_WINDOW)


def _state_after(
    channel: ChannelStatus, delivery: Delivery, spec: NotificationRequestSpec, rng: random.Random | None
) -> ChannelStatus:
    """Return the state of a channel after a delivery."""
    policy = spec.retry_policy
    match delivery.verdict:
        case DeliveryVerdict.DELIVERED:
            return _final(channel, delivery, "Delivered", "Delivered", used=1)
        case DeliveryVerdict.PERMANENT:
            return _final(channel, delivery, "Failed", "PermanentError", used=1)
        case DeliveryVerdict.UNKNOWN | DeliveryVerdict.DOUBTFUL if spec.delivery == "AtMostOnce":
            return _final(channel, delivery, "Unknown", "OutcomeUnknown", used=1)
        case DeliveryVerdict.UNKNOWN_CHANNEL if channel.reason is None:
            return _final(channel, delivery, "Failed", "UnknownChannel", used=0)
        # A channel that existed at an earlier reconcile may come back: another process, another configuration.
        case DeliveryVerdict.UNKNOWN_CHANNEL | DeliveryVerdict.DEFERRED:
            return _after_deferral(channel, delivery, policy, rng)
        case DeliveryVerdict.RETRYABLE | DeliveryVerdict.UNKNOWN | DeliveryVerdict.DOUBTFUL:
            return _after_failure(channel, delivery, policy, rng)


def _final(channel: ChannelStatus, delivery: Delivery, state: str, reason: str, *, used: int) -> ChannelStatus:
    return channel.model_copy(
        update={
            "state": state,
            "reason": reason,
            "attempts": channel.attempts + used,
            "last_attempt_time": delivery.ended if used else channel.last_attempt_time,
            "last_error": delivery.error or None,
            **_NO_NEXT_ATTEMPT,
        }
    )


def _after_failure(
    channel: ChannelStatus, delivery: Delivery, policy: RetryPolicy, rng: random.Random | None
) -> ChannelStatus:
    made = channel.attempts + 1
    if made >= policy.max_attempts:
        return _final(channel, delivery, "Failed", "AttemptsExhausted", used=1)
    asked = min(delivery.retry_after or 0.0, MAX_RETRY_AFTER)
    return _scheduled(channel, delivery, max(_backoff(policy).delay(made - 1, rng), asked)).model_copy(
        update={
            "state": "Retrying",
            "reason": "AttemptFailed",
            "attempts": made,
            "last_attempt_time": delivery.ended,
            "deferred_since": None,
        }
    )


def _after_deferral(
    channel: ChannelStatus, delivery: Delivery, policy: RetryPolicy, rng: random.Random | None
) -> ChannelStatus:
    since = channel.deferred_since or delivery.ended
    left = _deferral_end(channel, delivery.ended) - delivery.ended
    if left <= timedelta():
        return _after_failure(channel, delivery, policy, rng)
    asked = min(max(delivery.retry_after or 0.0, MIN_DEFERRAL), MAX_RETRY_AFTER)
    delay = min(asked, max(left.total_seconds(), MIN_DEFERRAL))
    return _scheduled(channel, delivery, delay).model_copy(update={"reason": "Deferred", "deferred_since": since})


def _deferral_end(channel: ChannelStatus, now: datetime) -> datetime:
    return min(channel.deferred_since or now, now) + MAX_DEFERRED_TIME


def _scheduled(channel: ChannelStatus, delivery: Delivery, delay: float) -> ChannelStatus:
    # Rounded up to the precision of MicroTime, so that the time read back is never early.
    wait = timedelta(microseconds=math.ceil(delay * 1_000_000))
    return channel.model_copy(
        update={
            "delay_seconds": wait.total_seconds(),
            "next_attempt_time": _later(delivery.ended, wait.total_seconds()),
            "last_error": delivery.error or None,
        }
    )


def _attempt(delivery: Delivery, after: ChannelStatus) -> DeliveryAttempt:
    return DeliveryAttempt(
        channel=delivery.channel,
        attempt=after.attempts,
        timestamp=delivery.started,
        result=_result(delivery, after),
        error=None if delivery.verdict is DeliveryVerdict.DELIVERED else after.last_error,
        duration_seconds=round(delivery.seconds, 6),
    )


def _result(delivery: Delivery, after: ChannelStatus) -> AttemptResult:
    if delivery.verdict is DeliveryVerdict.DELIVERED:
        return "success"
    return "unknown" if delivery.verdict is DeliveryVerdict.UNKNOWN or after.state == "Unknown" else "failure"
