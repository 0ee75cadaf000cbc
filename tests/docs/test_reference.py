"""The reference names what the code has: metrics with their labels, Events, and the commands."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
from pathlib import Path
from typing import get_args

import pytest

import reconciler
import reconciler.controller
from docs._extensions import demo_picture, reference
from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.controller.wake import predicates
from reconciler.manager import LeaderElection
from reconciler.notification import NotificationMetrics
from reconciler.status.writer import Strategy
from tests.manager.working import RecordingReconciler, config_map

DOCS = Path(__file__).parents[2] / "docs"
CODE = Path(reconciler.__file__).parent


@pytest.mark.virtual_time
async def test_every_exported_metric_is_in_the_table_with_its_labels(apiserver: APIServer, client: Client) -> None:
    manager = Manager(client, leader_election=LeaderElection("operator", namespace="default"))
    manager.add_controller(RecordingReconciler(), resource="v1/ConfigMap")
    NotificationMetrics(manager.metrics.registry)
    async with manager.running():
        await client.create(config_map("a"))
        await asyncio.sleep(1)
        exported = list(manager.metrics.registry.collect())
    rows = {row.name: row for row in reference.metrics()}
    compared = 0
    for family in exported:
        if family.name.startswith(("process_", "python_")):
            continue
        row = rows[family.name + "_total" * (family.type == "counter")]
        assert (row.kind, row.text) == (family.type, family.documentation.replace("20", "N"))
        for sample in family.samples:
            assert set(row.labels) == set(sample.labels) - {"le"}, family.name
            compared += 1
    assert compared > 30


def test_every_metric_is_in_one_section_of_the_page() -> None:
    sections = re.findall(r"```\{metrics\} (.*)", (DOCS / "metrics.md").read_text())
    for row in reference.metrics():
        assert len([each for each in sections if row.name.startswith(tuple(each.split()))]) == 1, row.name


def test_every_event_of_the_library_has_a_row() -> None:
    reasons = {reason for path in CODE.rglob("*.py") for reason in event_reasons(ast.parse(path.read_text()))}
    assert {"ReconcileFailed", "LeaderElection", "Unreadable"} <= reasons
    page = (DOCS / "events-and-conditions.md").read_text()
    assert {reason for reason in reasons if f"| `{reason}` | " not in page} == set()


def event_reasons(tree: ast.Module) -> set[str]:
    """Return the reasons in calls ``….warning(OBJECT, REASON, MESSAGE)``: literals, and constants of the module."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=called, value=on), args=[_, reason, _]) if called == "_warn" or (
                called in {"warning", "normal"} and "log" not in ast.unparse(on)
            ):
                value = reason.value if isinstance(reason, ast.Constant) else constants.get(ast.unparse(reason))
                found |= {value} if isinstance(value, str) else set()
    return found


def test_a_page_for_each_public_package_and_a_section_for_each_command() -> None:
    assert {"reconciler", "reconciler.status", "reconciler.notification"} <= set(reference.public_packages())
    commands = reference.command_sections()
    assert {"run", "apiserver", "routes test"} <= set(re.findall(r"^## (.*)$", commands, re.MULTILINE))
    assert "\nreconciler routes test [OPTIONS] FILE [ATTRIBUTES...]\n" in commands


def handwritten_code() -> str:
    """Return the code, in blocks and between backticks, of the pages that people write."""
    pages = [page for page in DOCS.glob("*.md") if page.name != "api-reference.md"]
    texts = [page.read_text() for page in [*pages, DOCS.parent / "README.md"]]
    return "\n".join(
        code for text in texts for code in re.findall(r"^```.*?^```|`[^`\n]+`", text, re.DOTALL | re.MULTILINE)
    )


@pytest.mark.parametrize("package", reference.public_packages())
def test_every_public_name_is_in_the_code_of_a_handwritten_page(package: str) -> None:
    words = set(re.findall(r"\w+", handwritten_code()))
    assert set(importlib.import_module(package).__all__) - words - {"__version__"} == set()


def test_the_table_of_packages_has_each_public_one() -> None:
    table = (DOCS / "api-reference.md").read_text().partition("|---|")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(reconciler[\w.]*)`", table))
    assert named == {name for name in reference.public_packages() if name.count(".") < 2}


def test_every_predicate_is_exported_and_in_the_table_of_the_page() -> None:
    table = (DOCS / "controller.md").read_text().partition("| predicate | passes |")[2].partition("\n\n")[0]
    helpers = {"ShardFilter", "Unsharded", "check_predicate"}
    defined = {
        name
        for name, value in vars(predicates).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == predicates.__name__
    }
    assert {name for name in defined if not re.search(rf"`{name}\b", table)} == helpers
    assert defined - set(reconciler.controller.__all__) <= helpers


def test_the_page_of_the_batcher_says_when_to_choose_each_strategy() -> None:
    page = (DOCS / "status-batcher.md").read_text()
    assert [name for name in get_args(Strategy) if f'`strategy="{name}"`' not in page] == []


def test_the_picture_of_the_demo_has_its_current_texts() -> None:
    # How rich draws a terminal may change.
    shown, now = (
        re.findall(r"<text[^>]*>(.*?)</text>", svg)
        for svg in (demo_picture.PICTURE.read_text(), demo_picture.picture())
    )
    assert shown == now
    assert any("210" in text for text in shown)
