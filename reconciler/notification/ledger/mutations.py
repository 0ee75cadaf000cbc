"""Status mutations: what a reconcile records on its `StatusBatcher`.

Attempts and channels are addressed by their keys, so a replay on a newer version adds nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec
from pydantic import BaseModel

from reconciler._core.wire import JSONObject
from reconciler.meta.scalars import format_micro_time
from reconciler.notification.api.summary import Summary
from reconciler.notification.api.types import (
    TERMINAL_PHASES,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestStatus,
)
from reconciler.notification.delivery.schedule import ERRORS_LIMIT, Decision
from reconciler.notification.routing.router import Resolution
from reconciler.status import StatusBatcher

__all__ = [
    "is_too_large",
    "remove_write_ahead",
    "set_decision",
    "set_ended",
    "set_failed",
    "set_routing",
    "upsert_attempts",
]

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


def set_decision(status: RequestStatusBatcher, before: NotificationRequestStatus, decision: Decision) -> None:
    """Record what a decision changes: attempts, channels, derived fields and conditions."""
    after = decision.status
    if before.phase is None and not before.channels and after.channels:
        names = ", ".join(channel.name for channel in after.channels)
        _set_routing_condition(status, "ChannelsNamed", f"the request names its channels: {names}", resolved=True)
    upsert_attempts(status, decision.attempts)
    stored = {channel.name: channel for channel in before.channels}
    for channel in after.channels:
        if channel != stored.get(channel.name):
            status.upsert("channels", _document(channel), key="name")
    # Derived fields belong to this operator: a value that someone else wrote must not keep an attempt from being saved.
    status.set(overwrite=True, **after.model_dump(mode="json", include=_DERIVED, exclude_none=True))
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
    for channel in channels:
        status.upsert("channels", _document(channel), key="name")
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
    """Record attempts: those that are ahead of their calls, or results, which replace them."""
    for attempt in attempts:
        status.upsert("deliveryAttempts", _document(attempt), key=("channel", "attempt"))


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
    return len(msgspec.json.encode(obj.to_dict())) + entries * ENTRY_BYTES + errors > OBJECT_BYTES


def set_failed(status: RequestStatusBatcher, reason: str, message: str, *, now: datetime) -> None:
    """Record that a request has failed; a request that has ended does not change."""
    set_ended(status, NotificationRequestStatus(phase="Failed", reason=reason, message=message, completion_time=now))


def set_ended(status: RequestStatusBatcher, after: NotificationRequestStatus) -> None:
    """Record that a request has ended without a delivery; a request that has ended before does not change.

    Of the status only the derived fields are recorded.
    """
    if status.current.get("phase") in TERMINAL_PHASES:
        return
    fields = after.model_dump(mode="json", include=_DERIVED, exclude_none=True, exclude_defaults=True)
    status.set(overwrite=True, **fields)
    _set_ready_condition(status, after)


def _set_ready_condition(status: RequestStatusBatcher, after: NotificationRequestStatus) -> None:
    is_sent = after.phase in {"Sent", "PartiallySent"}
    status.set_condition("Ready", is_sent, reason=after.reason or "", message=after.message or "")


def _set_routing_condition(status: RequestStatusBatcher, reason: str, message: str, *, resolved: bool = False) -> None:
    status.set_condition("RoutingResolved", resolved, reason=reason, message=message[:MESSAGE_LIMIT])


def _document(model: BaseModel) -> JSONObject:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
