"""The kinds NotificationRequest, ChannelPolicy and RoutingConfig.

All limits are defined here. The API server enforces them through the generated schema; the models enforce them again in
Python, for servers that do not validate.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from reconciler.notification.channel import CHANNEL_PATTERN, IncidentAction
from reconciler.objects import ConditionedStatus, Model, PrinterColumn, Resource, rule, schema_extra

NotificationType = Literal["Escalation", "Simple", "StatusUpdate", "Approval", "ManualReview", "Completion"]
"""What a notification is about."""

Priority = Literal["Critical", "High", "Medium", "Low"]
"""How important a notification is. Within a namespace, waiting requests of higher priority are delivered first."""

DeliveryGuarantee = Literal["AtLeastOnce", "Bounded", "AtMostOnce"]
"""What happens when a process dies between a call and the write of its result.

``AtLeastOnce``: the call is repeated and not counted, so each such death can add one call to ``maxAttempts``.
``Bounded``: each attempt is counted before its call, so there are never more calls than ``maxAttempts``; such a death
uses up an attempt.
``AtMostOnce``: as ``Bounded``, and a call whose outcome is unknown is never repeated.
"""

BODY_LIMIT = 65_536
"""Maximum characters in a body. Stored twice (``kubectl apply`` keeps a copy in an annotation) and with four bytes a
character, a body fills a third of the 1.5 MiB that etcd accepts for an object."""

CHANNEL_LIMIT = 16
"""Maximum channels that a request can name. With 10 attempts each, ``deliveryAttempts`` has at most 160 entries."""

EXTENSION_LIMIT = 64
"""Maximum extensions of a request."""

NAME_LENGTH = 256
"""Maximum characters in the name of an extension, and in a kind of recipients."""

RECIPIENT_LIMIT = 64
"""Maximum recipients for one kind of channel."""

RECIPIENT_LENGTH = 320
"""Maximum characters in a recipient: the longest valid email address."""

IDENTIFIER_LENGTH = 128
"""Maximum characters of an incident's key, a correlation id or a sender. A key with its namespace fits PagerDuty's
limit of 255."""

LINK_LIMIT = 16
"""Maximum action links of a request."""

_DAY = 86_400
_YEAR = 366 * _DAY

ChannelName = Annotated[str, Field(pattern=CHANNEL_PATTERN, max_length=63)]
Recipient = Annotated[str, Field(min_length=1, max_length=RECIPIENT_LENGTH)]
Recipients = Annotated[list[Recipient], Field(min_length=1, max_length=RECIPIENT_LIMIT)]
_NAMES_MESSAGE = f"a name must have at most {NAME_LENGTH} characters"
_BOUNDED_NAMES = schema_extra(rules=[rule(f"self.all(name, size(name) <= {NAME_LENGTH})", message=_NAMES_MESSAGE)])


class RetryPolicy(Model):
    """The number and the times of the retries of failed deliveries.

    The backoff after attempt n, counted from 1, is ``initialBackoffSeconds * backoffMultiplier**(n-1)``, limited to
    ``maxBackoffSeconds`` and then randomized by ``jitter``. It starts when the attempt ends.
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

    max_attempts: int = Field(
        default=5, ge=1, le=10, description="Maximum attempts on each channel, including the first."
    )
    initial_backoff_seconds: int = Field(
        default=30, ge=1, le=_DAY, description="Seconds to wait after the first failed attempt."
    )
    backoff_multiplier: float = Field(
        default=2, ge=1, description="Factor by which each backoff is longer than the previous one."
    )
    max_backoff_seconds: int = Field(
        default=480, ge=1, le=_DAY, description="Maximum backoff in seconds, before jitter."
    )
    jitter: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Fraction by which a backoff may be shorter or longer; 0 makes backoffs exact.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_backoff_seconds < self.initial_backoff_seconds:
            raise ValueError("maxBackoffSeconds must not be smaller than initialBackoffSeconds")
        return self


class ActionLink(Model):
    """A link to a place where the recipient can act."""

    service: str = Field(min_length=1, max_length=63, description="The service that the link opens, such as grafana.")
    url: str = Field(pattern=r"^https?://[^\s<>|]+$", max_length=2048, description="An http or https URL.")
    label: str = Field(min_length=1, max_length=75, description="The text of the link.")


class Incident(Model):
    """The incident that a request is about. Services that track incidents know it by its key."""

    key: str = Field(min_length=1, max_length=IDENTIFIER_LENGTH, description="Key of the incident in this namespace.")
    action: IncidentAction = Field(default="Trigger", description="What happened to the incident.")


class NotificationRequestSpec(Model):
    """The message, where to deliver it, and how to retry. Immutable once the request has been created."""

    type: NotificationType = Field(description="What the notification is about.")
    priority: Priority = Field(default="Medium", description="How important the notification is.")
    subject: str = Field(min_length=1, max_length=500, description="The subject, one line.")
    body: str = Field(min_length=1, max_length=BODY_LIMIT, description="The text of the message.")
    channels: list[ChannelName] | None = Field(
        default=None,
        min_length=1,
        max_length=CHANNEL_LIMIT,
        description="Names of the channels to deliver to; duplicates are ignored. If absent, the operator's routing "
        "configuration chooses them.",
    )
    recipients: dict[str, Recipients] | None = Field(
        default=None,
        max_length=CHANNEL_LIMIT,
        json_schema_extra=_BOUNDED_NAMES,
        description="Recipients by kind of channel. Addresses under email replace those configured for the receiver; "
        "a webhook receives its own in the message. Slack ignores them: an incoming webhook posts to one place.",
    )
    retry_policy: RetryPolicy = Field(default_factory=RetryPolicy, description="When failed deliveries are retried.")
    delivery: DeliveryGuarantee = Field(
        default="AtLeastOnce",
        description="What happens if the operator dies between a call and the write of its result. AtLeastOnce "
        "repeats the call; Bounded counts each attempt before its call; AtMostOnce never repeats a call whose outcome "
        "is unknown.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=_YEAR,
        description="Seconds after completion until the request is deleted. If absent, it is kept.",
    )
    extensions: dict[str, Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None,
        max_length=EXTENSION_LIMIT,
        json_schema_extra=_BOUNDED_NAMES,
        description="Custom attributes, for routing and templates.",
    )
    action_links: list[ActionLink] | None = Field(
        default=None, max_length=LINK_LIMIT, description="Links to places where the recipient can act."
    )
    incident: Incident | None = Field(default=None, description="The incident that the request is about.")
    dry_run: bool = Field(
        default=False,
        description="Deliver nothing: the status says which channels and recipients would get the message.",
    )
    correlation_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=IDENTIFIER_LENGTH,
        description="An identifier of the caller's, for audit and tracing.",
    )
    sender: str | None = Field(
        default=None,
        min_length=1,
        max_length=IDENTIFIER_LENGTH,
        description="Who or what asks for the notification, for the audit log.",
    )

    @field_validator("recipients", "extensions")
    @classmethod
    def _bounded_names(cls, members: dict[str, Any] | None) -> dict[str, Any] | None:
        if any(len(name) > NAME_LENGTH for name in members or ()):
            raise ValueError(_NAMES_MESSAGE)
        return members


Phase = Literal["Retrying", "Sent", "PartiallySent", "Failed", "DryRun"]
"""The stored phases. A request without one is pending: it has not been reconciled yet."""

TERMINAL_PHASES: frozenset[Phase] = frozenset({"Sent", "PartiallySent", "Failed", "DryRun"})
"""The phases that never change again."""

ChannelState = Literal["Pending", "Retrying", "Delivered", "Failed", "Unknown"]
"""The states of one channel: not tried yet, waiting for a retry, and the three final states. ``Unknown`` is final under
``AtMostOnce``, when it is not known whether the message arrived."""

AttemptResult = Literal["success", "failure", "unknown"]
"""How an attempt ended. ``unknown``: it was started, and it is not known whether the receiver has the message."""


class ChannelStatus(Model):
    """The state of the delivery over one channel."""

    name: str = Field(description="Name of the channel.")
    state: ChannelState = Field(default="Pending", description="State of the delivery.")
    reason: str | None = Field(default=None, description="Machine-readable reason for the state.")
    attempts: int = Field(default=0, ge=0, description="Number of attempts so far.")
    last_attempt_time: datetime | None = Field(default=None, description="When the last attempt ended.")
    delay_seconds: float | None = Field(default=None, ge=0, description="Delay in seconds that led to nextAttemptTime.")
    next_attempt_time: datetime | None = Field(
        default=None, description="Time before which there is no further attempt."
    )
    deferred_since: datetime | None = Field(
        default=None, description="Start of the current series of deferrals without an attempt."
    )
    last_error: str | None = Field(default=None, description="Error of the last failed attempt or deferral, redacted.")


class DeliveryAttempt(Model):
    """One attempt on one channel."""

    channel: str = Field(description="Name of the channel.")
    attempt: int = Field(ge=1, description="Number of the attempt on this channel, from 1.")
    timestamp: datetime = Field(description="When the attempt started.")
    result: AttemptResult = Field(description="How the attempt ended.")
    error: str | None = Field(default=None, description="Error of a failed attempt, redacted.")
    duration_seconds: float = Field(default=0, ge=0, description="Duration of the attempt in seconds.")


class NotificationRequestStatus(ConditionedStatus):
    """The progress of the request. All other fields are derived from channels and deliveryAttempts."""

    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = ()  # the phase says more than Ready

    phase: Phase | None = Field(default=None, description="Phase of the request; absent while it is pending.")
    reason: str | None = Field(default=None, description="Machine-readable reason for the phase.")
    message: str | None = Field(default=None, description="What was delivered and what happens next, for people.")
    channels: list[ChannelStatus] = Field(
        default_factory=list,
        description="The channels of the request, fixed before the first attempt.",
        json_schema_extra=schema_extra(list_type="map", list_map_keys=("name",)),
    )
    delivery_attempts: list[DeliveryAttempt] = Field(
        default_factory=list,
        description="All attempts, at most 10 for each channel.",
        json_schema_extra=schema_extra(list_type="map", list_map_keys=("channel", "attempt")),
    )
    total_attempts: int = Field(default=0, ge=0, description="Number of attempts on all channels.")
    successful_deliveries: int = Field(default=0, ge=0, description="Number of channels that delivered.")
    failed_deliveries: int = Field(
        default=0, ge=0, description="Number of channels that were tried or given up and have not delivered."
    )
    next_step: str | None = Field(default=None, description="What happens next: an attempt, the deletion, or none.")
    next_step_time: datetime | None = Field(default=None, description="When it happens; absent for now, or for none.")
    queued_at: datetime | None = Field(default=None, description="When the request was first reconciled.")
    completion_time: datetime | None = Field(default=None, description="When the request reached its final phase.")


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
        PrinterColumn("Next", ".status.nextStep"),
        PrinterColumn("At", ".status.nextStepTime", type="string"),
        PrinterColumn("Reason", ".status.reason", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
    ),
    rules=(
        rule(
            "self.spec == oldSelf.spec",
            message="spec is immutable: delete the request and create another one",
            field_path=".spec",
        ),
    ),
):
    """NotificationRequest is a message to deliver over one or more channels, with retries."""


PATTERN_LIMIT = 256
"""Maximum patterns in a list."""

Pattern = Annotated[str, Field(min_length=1, max_length=320, pattern=r"^[^\s?\[\]]+$")]
"""A value in which ``*`` stands for any characters."""

Patterns = Annotated[list[Pattern], Field(max_length=PATTERN_LIMIT)]


class ChannelPolicySpec(Model):
    """The restrictions of the requests in some namespaces. A field that is absent restricts nothing."""

    namespaces: Patterns = Field(
        default_factory=lambda: ["*"], description="The namespaces that the policy is about; * stands for any text."
    )
    except_namespaces: Patterns = Field(
        default_factory=list, description="Namespaces that it is not about after all, such as kube-*."
    )
    channels: Patterns | None = Field(
        default=None, description="The channels that may be used, such as log or slack:team-*."
    )
    priorities: list[Priority] | None = Field(default=None, description="The priorities that may be used.")
    recipients: dict[str, Patterns] | None = Field(
        default=None,
        max_length=16,
        description="The recipients that may be named, by kind of channel, such as email: ['*@example.com']. "
        "Kinds that are not listed are not restricted.",
    )
    rate_per_minute: float | None = Field(
        default=None, gt=0, description="Maximum deliveries a minute of each namespace; others wait for their turn."
    )
    max_unfinished: int | None = Field(
        default=None, ge=1, description="Maximum unfinished requests of each namespace; more are refused."
    )


class ChannelPolicyStatus(ConditionedStatus):
    """The status of a policy. The operator writes none: a policy that the API server accepts is in use."""

    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = ()


class ChannelPolicy(
    Resource[ChannelPolicySpec, ChannelPolicyStatus],
    group="notify.reconciler.dev",
    version="v1alpha1",
    plural="channelpolicies",
    scope="Cluster",
    printer_columns=(
        PrinterColumn("Namespaces", ".spec.namespaces"),
        PrinterColumn("Channels", ".spec.channels"),
        PrinterColumn("Rate", ".spec.ratePerMinute"),
        PrinterColumn("Unfinished", ".spec.maxUnfinished"),
        PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
    ),
):
    """ChannelPolicy restricts which channels, recipients and priorities the requests of namespaces may use."""


CONFIG_LIMIT = 1_048_576
"""Maximum characters of a configuration, as in a file."""

ERROR_LIMIT = 20
"""Maximum errors that the status lists."""


class RoutingConfigSpec(Model):
    """The configuration."""

    config: str = Field(
        min_length=1,
        max_length=CONFIG_LIMIT,
        description="YAML in Alertmanager's format, with route and receivers, as in a routing file.",
    )


class RoutingError(Model):
    """One error of a configuration."""

    line: int = Field(ge=0, description="Line in spec.config, from 1; 0 for the whole.")
    place: str = Field(default="", description="Path of the value, such as route.routes[0].receiver.")
    message: str = Field(description="What is wrong, and what to do.")


class RoutingConfigStatus(ConditionedStatus):
    """The validity of the configuration, and its errors."""

    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = ()  # Valid says it

    valid: bool | None = Field(default=None, description="Whether the latest configuration is valid, and so in use.")
    active_generation: int | None = Field(default=None, description="Generation of the configuration that is in use.")
    in_force_since: datetime | None = Field(default=None, description="Since when that generation is in use.")
    errors: list[RoutingError] = Field(
        default_factory=list, description="All errors of the latest configuration, at most 20."
    )


class RoutingConfigObject(
    Resource[RoutingConfigSpec, RoutingConfigStatus],
    group="notify.reconciler.dev",
    version="v1alpha1",
    kind="RoutingConfig",
    scope="Cluster",
    printer_columns=(
        PrinterColumn("Valid", ".status.valid"),
        PrinterColumn("In use since", ".status.inForceSince", type="date"),
        PrinterColumn("Error", ".status.errors[0].message"),
        PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
    ),
):
    """RoutingConfig is a routing configuration of the notification operator."""
