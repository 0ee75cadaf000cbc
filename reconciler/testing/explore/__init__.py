"""Exploration of an operator: every crash, late view and lost response of a scenario, and what must be true after it.

`operator` makes a pytest test of a scenario; `World` is what the scenario gets. `states` makes one of all specs of a
kind, which `objects` draws.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from reconciler.testing.explore.exploration import Budget
from reconciler.testing.explore.pytest_tests import ExplorationFailed, operator
from reconciler.testing.world import World

if TYPE_CHECKING:
    from reconciler.testing.explore.state_space import states
    from reconciler.testing.explore.strategies import objects

__all__ = ["Budget", "ExplorationFailed", "World", "objects", "operator", "states"]

_WITH_HYPOTHESIS = {"objects": "strategies", "states": "state_space"}  # explorations do not need it


if not TYPE_CHECKING:  # otherwise type checkers accept every name

    def __getattr__(name: str) -> object:
        if name in _WITH_HYPOTHESIS:
            found = getattr(importlib.import_module(f"{__name__}.{_WITH_HYPOTHESIS[name]}"), name)
            globals()[name] = found
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
