"""Measure status writes: how many were sent, and how many were not because nothing had changed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from prometheus_client.metrics_core import Metric

from reconciler.telemetry.families import counter, histogram
from reconciler.telemetry.histogram import STATUS_BUCKETS, Histogram

__all__ = ["StatusCounters", "status_families"]


class StatusCounters:
    """Count the flushes of one controller's batchers; implements `reconciler.status.StatusMetrics`.

    May be called from any thread.

    Args:
        name: the controller's name; the label ``controller``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.results = {"written": 0, "suppressed": 0, "not_written": 0}
        self.conflicts = 0
        self.replays = 0
        self.fields = 0
        self.seconds = Histogram(STATUS_BUCKETS)
        self._lock = threading.Lock()

    def flushed(
        self, *, written: bool, suppressed: bool, conflicts: int, replays: int, fields: int, seconds: float
    ) -> None:
        """Hear of one flush: a write that took effect, nothing to write, or neither."""
        result = "written" if written else "suppressed" if suppressed else "not_written"
        with self._lock:
            self.results[result] += 1
            self.conflicts += conflicts
            self.replays += replays
            self.fields += fields
            self.seconds.observe(seconds)


def status_families(statuses: Sequence[StatusCounters]) -> Iterable[Metric]:
    """Make the metrics of all controllers' status writes."""
    label = ("controller",)
    yield counter(
        "reconciler_status_flushes",
        "Ends of batches and checkpoints: written, suppressed because nothing changed, or not_written",
        ("controller", "result"),
        [((s.name, result), number) for s in statuses for result, number in s.results.items()],
    )
    yield counter(
        "reconciler_status_conflicts",
        "Status writes refused because the object had changed",
        label,
        [((s.name,), s.conflicts) for s in statuses],
    )
    yield counter(
        "reconciler_status_replays",
        "Times that recorded mutations were applied to a newer version of the object",
        label,
        [((s.name,), s.replays) for s in statuses],
    )
    yield counter(
        "reconciler_status_fields",
        "Fields that status writes named",
        label,
        [((s.name,), s.fields) for s in statuses],
    )
    yield histogram(
        "reconciler_status_flush_seconds",
        "Length of time per flush",
        label,
        [((s.name,), s.seconds) for s in statuses],
    )
