"""Examples, ported operators and the projects of ``reconciler new`` survive what explorations do to them."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from examples import database_operator, typed_operator
from reconciler import ObjectMeta
from reconciler.cli.project import new
from reconciler.objects import Quantity
from reconciler.testing.explore import Budget, World
from reconciler.testing.explore.exploration import Exploration
from reconciler.testing.explore.run import Subject
from tests.depth import THOROUGH
from tests.explore.ported import children, cronjob

FEW = "Budget(runs=12)"
NAMED = ObjectMeta(name="a", namespace="default")


async def databases(world: World) -> None:
    """Create, resize and delete a database."""
    spec = database_operator.DatabaseSpec(size=3)
    made = await world.create(database_operator.Database(metadata=NAMED, spec=spec))
    await world.settle()
    await world.patch(made, {"spec": {"size": 5}})
    await world.settle()
    await world.delete(made)


async def caches(world: World) -> None:
    """Create, scale and delete a cache."""
    spec = typed_operator.CacheSpec(memory=Quantity("1Gi"), replicas=2)
    made = await world.create(typed_operator.Cache(metadata=NAMED, spec=spec))
    await world.settle()
    await world.patch(made, {"spec": {"replicas": 3}})
    await world.settle()
    await world.delete(made)


@pytest.mark.parametrize(
    ("operator", "scenario", "options"),
    [
        (database_operator.DatabaseReconciler, databases, {"owns": ["apps/v1/Deployment"]}),
        (typed_operator.add_controllers, caches, {}),
        (cronjob.CronJobReconciler, cronjob.two_runs, {"owns": [cronjob.JOB]}),
        (children.KopfExampleReconciler, children.life, {"owns": [children.POD]}),
    ],
)
def test_an_example_survives(
    operator: object, scenario: Callable[[World], Awaitable[None]], options: dict[str, Any]
) -> None:
    survives(Subject(operator, scenario, options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("explored_site", {}),
        ("explored_by_key", {"by_key": True}),
        ("explored_bucket", {"external": True}),
    ],
)
def test_a_new_project_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, bool]
) -> None:
    new(name, directory=tmp_path / name, kind="Site", versions="v1", **options)
    test = tmp_path / name / "tests" / "test_site_survives.py"
    text = test.read_text()
    assert "Budget(runs=30)" in text
    test.with_name(f"test_{name}.py").write_text(text.replace("Budget(runs=30)", "Budget()" if THOROUGH else FEW))
    for folder in (tmp_path / name, test.parent):
        monkeypatch.syspath_prepend(str(folder))
    importlib.import_module(f"test_{name}").test_site_survives()


def survives(subject: Subject) -> None:
    budget = None if THOROUGH else Budget(runs=12)
    outcome = Exploration(subject, budget=budget).explore()
    assert [str(finding) for failure in outcome.failures for finding in failure.findings] == []
