"""Declare what the status of a request tells."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from reconciler.objects import ConditionedStatus, Model, schema_extra

__all__ = [
    "TERMINAL_PHASES",
    "AttemptResult",
    "ChannelState",
    "ChannelStatus",
    "DeliveryAttempt",
    "NotificationRequestStatus",
    "Phase",
]

Phase = Literal["Retrying", "Sent", "PartiallySent", "Failed"]
"""The stored phases. A request without one is pending: no cycle has seen it yet."""

TERMINAL_PHASES: frozenset[Phase] = frozenset({"Sent", "PartiallySent", "Failed"})
"""The phases that nothing leaves."""

ChannelState = Literal["Pending", "Retrying", "Delivered", "Failed", "Unknown"]
"""The states of one channel: not tried yet, to be tried again, and the three ends. ``Unknown`` ends a channel under
``AtMostOnce`` when nobody knows whether its message arrived."""

AttemptResult = Literal["success", "failure", "unknown"]
"""How an attempt ended. ``unknown``: it was begun, and whether the receiver has the message is not known."""


class ChannelStatus(Model):
    """Tell how far the delivery over one channel is."""

    name: str = Field(description="The channel's name.")
    state: ChannelState = Field(default="Pending", description="How far the delivery is.")
    reason: str | None = Field(default=None, description="Why the channel is in this state, for programs.")
    attempts: int = Field(default=0, ge=0, description="Attempts made.")
    last_attempt_time: datetime | None = Field(default=None, description="When the last attempt ended.")
    delay_seconds: float | None = Field(default=None, ge=0, description="The wait that nextAttemptTime was made with.")
    next_attempt_time: datetime | None = Field(default=None, description="No attempt before this time.")
    deferred_since: datetime | None = Field(
        default=None, description="Since when the receiver asks to come back later."
    )
    last_error: str | None = Field(default=None, description="What the last failed attempt or deferral said, redacted.")


class DeliveryAttempt(Model):
    """Record one attempt on one channel."""

    channel: str = Field(description="The channel's name.")
    attempt: int = Field(ge=1, description="Number of the attempt on this channel, from 1.")
    timestamp: datetime = Field(description="When the attempt began.")
    result: AttemptResult = Field(description="How it ended.")
    error: str | None = Field(default=None, description="What a failed attempt said, redacted.")
    duration_seconds: float = Field(default=0, ge=0, description="How long it took.")


class NotificationRequestStatus(ConditionedStatus):
    """Tell how far the delivery of a request is. Everything but the ledger and the channels follows from these two."""

    phase: Phase | None = Field(default=None, description="How far the request is; absent while it is pending.")
    reason: str | None = Field(default=None, description="Why it is in this phase, for programs.")
    message: str | None = Field(default=None, description="What was delivered and what comes next, for people.")
    channels: list[ChannelStatus] = Field(
        default_factory=list,
        description="The channels of this request, fixed before its first attempt.",
        json_schema_extra=schema_extra(list_type="map", list_map_keys=("name",)),
    )
    delivery_attempts: list[DeliveryAttempt] = Field(
        default_factory=list,
        description="Every attempt that was made; no more than 10 a channel.",
        json_schema_extra=schema_extra(list_type="map", list_map_keys=("channel", "attempt")),
    )
    total_attempts: int = Field(default=0, ge=0, description="Attempts made on all channels.")
    successful_deliveries: int = Field(default=0, ge=0, description="Channels that delivered.")
    failed_deliveries: int = Field(
        default=0, ge=0, description="Channels that were tried, or given up, and have not delivered."
    )
    queued_at: datetime | None = Field(default=None, description="When the first cycle saw the request.")
    completion_time: datetime | None = Field(default=None, description="When the request reached its last phase.")
