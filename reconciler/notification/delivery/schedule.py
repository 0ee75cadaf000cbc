"""Say what becomes of one delivery.

Decide, without doing anything: which channels are due, and what the results of a pass make of the status.

Everything here is a function of values. A pass is `plan` (who is due, or how long until somebody is), the deliveries,
and `settle` (the new status and the next due time). What holds for every input:

* a channel that delivered is never due again, and a request in a terminal phase is never changed again;
* no channel is tried more often than ``maxAttempts``;
* an attempt that was counted before its call (`intend`) and has no result is never taken for one that was not made:
  under ``Bounded`` it is spent, under ``AtMostOnce`` the channel ends ``Unknown``;
* every channel has its own due time, drawn once, counted from the end of its attempt and stored: whoever comes early
  (an event, a restart, a foreign write) is told to wait for the rest;
* the phase is decided on sets of channels, and becomes terminal with the last attempt, not one back-off later.

"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from reconciler.backoff import Backoff
from reconciler.notification.api.summary import summarize
from reconciler.notification.api.types import (
    CHANNEL_LIMIT,
    TERMINAL_PHASES,
    AttemptResult,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequestSpec,
    NotificationRequestStatus,
    RetryPolicy,
)

__all__ = [
    "Decision",
    "Delivery",
    "Plan",
    "Verdict",
    "channels_of",
    "intend",
    "is_deferred",
    "next_due",
    "plan",
    "settle",
]


class Verdict(Enum):
    """Say how a delivery ended."""

    DELIVERED = "delivered"
    RETRYABLE = "retryable"
    PERMANENT = "permanent"
    DEFERRED = "deferred"
    UNKNOWN = "unknown"  # the receiver may have the message
    DOUBTFUL = "doubtful"  # it failed, and nobody says that the receiver has not got it
    UNKNOWN_CHANNEL = "unknown channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Hold what became of one channel in one pass.

    Attributes:
        channel: its name.
        verdict: how it ended.
        started: when the attempt began.
        ended: when it ended; waits count from here.
        seconds: how long it took.
        error: what went wrong, redacted and bounded.
        retry_after: seconds that the receiver asked to wait, or None.
    """

    channel: str
    verdict: Verdict
    started: datetime
    ended: datetime
    seconds: float = 0.0
    error: str = ""
    retry_after: float | None = None


TOGETHER = timedelta(seconds=1)
"""Channels that are due within this time of the first one run with it, so that they cost one cycle and one write."""

CLOCK_TOLERANCE = timedelta(seconds=2)
"""How far clocks of two machines may be apart before a stored due time is taken for one of a wrong clock."""

MOST_ASKED = 3600.0
"""Longest wait in seconds that a receiver can ask for."""

LEAST_DEFERRAL = 1.0
"""Shortest deferral in seconds: a deferral spends no attempt, so nothing else would bound how fast it repeats."""

DEFERRAL_END = timedelta(hours=24)
"""How long a channel can be deferred in a row before a deferral counts as a failed attempt."""


ERRORS_LIMIT = CHANNEL_LIMIT * 512
"""Most characters of errors for one attempt on every channel: routing can name more channels than a request can."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Say what to do at a moment.

    Attributes:
        due: the channels to try now; empty when it is too early or everything has ended.
        waiting: all channels that will be tried, those that are due included.
        wait: seconds until channels are due; None when some are, or none will be.
        amend: whether the stored status is to be settled although nothing is due: a due time of a wrong clock, an
            attempt without a result, or a phase that is behind its channels.
    """

    due: tuple[ChannelStatus, ...] = ()
    waiting: tuple[ChannelStatus, ...] = ()
    wait: float | None = None
    amend: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Hold what a pass came to.

    Attributes:
        status: the new status.
        attempts: the attempts that the pass adds to the ledger.
        next_due: when channels are due again, never before the decision; None in a terminal phase.
    """

    status: NotificationRequestStatus
    attempts: tuple[DeliveryAttempt, ...] = ()
    next_due: datetime | None = None


def channels_of(spec: NotificationRequestSpec, status: NotificationRequestStatus) -> tuple[str, ...]:
    """Return the request's channels, each once: those that it names, and those that its status was made with."""
    return tuple(dict.fromkeys([*(spec.channels or ()), *(channel.name for channel in status.channels)]))


def plan(
    spec: NotificationRequestSpec, channels: Sequence[str], status: NotificationRequestStatus, *, now: datetime
) -> Plan:
    """Say which channels are due at `now`, or how long to wait.

    Args:
        spec: what was asked for.
        channels: all channels of the request, in order, each once.
        status: the stored status.
        now: the time.
    """
    if status.phase in TERMINAL_PHASES:
        return Plan()
    known = _progress(channels, status, spec.retry_policy)
    waiting = [channel for channel in known if channel.state in _OPEN]
    interrupted = _interrupted(status)
    ready = [channel for channel in waiting if channel.name not in interrupted]
    if not ready:
        return Plan(amend=True)
    anchored = [_anchored(channel, now) for channel in ready]
    moment = _next_due(anchored, now)
    if moment > now:
        return Plan(wait=(moment - now).total_seconds(), amend=anchored != waiting)  # an interrupted one differs too
    due = tuple(channel for channel in anchored if _due_time(channel, now) <= now)
    return Plan(due=due, waiting=tuple(anchored))


def is_deferred(channel: ChannelStatus, *, now: datetime) -> bool:
    """Return whether a channel is put off, for less than the longest time that this may go on."""
    return channel.reason == "Deferred" and _deferral_end(channel, now) > now


def next_due(channels: Iterable[ChannelStatus], *, now: datetime, in_line: Collection[str] = ()) -> datetime | None:
    """Return when a request runs next by the clock, never before `now`; None if it does not.

    Args:
        channels: its channels.
        now: the time.
        in_line: those of them that wait for a turn. A turn comes by itself; of these channels only the end of a
            deferral counts.
    """
    waiting = [channel for channel in channels if channel.state in _OPEN]
    due = [channel for channel in waiting if channel.name not in in_line]
    deferred = [channel for channel in waiting if channel.name in in_line and is_deferred(channel, now=now)]
    times = [max(_next_due(due, now), now)] if due else []
    return min([*times, *(_deferral_end(channel, now) for channel in deferred)], default=None)


def intend(due: Sequence[ChannelStatus], *, now: datetime) -> tuple[DeliveryAttempt, ...]:
    """Return the entries that count attempts before their calls; each stands until its result takes its place.

    Args:
        due: the channels that are about to be tried.
        now: the time.
    """
    return tuple(
        DeliveryAttempt(channel=channel.name, attempt=channel.attempts + 1, timestamp=now, result="unknown")
        for channel in due
    )


def settle(
    spec: NotificationRequestSpec,
    channels: Sequence[str],
    status: NotificationRequestStatus,
    deliveries: Iterable[Delivery] = (),
    *,
    now: datetime,
    rng: random.Random | None = None,
) -> Decision:
    """Make the new status from the old one and the results of a pass.

    Args:
        spec: what was asked for.
        channels: all channels of the request, in order, each once.
        status: the status that the pass began with.
        deliveries: the results; channels without one were not tried. Those of channels that have ended are ignored.
        now: the time of the decision.
        rng: source of the jitter.
    """
    if status.phase in TERMINAL_PHASES:
        return Decision(status)
    most = ERRORS_LIMIT // max(len(channels), CHANNEL_LIMIT)
    results = {**_interrupted(status), **{each.channel: _shortened(each, most) for each in deliveries}}
    attempts: list[DeliveryAttempt] = []
    states: list[ChannelStatus] = []
    for channel in _progress(channels, status, spec.retry_policy):
        delivery = results.get(channel.name)
        if channel.state not in _OPEN or delivery is None:
            states.append(_anchored(channel, now))
            continue
        after = _advance(channel, delivery, spec, rng)
        if after.attempts > channel.attempts:
            attempts.append(_entry(delivery, after))
        states.append(after)
    new = status.model_copy(
        update={
            "channels": states,
            "delivery_attempts": [*status.delivery_attempts, *attempts],
            "queued_at": status.queued_at or min([now, *(delivery.started for delivery in results.values())]),
            **summarize(states, spec.retry_policy, now=now),
        }
    )
    return Decision(new, tuple(attempts), next_due(states, now=now))


def _shortened(delivery: Delivery, most: int) -> Delivery:
    return delivery if len(delivery.error) <= most else replace(delivery, error=delivery.error[: most - 1] + "…")


_OPEN = frozenset({"Pending", "Retrying"})
_NOTHING_DUE: dict[str, None] = {"delay_seconds": None, "next_attempt_time": None, "deferred_since": None}


def _progress(channels: Sequence[str], status: NotificationRequestStatus, policy: RetryPolicy) -> list[ChannelStatus]:
    """Return the state of each channel; where the ledger knows more than the stored state, the ledger is right.

    An attempt without a result does not count here: `_interrupted` makes a delivery of it, which does.
    """
    stored = {channel.name: channel for channel in status.channels}
    made: dict[str, int] = {}
    delivered: set[str] = set()
    for attempt in status.delivery_attempts:
        made[attempt.channel] = max(made.get(attempt.channel, 0), attempt.attempt)
        if attempt.result == "success":
            delivered.add(attempt.channel)
    for name in _interrupted(status):
        made[name] -= 1
    result = []
    for name in channels:
        channel = stored.get(name) or ChannelStatus(name=name)
        if made.get(name, 0) > channel.attempts:
            channel = channel.model_copy(update={"attempts": made[name]})
        if name in delivered and channel.state != "Delivered":
            channel = channel.model_copy(update={"state": "Delivered", "reason": "Delivered", **_NOTHING_DUE})
        elif channel.state in _OPEN and channel.attempts >= policy.max_attempts:
            channel = channel.model_copy(update={"state": "Failed", "reason": "AttemptsExhausted", **_NOTHING_DUE})
        result.append(channel)
    return result


def _interrupted(status: NotificationRequestStatus) -> dict[str, Delivery]:
    """Return what became of attempts that were counted before their calls, and of which nobody wrote a result."""
    counted = {channel.name: channel.attempts for channel in status.channels}
    last: dict[str, DeliveryAttempt] = {}
    for attempt in status.delivery_attempts:
        if attempt.channel not in last or attempt.attempt > last[attempt.channel].attempt:
            last[attempt.channel] = attempt
    return {
        name: Delivery(
            channel=name,
            verdict=Verdict.UNKNOWN,
            started=attempt.timestamp,
            ended=attempt.timestamp,
            error="the process ended before it could write the result",
        )
        for name, attempt in last.items()
        if attempt.result == "unknown" and attempt.attempt > counted.get(name, 0)
    }


def _anchored(channel: ChannelStatus, now: datetime) -> ChannelStatus:
    """Give a due time that lies further off than its own delay back its delay, counted from now.

    It was stored by a clock that was ahead of this one. No jump of a clock parks a channel for longer than one delay.
    """
    if channel.next_attempt_time is None:
        return channel
    delay = timedelta(seconds=channel.delay_seconds or 0.0)
    if channel.next_attempt_time - now <= delay + CLOCK_TOLERANCE:
        return channel
    return channel.model_copy(update={"next_attempt_time": now + delay})


def _due_time(channel: ChannelStatus, now: datetime) -> datetime:
    """Return when a waiting channel is due; one that was never tried is due at once."""
    return channel.next_attempt_time or now


def _next_due(waiting: Sequence[ChannelStatus], now: datetime) -> datetime:
    """Return when the channels run that are due first: those due within `TOGETHER`, at the time of their last one."""
    times = [_due_time(channel, now) for channel in waiting]
    first = min(times)
    if any(channel.next_attempt_time is None for channel in waiting):
        return first
    return max(time for time in times if time <= first + TOGETHER)


def _advance(
    channel: ChannelStatus, delivery: Delivery, spec: NotificationRequestSpec, rng: random.Random | None
) -> ChannelStatus:
    """Return a channel's state after a delivery."""
    policy = spec.retry_policy
    match delivery.verdict:
        case Verdict.DELIVERED:
            return _ended(channel, delivery, "Delivered", "Delivered", spent=1)
        case Verdict.PERMANENT:
            return _ended(channel, delivery, "Failed", "PermanentError", spent=1)
        case Verdict.UNKNOWN | Verdict.DOUBTFUL if spec.delivery == "AtMostOnce":
            return _ended(channel, delivery, "Unknown", "OutcomeUnknown", spent=1)
        case Verdict.UNKNOWN_CHANNEL if channel.reason is None:
            return _ended(channel, delivery, "Failed", "UnknownChannel", spent=0)
        # One that was known when the request began may come back: another process, another configuration.
        case Verdict.UNKNOWN_CHANNEL | Verdict.DEFERRED:
            return _deferred(channel, delivery, policy, rng)
        case Verdict.RETRYABLE | Verdict.UNKNOWN | Verdict.DOUBTFUL:
            return _failed(channel, delivery, policy, rng)


def _ended(channel: ChannelStatus, delivery: Delivery, state: str, reason: str, *, spent: int) -> ChannelStatus:
    return channel.model_copy(
        update={
            "state": state,
            "reason": reason,
            "attempts": channel.attempts + spent,
            "last_attempt_time": delivery.ended if spent else channel.last_attempt_time,
            "last_error": delivery.error or None,
            **_NOTHING_DUE,
        }
    )


def _failed(
    channel: ChannelStatus, delivery: Delivery, policy: RetryPolicy, rng: random.Random | None
) -> ChannelStatus:
    made = channel.attempts + 1
    if made >= policy.max_attempts:
        return _ended(channel, delivery, "Failed", "AttemptsExhausted", spent=1)
    backoff = Backoff(
        policy.initial_backoff_seconds, policy.backoff_multiplier, policy.max_backoff_seconds, policy.jitter
    )
    asked = min(delivery.retry_after or 0.0, MOST_ASKED)
    return _waiting(channel, delivery, max(backoff.delay(made - 1, rng), asked)).model_copy(
        update={
            "state": "Retrying",
            "reason": "AttemptFailed",
            "attempts": made,
            "last_attempt_time": delivery.ended,
            "deferred_since": None,
        }
    )


def _deferred(
    channel: ChannelStatus, delivery: Delivery, policy: RetryPolicy, rng: random.Random | None
) -> ChannelStatus:
    since = channel.deferred_since or delivery.ended
    left = _deferral_end(channel, delivery.ended) - delivery.ended
    if left <= timedelta():
        return _failed(channel, delivery, policy, rng)
    asked = min(max(delivery.retry_after or 0.0, LEAST_DEFERRAL), MOST_ASKED)
    delay = min(asked, max(left.total_seconds(), LEAST_DEFERRAL))
    return _waiting(channel, delivery, delay).model_copy(update={"reason": "Deferred", "deferred_since": since})


def _deferral_end(channel: ChannelStatus, now: datetime) -> datetime:
    return min(channel.deferred_since or now, now) + DEFERRAL_END


def _waiting(channel: ChannelStatus, delivery: Delivery, delay: float) -> ChannelStatus:
    # Rounded up to what a MicroTime holds, so that what is read back is never early.
    wait = timedelta(microseconds=math.ceil(delay * 1_000_000))
    return channel.model_copy(
        update={
            "delay_seconds": wait.total_seconds(),
            "next_attempt_time": delivery.ended + wait,
            "last_error": delivery.error or None,
        }
    )


def _entry(delivery: Delivery, after: ChannelStatus) -> DeliveryAttempt:
    return DeliveryAttempt(
        channel=delivery.channel,
        attempt=after.attempts,
        timestamp=delivery.started,
        result=_result(delivery, after),
        error=None if delivery.verdict is Verdict.DELIVERED else delivery.error or None,
        duration_seconds=round(delivery.seconds, 6),
    )


def _result(delivery: Delivery, after: ChannelStatus) -> AttemptResult:
    if delivery.verdict is Verdict.DELIVERED:
        return "success"
    return "unknown" if delivery.verdict is Verdict.UNKNOWN or after.state == "Unknown" else "failure"
