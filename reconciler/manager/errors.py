"""Name the errors of this room.

The tree, under `reconciler.errors.ReconcilerError`::

    ManagerError
    ├── GracePeriodExceeded   something had not ended when the grace period was over
    ├── LeadershipLost        the lease could not be renewed in time, or another process holds it
    └── NotLeader             a write was refused here, because this process does not lead (any more)
"""

from __future__ import annotations

from reconciler.errors import ReconcilerError

__all__ = ["GracePeriodExceeded", "LeadershipLost", "ManagerError", "NotLeader"]


class ManagerError(ReconcilerError):
    """Be the base of the errors that managers raise on purpose; raised itself for a call at the wrong time."""


class GracePeriodExceeded(ManagerError):
    """Say what had not ended when the grace period was over."""


class LeadershipLost(ManagerError):
    """Say why this process leads no more; it must end, and start anew to take part again."""


class NotLeader(ManagerError):
    """Refuse a write, or another effect, because this process does not lead (any more).

    Nothing was sent.
    """
