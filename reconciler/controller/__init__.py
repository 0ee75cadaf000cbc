"""Controllers and reconcilers: what enqueues keys, how they are reconciled, and what follows from the outcome.

Subclass `ResourceReconciler` for objects of one kind, or `Reconciler` for bare keys. A `Controller` (made by
``Manager.add_controller``) does the rest. The guarantees:

* A key is reconciled by one worker at a time, and again if anything happened in between that the reconcile has not
  observed.
* **A reconcile's own status and finalizer writes do not wake the controller; every other change does**, also one that
  comes at the same moment, in the same event, or by a list after a lost watch. The docstring of ``wake/echo.py`` has
  the proof.
* The outcome of the latest reconcile sets the key's only timer, and every reconcile clears it. Errors have a backoff
  per key.
* No exception, timeout or unexpected cancellation of a reconcile ends a worker; they are contained, counted and logged
  with the reconcile's id and reasons. `Controller.finished` raises a BaseException that is not an Exception, such as
  `SystemExit`.
* Workers start when every handler has received all existing objects. When `Controller.stop` returns, no reconcile,
  thread or flush is left, unless it was abandoned.
* Status mutations that could not be saved are written with the object's next reconcile.
"""

from reconciler.controller.controller import Controller
from reconciler.controller.effects import effect
from reconciler.controller.options import ControllerOptions
from reconciler.controller.permissions import Permission
from reconciler.controller.reconcile.cycle import current_run
from reconciler.controller.reconciler import Reconciler
from reconciler.controller.resource_reconciler import ResourceReconciler, ensure_finalizer, release_finalizer
from reconciler.controller.result import (
    CacheSyncTimeout,
    ObjectMoved,
    Outcome,
    ReconcileCancelled,
    ReconcileTimeout,
    Result,
)
from reconciler.controller.wake.predicates import (
    Predicate,
    ShardFilter,
    annotations_changed,
    generation_changed,
    labels_changed,
    labels_match,
    resource_version_changed,
)
from reconciler.controller.wake.watches import ChannelSource, Enqueue, Watch, every_owner

__all__ = [
    "CacheSyncTimeout",
    "ChannelSource",
    "Controller",
    "ControllerOptions",
    "Enqueue",
    "ObjectMoved",
    "Outcome",
    "Permission",
    "Predicate",
    "ReconcileCancelled",
    "ReconcileTimeout",
    "Reconciler",
    "ResourceReconciler",
    "Result",
    "ShardFilter",
    "Watch",
    "annotations_changed",
    "current_run",
    "effect",
    "ensure_finalizer",
    "every_owner",
    "generation_changed",
    "labels_changed",
    "labels_match",
    "release_finalizer",
    "resource_version_changed",
]
