"""Declare the options of the notification operator; what they mean stands in `NotificationOptions`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["NotificationFlags"]


@Parameter(name="*", group="Notification operator")
@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFlags:
    """Hold what a person chose for the notification operator."""

    notification_directory: Annotated[
        Path | None, Parameter(help="Where the channel 'file' writes; the channel is off unless given.")
    ] = None
    credentials: Annotated[
        Path | None, Parameter(help="Directory with the credentials of receivers, a file each: a mounted Secret.")
    ] = None
    routing_file: Annotated[
        Path | None, Parameter(help="Routing configuration; followed, and exchanged without a restart.")
    ] = None
    routing_config_map: Annotated[
        str | None, Parameter(help="NAMESPACE/NAME of a ConfigMap with it under 'routing.yaml'.")
    ] = None
    audit_file: Annotated[Path | None, Parameter(help="Where a line is written for each attempt and each end.")] = None
    console: Annotated[bool, Parameter(help="Whether there is the channel 'console'.")] = True
    log_channel: Annotated[bool, Parameter(help="Whether there is the channel 'log'.")] = True
    delivery_timeout: Annotated[
        float, Parameter(help="Seconds that one delivery may take.", validator=Number(gt=0))
    ] = 30.0
    max_deliveries: Annotated[int, Parameter(help="Most deliveries at a time.", validator=Number(gte=1))] = 64
