"""Declare what a user asks for.

The bounds stand here once. The API server checks them by the generated schema, the models check them again in Python,
for servers that do not validate.


Declare what the status of a request tells.

Declare the kind NotificationRequest; its two halves stand in `_spec` and `_status`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from reconciler.notification.channel import CHANNEL_PATTERN
from reconciler.objects import ConditionedStatus, Model, PrinterColumn, Resource, rule, schema_extra

__all__ = [
    "BODY_LIMIT",
    "CHANNEL_LIMIT",
    "TERMINAL_PHASES",
    "ActionLink",
    "AttemptResult",
    "ChannelName",
    "ChannelState",
    "ChannelStatus",
    "DeliveryAttempt",
    "DeliveryGuarantee",
    "NotificationRequest",
    "NotificationRequestSpec",
    "NotificationRequestStatus",
    "NotificationType",
    "Phase",
    "Priority",
    "RetryPolicy",
]


NotificationType = Literal["Escalation", "Simple", "StatusUpdate", "Approval", "ManualReview", "Completion"]
"""What a notification is about."""

Priority = Literal["Critical", "High", "Medium", "Low"]
"""How important it is; told to the channels, never an order of delivery."""

DeliveryGuarantee = Literal["AtLeastOnce", "Bounded", "AtMostOnce"]
"""What may happen when a process dies between a call and the write of its result.

``AtLeastOnce``: the call is made again, and not counted: one more than ``maxAttempts`` for each such death.
``Bounded``: each attempt is counted before the call: never more calls than ``maxAttempts``; such a death spends one.
``AtMostOnce``: counted before the call too, and a call whose result is not known is never repeated.
"""

BODY_LIMIT = 65_536
"""Most characters of a body. Twice in an object (``kubectl apply`` keeps a copy in an annotation) and in the longest
UTF-8, they take a third of the 1.5 MiB that etcd takes for an object."""

CHANNEL_LIMIT = 16
"""Most channels of a request; with 10 attempts each it bounds the ledger at 160 entries."""

EXTENSION_LIMIT = 64
"""Most extensions of a request."""

RECIPIENT_LIMIT = 64
"""Most recipients of one kind of channel."""

RECIPIENT_LENGTH = 320
"""Most characters of a recipient: the longest address that mail allows."""

LINK_LIMIT = 16
"""Most action links of a request."""

_DAY = 86_400
_YEAR = 366 * _DAY

ChannelName = Annotated[str, Field(pattern=CHANNEL_PATTERN, max_length=63)]
Recipient = Annotated[str, Field(min_length=1, max_length=RECIPIENT_LENGTH)]
Recipients = Annotated[list[Recipient], Field(min_length=1, max_length=RECIPIENT_LIMIT)]


class RetryPolicy(Model):
    """Say how often and when a channel that failed is tried again.

    The wait after attempt n, counted from 1, is ``initialBackoffSeconds * backoffMultiplier**(n-1)``, at most
    ``maxBackoffSeconds``, then spread by the jitter. It counts from the end of the attempt.
    """

    model_config = ConfigDict(
        json_schema_extra=schema_extra(
            rules=[
                rule(
                    "self.maxBackoffSeconds >= self.initialBackoffSeconds",
                    message="maxBackoffSeconds must not be smaller than initialBackoffSeconds",
                )
            ]
        )
    )

    max_attempts: int = Field(default=5, ge=1, le=10, description="Most attempts on each channel, the first included.")
    initial_backoff_seconds: int = Field(default=30, ge=1, le=_DAY, description="Wait after the first failed attempt.")
    backoff_multiplier: float = Field(default=2, ge=1, description="Factor from one wait to the next.")
    max_backoff_seconds: int = Field(default=480, ge=1, le=_DAY, description="Longest wait, before the jitter.")
    jitter: float = Field(
        default=0.1, ge=0, le=1, description="Share by which a wait may be shorter or longer; 0 gives exact waits."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_backoff_seconds < self.initial_backoff_seconds:
            raise ValueError("maxBackoffSeconds must not be smaller than initialBackoffSeconds")
        return self


class ActionLink(Model):
    """Point to where a reader can act."""

    service: str = Field(min_length=1, max_length=63, description="What it leads to, such as grafana.")
    url: str = Field(pattern=r"^https?://[^\s<>|]+$", max_length=2048, description="The address, http or https.")
    label: str = Field(min_length=1, max_length=75, description="What the link is called.")


class NotificationRequestSpec(Model):
    """Say what is to be told, how, and how hard to try. It cannot be changed once the request was created."""

    type: NotificationType = Field(description="What the notification is about.")
    priority: Priority = Field(default="Medium", description="How important it is.")
    subject: str = Field(min_length=1, max_length=500, description="One line.")
    body: str = Field(min_length=1, max_length=BODY_LIMIT, description="The text.")
    channels: list[ChannelName] | None = Field(
        default=None,
        min_length=1,
        max_length=CHANNEL_LIMIT,
        description="Names of channels; a repeated one is used once. Without it the operator's routing decides.",
    )
    recipients: dict[str, Recipients] | None = Field(
        default=None,
        max_length=CHANNEL_LIMIT,
        description="Whom to tell, by kind of channel: under email the addresses, in place of those that the receiver "
        "has; a webhook gets its own in the message. Slack's webhooks lead to one place and know no others.",
    )
    retry_policy: RetryPolicy = Field(default_factory=RetryPolicy, description="How hard to try.")
    delivery: DeliveryGuarantee = Field(
        default="AtLeastOnce",
        description="What may happen when the operator dies between a call and the write of its result: AtLeastOnce "
        "calls again; Bounded counts each attempt before the call; AtMostOnce never repeats such a call.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, le=_YEAR, description="Delete the request so many seconds after its end; absent: keep it."
    )
    extensions: dict[str, Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None,
        max_length=EXTENSION_LIMIT,
        description="Attributes of the sender's own, for routing and for templates.",
    )
    action_links: list[ActionLink] | None = Field(
        default=None, max_length=LINK_LIMIT, description="Where a reader can act."
    )


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


class NotificationRequest(
    Resource[NotificationRequestSpec, NotificationRequestStatus],
    group="notify.reconciler.dev",
    version="v1alpha1",
    short_names=("notif", "notifs"),
    printer_columns=(
        PrinterColumn("Type", ".spec.type"),
        PrinterColumn("Priority", ".spec.priority"),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Attempts", ".status.totalAttempts"),
        PrinterColumn("Reason", ".status.reason", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
    ),
    rules=(
        rule(
            "self.spec == oldSelf.spec",
            message="a notification cannot be changed once it was created: delete it and create another one",
            field_path=".spec",
        ),
    ),
):
    """A message that is to be delivered over one or more channels, with retries."""
