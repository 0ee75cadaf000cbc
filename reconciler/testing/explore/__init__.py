"""Exploration of an operator: every crash, late view and lost response of a scenario, and what must be true after it.

`operator` makes a pytest test of a scenario; `World` is what the scenario gets. `states` makes one of all specs of a
kind, which `objects` draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler._core import lazy_names as _lazy_names
from reconciler.testing.explore.exploration import Budget
from reconciler.testing.explore.pytest_tests import ExplorationFailed, operator
from reconciler.testing.world import World

if TYPE_CHECKING:
    from reconciler.testing.explore.state_space import states
    from reconciler.testing.explore.strategies import objects

__all__ = ["Budget", "ExplorationFailed", "World", "objects", "operator", "states"]

if not TYPE_CHECKING:  # otherwise type checkers accept every name
    # Explorations do not need Hypothesis.
    __getattr__ = _lazy_names(__name__, {"strategies": "objects", "state_space": "states"})
