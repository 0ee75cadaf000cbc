"""Explorations find the bugs that Sieve, Acto and Anvil found in real operators, and nothing in the mended forms."""

from __future__ import annotations

import pytest

from reconciler.testing.explore import Budget
from reconciler.testing.explore.exploration import Exploration
from reconciler.testing.explore.run import Subject
from reconciler.testing.explore.state_space import StateSpace
from reconciler.testing.explore.strategies import schema_of
from reconciler.testing.world import World
from tests.depth import THOROUGH
from tests.explore.archetypes import crashes, outside, views
from tests.explore.archetypes.specs import STATE_ARCHETYPES, StateArchetype
from tests.explore.archetypes.stores import Archetype, Store

ARCHETYPES = [*crashes.ARCHETYPES, *outside.ARCHETYPES, *views.ARCHETYPES]
RUNS_IN_THE_GATE = 8
EXAMPLES = 2


def named(archetype: Archetype | StateArchetype) -> str:
    return str(archetype.broken.__name__)


def exploration(archetype: Archetype, operator: object, budget: Budget | None = None) -> Exploration:
    options = {"owns": archetype.owns} | ({"resource": archetype.resource} if archetype.resource else {})
    subject = Subject(operator, archetype.scenario, options)
    return Exploration(subject, budget=budget, shrinking=0)  # shrinking costs more than finding


@pytest.mark.parametrize("archetype", ARCHETYPES, ids=named)
def test_its_bug_is_found_with_the_default_budget(archetype: Archetype) -> None:
    [failure] = exploration(archetype, archetype.broken).explore().failures
    assert archetype.found_by in {finding.oracle for finding in failure.findings}, failure.findings


@pytest.mark.parametrize("archetype", ARCHETYPES, ids=named)
def test_nothing_is_found_in_the_mended_form(archetype: Archetype) -> None:
    budget = None if THOROUGH else Budget(runs=RUNS_IN_THE_GATE)
    outcome = exploration(archetype, archetype.mended, budget).explore()
    assert [str(finding) for failure in outcome.failures for finding in failure.findings] == []


@pytest.mark.parametrize("archetype", STATE_ARCHETYPES, ids=named)
def test_its_bug_is_found_on_the_way_through_the_specs(archetype: StateArchetype) -> None:
    def walk(operator: object) -> set[str]:
        space = StateSpace(schema_of(Store), lambda: World(operator, owns=["v1/ConfigMap"]))
        return {finding.oracle for finding in space.explore(EXAMPLES).findings}

    assert walk(archetype.broken) & archetype.found_by
    assert walk(archetype.mended) == set()


def test_there_are_many() -> None:
    assert len({*map(named, [*ARCHETYPES, *STATE_ARCHETYPES])}) >= 24
