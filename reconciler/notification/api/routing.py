"""The kind RoutingConfig: a routing configuration as an object, with its validity in the status."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from reconciler.objects import ConditionedStatus, Model, PrinterColumn, Resource

__all__ = ["RoutingConfigObject", "RoutingConfigSpec", "RoutingConfigStatus", "RoutingError"]

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
