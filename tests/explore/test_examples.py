"""The library's own examples survive what explorations do to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from examples import database_operator, typed_operator
from reconciler import ObjectMeta
from reconciler.objects import Quantity
from reconciler.testing.explore import Budget, World
from reconciler.testing.explore.exploration import Exploration
from reconciler.testing.explore.run import Subject
from tests.depth import THOROUGH

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
    ],
)
def test_an_example_survives(
    operator: object, scenario: Callable[[World], Awaitable[None]], options: dict[str, Any]
) -> None:
    budget = None if THOROUGH else Budget(runs=12)
    outcome = Exploration(Subject(operator, scenario, options), budget=budget).explore()
    assert [str(finding) for failure in outcome.failures for finding in failure.findings] == []
