"""The manual is complete, and its examples are valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry

from reconciler.cli.app import app
from reconciler.notification import (
    AuditLog,
    Message,
    NotificationMetrics,
    NotificationReconciler,
    NotificationRequest,
    NotificationRequestSpec,
    RetryPolicy,
)
from reconciler.notification.api import (
    ActionLink,
    AttemptResult,
    ChannelPolicySpec,
    ChannelState,
    ChannelStatus,
    DeliveryAttempt,
    DeliveryGuarantee,
    Incident,
    NotificationRequestStatus,
    NotificationType,
    Priority,
    RoutingConfigSpec,
    RoutingConfigStatus,
    RoutingError,
)
from reconciler.notification.channel import ChannelRegistry, IncidentAction
from reconciler.notification.channels.services import RECEIVER_KINDS
from reconciler.notification.router import RoutingTable
from reconciler.notification.routing_config import read_routing
from reconciler.objects import Model

ROOT = Path(__file__).parents[2]
PAGES = {page.stem: page.read_text() for page in (ROOT / "docs").glob("notification*.md")}
MANUAL = "".join(PAGES.values())


def examples(page: str) -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL)]


def wire_names(model: type[Model]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def quoted(name: str) -> bool:
    return re.search(rf"`[^`\n]*\b{re.escape(name)}\b[^`\n]*`", MANUAL) is not None


def shown(value: object) -> str:
    """Return a default as the manual writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize(
    "model",
    [
        NotificationRequestSpec,
        RetryPolicy,
        ActionLink,
        ChannelPolicySpec,
        RoutingConfigSpec,
        RoutingConfigStatus,
        RoutingError,
        Incident,
        NotificationRequestStatus,
        ChannelStatus,
        DeliveryAttempt,
    ],
)
def test_every_field_is_in_the_manual(model: type[Model]) -> None:
    assert {name for name in wire_names(model) if not quoted(name)} == set()


@pytest.mark.parametrize(
    "values", [NotificationType, Priority, DeliveryGuarantee, ChannelState, AttemptResult, IncidentAction]
)
def test_every_value_is_in_the_manual(values: Any) -> None:
    assert {value for value in get_args(values) if not quoted(value)} == set()


def test_every_option_of_a_receiver_is_in_the_manual_with_its_default() -> None:
    for config in RECEIVER_KINDS.values():
        for name, field in config.model_fields.items():
            rows = [
                line for line in MANUAL.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]
            ]
            assert rows, name
            if field.default is not None and isinstance(field.default, (bool, str, int, float)):
                assert any(shown(field.default) in row.split("|")[2] for row in rows), name


def test_every_flag_is_in_the_manual() -> None:
    options = app["run"].assemble_argument_collection()
    flags = [each.name for each in options if each.parameter.group[0].name == "Notification operator"][1:]
    assert len(flags) > 10
    assert [flag for flag in flags if f"`{flag}" not in MANUAL] == []


def test_every_metric_is_in_the_manual(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    NotificationMetrics(registry).watch(
        reconciler=NotificationReconciler(channels=[]),
        channels=ChannelRegistry(),
        routing=RoutingTable(ChannelRegistry()),
        audit=AuditLog(tmp_path / "a"),
    )
    families = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    listed = set(re.findall(r"^\| `(notification_\w+)`", MANUAL, re.MULTILINE))
    assert families == listed


def test_every_reason_that_a_status_can_have_is_in_the_manual() -> None:
    room = ROOT / "reconciler" / "notification"
    sources = "".join((room / name).read_text() for name in ("schedule.py", "delivery.py", "policies.py"))
    sources = re.sub(r"^__all__ = \[.*?\]$", "", sources, flags=re.MULTILINE | re.DOTALL)
    known = set(re.findall(r'"([A-Z][a-z]+(?:[A-Z][a-z]+)+)"', sources))
    reasons = known - {"AtLeastOnce", "AtMostOnce", "PartiallySent", "RoutingResolved"}
    assert len(reasons) > 20
    assert {reason for reason in reasons if f"`{reason}`" not in MANUAL} == set()


def test_every_attribute_of_a_message_is_in_the_manual() -> None:
    names = {name for name in Message.__dataclass_fields__ if not name.startswith("_")}
    assert {name for name in names if not quoted(name)} == set()


def test_the_request_of_the_manual_is_valid_and_has_the_documented_defaults() -> None:
    (request,) = (block for block in examples("notification") if block.get("kind") == "NotificationRequest")
    spec = NotificationRequest.from_dict(request).spec
    policy = spec.retry_policy
    for name, value in {**spec.model_dump(by_alias=True), **policy.model_dump(by_alias=True)}.items():
        if isinstance(value, (str, int, float)) and name not in {"type", "subject", "body"}:
            row = next(line for line in MANUAL.splitlines() if re.match(rf"\| `(retryPolicy\.)?{name}`", line))
            assert row.split("|")[2].strip().strip("`") == shown(value)


def test_the_routing_of_the_manual_is_valid_and_matches_its_comments() -> None:
    (routing,) = (block for block in examples("notification-routing") if {"route", "receivers"} <= block.keys())
    config = read_routing(yaml.safe_dump(routing), kinds=RECEIVER_KINDS, channels=["log"])
    assert config.route.receivers({"priority": "Critical", "team": "storage"}) == ("on-call", "storage")
    assert config.route.receivers({"team": "storage", "env": "dev"}) == ("everybody",)
