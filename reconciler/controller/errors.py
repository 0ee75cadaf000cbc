"""The errors of controllers.

The tree, under `reconciler.errors.ReconcilerError`::

    ControllerError
    ├── NotBound             a reconciler was used without a controller
    ├── CacheSyncTimeout     a watched kind could not be listed in time
    ├── ObjectMoved          a write was refused: the object has moved to another shard
    ├── ReconcileTimeout     a reconcile took too long
    └── ReconcileCancelled   its thread must stop
"""

from __future__ import annotations

from reconciler.errors import ReconcilerError

__all__ = ["CacheSyncTimeout", "ControllerError", "NotBound", "ObjectMoved", "ReconcileCancelled", "ReconcileTimeout"]


class ControllerError(ReconcilerError):
    """The base class of the errors that controllers raise."""


class NotBound(ControllerError):
    """A reconciler was used before it belonged to a controller, such as its client; the message says what to do."""


class CacheSyncTimeout(ControllerError):
    """A watched kind could not be listed in time; the message has the kind and the last error."""


class ObjectMoved(ControllerError):
    """A write of a reconcile was refused because its object moved to another shard meanwhile. Nothing was sent."""


class ReconcileTimeout(ControllerError):
    """A reconcile did not end within the controller's ``timeout``."""


class ReconcileCancelled(ControllerError):
    """A reconcile that runs in a thread must stop: its timeout expired, or the controller stops.

    `Reconciler.wait` raises it in that thread. Do not catch it: the key stays in progress until the thread has ended.
    """
