"""Exploration of an operator: every crash, late view and lost response of a scenario, and what must be true after it.

`operator` makes a pytest test of a scenario; `World` is what the scenario gets. `states` makes one of all specs of a
kind, which `objects` draws.
"""

from reconciler.testing.explore.exploration import Budget
from reconciler.testing.explore.pytest_tests import ExplorationFailed, operator
from reconciler.testing.explore.states import states
from reconciler.testing.explore.strategies import objects
from reconciler.testing.world import World

__all__ = ["Budget", "ExplorationFailed", "World", "objects", "operator", "states"]
