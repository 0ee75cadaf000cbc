"""Record decisions on a batcher, as mutations that may be replayed on a newer version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from reconciler.meta import format_micro_time
from reconciler.notification.api.types import (
    TERMINAL_PHASES,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequestStatus,
)
from reconciler.notification.delivery.schedule import Decision
from reconciler.notification.routing.router import Resolution
from reconciler.status import StatusBatcher

__all__ = ["record", "record_intents", "record_refusal", "record_resolution", "withdraw_intents"]


ROUTED_LIMIT = 64
"""Most channels that routing can send a request to; the ledger has to fit into an object."""

MESSAGE_LIMIT = 4096
"""Most characters of the message of a condition; the API takes 32,768."""

_DERIVED = (
    "phase",
    "reason",
    "message",
    "total_attempts",
    "successful_deliveries",
    "failed_deliveries",
    "queued_at",
    "completion_time",
)


def record(
    status: StatusBatcher[NotificationRequestStatus], before: NotificationRequestStatus, decision: Decision
) -> None:
    """Record what a decision changes.

    Attempts and channels go by their keys, so that recording them again on another version adds nothing twice.
    """
    after = decision.status
    if before.phase is None and not before.channels and after.channels:
        names = ", ".join(channel.name for channel in after.channels)
        _record_routing(status, "ChannelsNamed", f"the request names its channels: {names}", resolved=True)
    for attempt in decision.attempts:
        status.upsert("deliveryAttempts", _document(attempt), key=("channel", "attempt"))
    stored = {channel.name: channel for channel in before.channels}
    for channel in after.channels:
        if channel != stored.get(channel.name):
            status.upsert("channels", _document(channel), key="name")
    # What follows from the ledger is this operator's to say: a foreign value in it must not keep an attempt unsaved.
    status.set(overwrite=True, **after.model_dump(mode="json", include=set(_DERIVED), exclude_none=True))
    _record_condition(status, after.phase or "", after.reason or "", after.message or "")


def record_resolution(
    status: StatusBatcher[NotificationRequestStatus],
    before: NotificationRequestStatus,
    resolution: Resolution | None,
    *,
    now: datetime,
) -> NotificationRequestStatus:
    """Record which channels a request goes to, and return the status with them.

    They are recorded without reason or order of attempts: nothing was tried yet. A request that reaches no channel
    stays as it is, but for the condition that says why.

    Args:
        status: the cycle's batcher.
        before: the status that the cycle began with.
        resolution: where routing sends the request; None when there is no routing.
        now: becomes ``queuedAt``.
    """
    if resolution is None:
        _record_routing(
            status, "NoRouting", "the request names no channels, and this operator has no routing: set spec.channels"
        )
        return before
    receivers = ", ".join(resolution.receivers) or "none"
    if resolution.pending:
        why = resolution.problem or "there is no routing configuration yet"
        _record_routing(status, "RoutingFailed" if resolution.problem else "RoutingPending", f"waiting: {why}")
        return before
    if len(resolution.channels) > ROUTED_LIMIT:
        _record_routing(
            status,
            "TooManyChannels",
            f"receivers {receivers}: {len(resolution.channels)} channels, and a request takes {ROUTED_LIMIT} at most",
        )
        return before
    if not resolution.channels:
        why = resolution.problem or f"receivers {receivers}: they have no channels"
        _record_routing(status, "RoutingFailed" if resolution.problem else "NoChannels", why)
        return before
    channels = [ChannelStatus(name=name, reason="Routed") for name in resolution.channels]
    for channel in channels:
        status.upsert("channels", _document(channel), key="name")
    status.set(queued_at=format_micro_time(now))
    message = f"receivers {receivers}: channels {', '.join(resolution.channels)}"
    if resolution.problem:
        message += f"; by an older routing configuration, since the newest is refused: {resolution.problem}"
    _record_routing(status, "StaleRouting" if resolution.problem else "RoutingRuleMatched", message, resolved=True)
    return before.model_copy(update={"channels": channels, "queued_at": now})


def record_intents(status: StatusBatcher[NotificationRequestStatus], intents: Sequence[DeliveryAttempt]) -> None:
    """Record attempts that are about to be made; each result takes the place of its intent."""
    for intent in intents:
        status.upsert("deliveryAttempts", _document(intent), key=("channel", "attempt"))


def withdraw_intents(
    status: StatusBatcher[NotificationRequestStatus],
    intents: Sequence[DeliveryAttempt],
    *,
    unless: Sequence[DeliveryAttempt] = (),
) -> None:
    """Take back the intents of attempts that were not made: the call was put off, or stopped before it was sent."""
    made = {(attempt.channel, attempt.attempt) for attempt in unless}
    for intent in intents:
        if (intent.channel, intent.attempt) in made:
            continue
        # With its time: the intent of another process stays, whatever became of its call.
        document = _document(intent)
        members = {key: document[key] for key in ("channel", "attempt", "timestamp", "result")}
        status.remove("deliveryAttempts", item=members)


def record_refusal(status: StatusBatcher[NotificationRequestStatus], error: str, *, now: datetime) -> None:
    """Record that a request cannot be read and is given up; a request that has ended stays as it is.

    Args:
        status: the cycle's batcher.
        error: what is wrong with it, redacted.
        now: becomes the completion time.
    """
    if status.current.get("phase") in TERMINAL_PHASES:
        return
    message = f"Not delivered, the request is not valid: {error}"
    status.set(
        phase="Failed", reason="InvalidSpec", message=message, completion_time=format_micro_time(now), overwrite=True
    )
    _record_condition(status, "Failed", "InvalidSpec", message)


def _record_condition(status: StatusBatcher[NotificationRequestStatus], phase: str, reason: str, message: str) -> None:
    status.set_condition("Ready", phase in {"Sent", "PartiallySent"}, reason=reason, message=message)


def _record_routing(
    status: StatusBatcher[NotificationRequestStatus], reason: str, message: str, *, resolved: bool = False
) -> None:
    status.set_condition("RoutingResolved", resolved, reason=reason, message=message[:MESSAGE_LIMIT])


def _document(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
