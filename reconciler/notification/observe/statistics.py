"""Say what a reconciler counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NotificationStatistics"]


@dataclass(frozen=True, slots=True)
class NotificationStatistics:
    """Count what a reconciler did since it was made.

    Attributes:
        delivered: attempts that delivered.
        failed: attempts that failed, or of which nobody knows the outcome.
        deferred: deliveries that were put off without an attempt.
        early: runs that came before anything was due, and did nothing.
        stale: runs that were put off because the server had a newer version.
        live_reads: reads from the server before a first delivery.
        finished: requests that reached a terminal phase.
        expired: finished requests that were deleted by their ``ttlSecondsAfterFinished``.
        active: requests that are being delivered at this moment.
        waiting: deliveries that wait for a turn at this moment.
        untold: requests whose records were dropped because their status could not be written for too long.
    """

    delivered: int = 0
    failed: int = 0
    deferred: int = 0
    early: int = 0
    stale: int = 0
    live_reads: int = 0
    finished: int = 0
    expired: int = 0
    active: int = 0
    waiting: int = 0
    untold: int = 0
