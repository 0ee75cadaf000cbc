"""The documented metrics, the Grafana dashboard and the alerts match the metrics that a running manager exports."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.manager import LeaderElection
from reconciler.manager.lifecycle import CANCEL_TIMEOUT, SYNC_TIMEOUT
from tests.manager.working import RecordingReconciler, config_map

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "examples" / "grafana" / "controllers.json"
PAGE = ROOT / "docs" / "running-in-production.md"
METRICS = ROOT / "docs" / "metrics.md"

SELECTED = re.compile(r"([a-z_]+)\{([^}]*)\}")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GIVEN_BY_PROMETHEUS = {"job", "pod", "namespace"}


def expressions_of_the_dashboard() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def expressions_of_the_alerts() -> list[str]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (rules,) = [found for block in blocks for found in yaml.safe_load_all(block) if found["kind"] == "PrometheusRule"]
    return [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]


def test_documented_deployment_fits_the_manager() -> None:
    documents = [
        doc
        for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
        for doc in yaml.safe_load_all(block)
    ]
    (deployment,) = [each for each in documents if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    assert {name: each["httpGet"]["path"] for name, each in probes.items()} == {
        "startup": "/readyz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {each["httpGet"]["port"] for each in probes.values()} <= {each["name"] for each in container["ports"]}
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] > SYNC_TIMEOUT
    grace = inspect.signature(Manager).parameters["grace_period"].default
    assert pod["terminationGracePeriodSeconds"] >= grace + CANCEL_TIMEOUT + 2


def test_every_metric_of_this_library_has_a_table() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "reconciler").rglob("*.py")))
    names = set(re.findall(r'"(reconciler_[a-z_]+)"', source))
    assert len(names) > 15
    prefixes = tuple(" ".join(re.findall(r"^```{metrics} (.*)$", METRICS.read_text(), re.MULTILINE)).split())
    assert {name for name in names if not name.startswith(prefixes)} == set()


@pytest.mark.virtual_time
async def test_every_metric_and_label_in_dashboard_and_alerts_is_exported(server: APIServer, client: Client) -> None:
    manager = Manager(client, leader_election=LeaderElection("operator", namespace="default"))
    manager.add_controller(RecordingReconciler(), resource="v1/ConfigMap")
    async with manager.running():
        await client.create(config_map("a"))
        await asyncio.sleep(1)
        told = manager.metrics.render()[1].decode()
    known: dict[str, set[str]] = {}
    for line in told.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition(" ")[0].partition("{")
            known.setdefault(name, set()).update(re.findall(r'(\w+)="', rest if "{" in line else ""))
    asked: list[Any] = [
        match
        for expr in expressions_of_the_dashboard() + expressions_of_the_alerts()
        for match in SELECTED.findall(expr)
    ]
    assert len({name for name, _ in asked}) > 20
    for name, selector in asked:
        assert name in known, name
        assert set(LABEL.findall(selector)) - GIVEN_BY_PROMETHEUS <= known[name], (name, selector)
    for expr in expressions_of_the_dashboard() + expressions_of_the_alerts():
        grouped = {label.strip() for labels in GROUPED.findall(expr) for label in labels.split(",")}
        for name, _ in SELECTED.findall(expr.partition("unless on")[0]):  # the others only exclude series
            assert grouped - GIVEN_BY_PROMETHEUS <= known[name], (expr, name)


def test_every_metric_in_an_expression_has_a_selector() -> None:
    """Otherwise the test above would not find it."""
    for expr in expressions_of_the_dashboard() + expressions_of_the_alerts():
        names = re.findall(
            r"\b(?:controller_runtime|workqueue|reconciler|rest_client|leader_election|process)_\w+", expr
        )
        assert set(names) == {name for name, _ in SELECTED.findall(expr)}, expr
