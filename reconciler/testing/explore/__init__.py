"""Exploration of an operator: every crash, late view and lost response of a scenario, and what must be true after it.

`operator` makes a pytest test of a scenario; `World` is what the scenario gets. `objects` draws objects of a kind.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from reconciler.testing.explore.exploration import Budget
from reconciler.testing.explore.pytest_tests import ExplorationFailed, operator
from reconciler.testing.world import World

if TYPE_CHECKING:
    from reconciler.testing.explore.strategies import objects

__all__ = ["Budget", "ExplorationFailed", "World", "objects", "operator"]


if not TYPE_CHECKING:  # otherwise type checkers accept every name

    def __getattr__(name: str) -> object:
        if name == "objects":  # loads hypothesis, which explorations do not need
            return importlib.import_module("reconciler.testing.explore.strategies").objects
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
