"""Name the errors of this room.

The tree, under `reconciler.errors.ReconcilerError`::

    ControllerError
    ├── NotBound             a reconciler's client, events or name was used before it belonged to a controller
    ├── CacheSyncTimeout     the watched kinds could not be listed in time
    ├── ReconcileTimeout     a reconcile did not end within its time
    └── ReconcileCancelled   a reconcile in a thread is to stop: its time is up, or the controller stops
"""

from __future__ import annotations

from reconciler.errors import ReconcilerError

__all__ = ["CacheSyncTimeout", "ControllerError", "NotBound", "ReconcileCancelled", "ReconcileTimeout"]


class ControllerError(ReconcilerError):
    """Be the base of the errors that controllers raise on purpose."""


class NotBound(ControllerError):
    """Say that a reconciler was used before it belonged to a controller, and what to do."""


class CacheSyncTimeout(ControllerError):
    """Say which watched kind could not be listed in time, and the last error of trying."""


class ReconcileTimeout(ControllerError):
    """Say that a reconcile did not end within the controller's ``timeout``."""


class ReconcileCancelled(ControllerError):
    """Tell a reconcile that runs in a thread to stop: its time is up, or the controller stops.

    Raised by `Reconciler.wait` in that thread. Let it pass: the key stays in hand until the thread has ended.
    """
