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

_NAMES = {
    "_version": "__version__",
    "client": "Client",
    "controller": "ControllerOptions Outcome Permission Reconciler ResourceReconciler Result Watch effect",
    "errors": "TerminalError",
    "manager": "Manager",
    "meta": "Request",
    "objects": "Condition ConditionedStatus Model ObjectMeta Resource Unstructured",
    "recording": "Recording",
    "status": "StatusBatcher",
}
"""The names that each room provides, separated by spaces."""


if not TYPE_CHECKING:  # otherwise type checkers accept every name; by itself, since this import loads nothing else

    def __getattr__(name: str) -> object:
        home = next((room for room, names in _NAMES.items() if name in names.split()), None)
        if home is None:
            raise AttributeError(f"module 'reconciler' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f"reconciler.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
