"""Run reconcilers: what wakes them, what they are handed, and what becomes of what they return.

Subclass `ResourceReconciler` for objects of one kind, or `Reconciler` for bare keys; a `Controller` (made by
``Manager.add_controller``) does the rest. It promises:

* A key is reconciled by one worker at a time, and again if anything happened meanwhile that the cycle has not seen.
* **The cycle's own status and finalizer writes do not wake it; every other change does**, also one that arrives at the
  same moment, in the same event, or by a list after a lost watch. See `_echo`.
* The outcome of the latest cycle owns the key's one timer; any run consumes it. Errors back off, per key.
* No exception, timeout or strange cancellation of a reconcile ends a worker; they are contained, counted and logged
  with the run's id and reasons. What is no exception, such as `SystemExit`, is raised by `Controller.finished`.
* Workers start when every handler has heard of everything that was there. When `Controller.stop` returns, no reconcile,
  thread or flush is left, unless it was abandoned.
* Status mutations that could not be saved go out with the object's next cycle.
"""

from reconciler.controller.controller import Controller
from reconciler.controller.errors import (
    CacheSyncTimeout,
    ControllerError,
    NotBound,
    ReconcileCancelled,
    ReconcileTimeout,
)
from reconciler.controller.metrics import ControllerMetrics, ReconcileResult
from reconciler.controller.permissions.permissions import AccessRule, Permission, Verb
from reconciler.controller.reconcile.cycle import ReconcileRun, current_run
from reconciler.controller.reconcile.finalizer import ensure_finalizer, release_finalizer
from reconciler.controller.reconcile.unsaved import UnsavedStatistics
from reconciler.controller.reconciler import Reconciler
from reconciler.controller.resource_reconciler import ResourceReconciler
from reconciler.controller.result import Outcome, Result
from reconciler.controller.statistics import ControllerStatistics
from reconciler.controller.wake.custom_sources import ChannelSource, Enqueue, Source, SourceLike
from reconciler.controller.wake.echo import EchoStatistics
from reconciler.controller.wake.predicates import (
    Predicate,
    annotations_changed,
    generation_changed,
    labels_changed,
    labels_match,
    resource_version_changed,
)
from reconciler.controller.wake.responsibility import Responsibility
from reconciler.controller.wake.sources import FAN_OUT, LOW_PRIORITY
from reconciler.controller.wake.watches import Mapper, OwnerMapper, Watch, controller_owner, every_owner

__all__ = [
    "FAN_OUT",
    "LOW_PRIORITY",
    "AccessRule",
    "CacheSyncTimeout",
    "ChannelSource",
    "Controller",
    "ControllerError",
    "ControllerMetrics",
    "ControllerStatistics",
    "EchoStatistics",
    "Enqueue",
    "Mapper",
    "NotBound",
    "Outcome",
    "OwnerMapper",
    "Permission",
    "Predicate",
    "ReconcileCancelled",
    "ReconcileResult",
    "ReconcileRun",
    "ReconcileTimeout",
    "Reconciler",
    "ResourceReconciler",
    "Responsibility",
    "Result",
    "Source",
    "SourceLike",
    "UnsavedStatistics",
    "Verb",
    "Watch",
    "annotations_changed",
    "controller_owner",
    "current_run",
    "ensure_finalizer",
    "every_owner",
    "generation_changed",
    "labels_changed",
    "labels_match",
    "release_finalizer",
    "resource_version_changed",
]
