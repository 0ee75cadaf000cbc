"""Declare what a user asks for.

The bounds stand here once. The API server checks them by the generated schema, the models check them again in Python,
for servers that do not validate.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from reconciler.notification.channel import CHANNEL_PATTERN
from reconciler.objects import Model, rule, schema_extra

__all__ = [
    "BODY_LIMIT",
    "CHANNEL_LIMIT",
    "ActionLink",
    "ChannelName",
    "DeliveryGuarantee",
    "NotificationRequestSpec",
    "NotificationType",
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
