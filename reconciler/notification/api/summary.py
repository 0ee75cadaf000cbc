"""Phase, reason, message and counts of a request, derived from the states of its channels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from reconciler.meta.scalars import format_micro_time
from reconciler.notification.api.types import ChannelStatus, Phase, RetryPolicy
from reconciler.notification.redaction.text import shortened

__all__ = ["Summary", "after_completion", "summarize"]

_MESSAGE_LIMIT = 1024


class Summary(TypedDict):
    """The status fields that are derived from the channels."""

    phase: Phase
    reason: str
    message: str
    total_attempts: int
    successful_deliveries: int
    failed_deliveries: int
    completion_time: datetime | None
    next_step: str
    next_step_time: datetime | None


def summarize(
    channels: Sequence[ChannelStatus], policy: RetryPolicy, *, now: datetime, ttl: int | None = None
) -> Summary:
    """Return phase, reason, message and counts for all channels of a request. Without any channel it has failed.

    A terminal phase is reached now. The request is deleted `ttl` seconds later, if that is not None.
    """
    delivered = [channel for channel in channels if channel.state == "Delivered"]
    failed = [channel for channel in channels if channel.state in {"Failed", "Unknown"}]
    waiting = [channel for channel in channels if channel.state in {"Pending", "Retrying"}]
    tried = [channel for channel in waiting if channel.attempts]
    phase, reason = _phase(delivered, failed, waiting)
    step, step_time = _next_step(waiting) if waiting else after_completion(now, ttl)
    return Summary(
        phase=phase,
        reason=reason,
        message=_message(channels, delivered, failed, waiting, policy),
        total_attempts=sum(channel.attempts for channel in channels),
        successful_deliveries=len(delivered),
        failed_deliveries=len(failed) + len(tried),
        completion_time=None if waiting else now,
        next_step=step,
        next_step_time=step_time,
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
