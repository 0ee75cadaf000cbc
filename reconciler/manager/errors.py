"""The errors of managers.

The tree, under `reconciler.errors.ReconcilerError`::

    ManagerError
    ├── GracePeriodExceeded   something did not stop within the grace period
    ├── LeadershipLost        the lease was not renewed in time, or another process holds it
    └── NotLeader             a write was refused locally, because this process is not the leader
"""

from __future__ import annotations

from reconciler.errors import ReconcilerError


class ManagerError(ReconcilerError):
    """The base class of a manager's errors; raised itself for a call in the wrong state."""


class GracePeriodExceeded(ManagerError):
    """Something did not stop within the grace period; the message names it."""


class LeadershipLost(ManagerError):
    """This process is no longer the leader. It must exit; a new process takes part in the election."""


class NotLeader(ManagerError):
    """A write, or another effect, was refused because this process is not the leader. Nothing was sent."""
