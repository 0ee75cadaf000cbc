"""A Kubernetes controller runtime: queue, cache, client, controller, manager, and one status write per reconcile.

The names that most users need are re-exported here and loaded on first use. The packages, in reading order:
`reconciler.controller` (the base classes of your reconcilers), `reconciler.status` (the batcher), `reconciler.manager`
(the process), `reconciler.client` and `reconciler.cache`, `reconciler.workqueue`, `reconciler.objects`; for tests,
`reconciler.apiserver` and `reconciler.testing`. `reconciler.notification` is an operator built on all of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler._version import __version__
    from reconciler.client import Client
    from reconciler.controller import (
        ControllerOptions,
        Outcome,
        Permission,
        Reconciler,
        ResourceReconciler,
        Result,
        Watch,
        effect,
    )
    from reconciler.errors import TerminalError
    from reconciler.manager import Manager
    from reconciler.meta import Request
    from reconciler.objects import Condition, ConditionedStatus, Model, ObjectMeta, Resource, Unstructured
    from reconciler.recording import Recording
    from reconciler.status import StatusBatcher

__all__ = [
    "Client",
    "Condition",
    "ConditionedStatus",
    "ControllerOptions",
    "Manager",
    "Model",
    "ObjectMeta",
    "Outcome",
    "Permission",
    "Reconciler",
    "Recording",
    "Request",
    "Resource",
    "ResourceReconciler",
    "Result",
    "StatusBatcher",
    "TerminalError",
    "Unstructured",
    "Watch",
    "__version__",
    "effect",
]

_HOMES = {
    "Client": "reconciler.client",
    "Condition": "reconciler.objects",
    "ConditionedStatus": "reconciler.objects",
    "ControllerOptions": "reconciler.controller",
    "Manager": "reconciler.manager",
    "Model": "reconciler.objects",
    "ObjectMeta": "reconciler.objects",
    "Outcome": "reconciler.controller",
    "Permission": "reconciler.controller",
    "Reconciler": "reconciler.controller",
    "Recording": "reconciler.recording",
    "Request": "reconciler.meta",
    "Resource": "reconciler.objects",
    "ResourceReconciler": "reconciler.controller",
    "Result": "reconciler.controller",
    "StatusBatcher": "reconciler.status",
    "TerminalError": "reconciler.errors",
    "Unstructured": "reconciler.objects",
    "Watch": "reconciler.controller",
    "__version__": "reconciler._version",
    "effect": "reconciler.controller",
}


if not TYPE_CHECKING:  # otherwise type checkers accept every name

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'reconciler' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
