"""The payload of Alertmanager's webhook (version 4) and of Grafana's, which extends it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["Alert", "AlertGroup"]

ALERT_LIMIT = 10_000
"""Maximum alerts of a group."""


class _Payload(BaseModel):
    """A part of a payload; unknown members are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Alert(_Payload):
    """One alert of a group. The last three members are Grafana's."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    starts_at: str = ""
    fingerprint: str = ""
    generator_url: str = Field(default="", alias="generatorURL")
    dashboard_url: str = Field(default="", alias="dashboardURL")
    panel_url: str = Field(default="", alias="panelURL")
    silence_url: str = Field(default="", alias="silenceURL")

    @property
    def identity(self) -> str:
        """Return what stays the same while the alert fires, and differs when it fires again."""
        known = self.fingerprint or repr(sorted(self.labels.items()))
        return f"{known}@{self.starts_at}"


class AlertGroup(_Payload):
    """A group of alerts. `title`, `message` and `org_id` are Grafana's."""

    group_key: str = Field(min_length=1)
    status: Literal["firing", "resolved"]
    receiver: str = ""
    alerts: list[Alert] = Field(min_length=1, max_length=ALERT_LIMIT)
    group_labels: dict[str, str] = Field(default_factory=dict)
    common_labels: dict[str, str] = Field(default_factory=dict)
    common_annotations: dict[str, str] = Field(default_factory=dict)
    external_url: str = Field(default="", alias="externalURL")
    truncated_alerts: int = 0
    title: str = ""
    message: str = ""
    org_id: Any = None
