"""The behavior of an API server that a controller can notice, case by case; each theme has a module."""

import importlib
import pkgutil

from tests.conformance.cases._case import CASES, Case

__all__ = ["CASES", "Case"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
