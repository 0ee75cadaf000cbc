"""The kind ChannelPolicy: what namespaces may do with the operator's channels."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from reconciler.notification.api.types import Priority
from reconciler.objects import ConditionedStatus, Model, PrinterColumn, Resource

__all__ = ["ChannelPolicy", "ChannelPolicySpec", "ChannelPolicyStatus"]

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
