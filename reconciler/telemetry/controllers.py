"""Measure controllers: the ``controller_runtime_*`` metrics, and why reconciles ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from prometheus_client.metrics_core import Metric

from reconciler.telemetry.families import MAX_LABELS, OTHER, counter, gauge, histogram
from reconciler.telemetry.histogram import RECONCILE_BUCKETS, Histogram

__all__ = ["ControllerCounters", "controller_families"]

_RESULTS = ("success", "error", "requeue", "requeue_after")


class ControllerCounters:
    """Count what one controller does; implements `reconciler.controller.ControllerMetrics`.

    Args:
        name: the controller's name; the label ``controller``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.results = dict.fromkeys(_RESULTS, 0)
        self.reasons: dict[str, int] = {}
        self.seconds = Histogram(RECONCILE_BUCKETS)
        self.terminal_errors = 0
        self.panics = 0
        self.timeouts = 0
        self.echoes = 0
        self.storms = 0
        self.mapper_errors = 0
        self.unmapped_versions = 0
        self.workers = 0
        self.active = 0

    def set_max_concurrent_reconciles(self, workers: int, /) -> None:
        """Hear how many workers there are."""
        self.workers = workers

    def set_active_workers(self, active: int, /) -> None:
        """Hear how many workers are reconciling now."""
        self.active = active

    def reconciled(
        self,
        result: Literal["success", "error", "requeue", "requeue_after"],
        seconds: float,
        reasons: Iterable[str],
        /,
        *,
        terminal: bool,
        timed_out: bool,
        panicked: bool,
    ) -> None:
        """Hear that a reconcile ended: how, after how long, and why it ran."""
        self.results[result] += 1
        self.seconds.observe(seconds)
        self.terminal_errors += terminal
        self.timeouts += timed_out
        self.panics += panicked
        for reason in reasons:
            label = reason if reason in self.reasons or len(self.reasons) < MAX_LABELS else OTHER
            self.reasons[label] = self.reasons.get(label, 0) + 1

    def echo_dropped(self) -> None:
        """Hear that the event of an own write woke nobody."""
        self.echoes += 1

    def storm(self) -> None:
        """Hear that a key was reported for running in a tight loop."""
        self.storms += 1

    def mapper_failed(self) -> None:
        """Count a call of a mapper that failed or took too long."""
        self.mapper_errors += 1

    def unmapped(self, versions: int, /) -> None:
        """Count versions of a watched object that were given up."""
        self.unmapped_versions += versions


def controller_families(controllers: Sequence[ControllerCounters]) -> Iterable[Metric]:
    """Make the metrics of all controllers."""
    label = ("controller",)
    yield counter(
        "controller_runtime_reconcile",
        "Total number of reconciliations per controller",
        ("controller", "result"),
        [((c.name, result), number) for c in controllers for result, number in c.results.items()],
    )
    yield counter(
        "controller_runtime_reconcile_errors",
        "Total number of reconciliation errors per controller",
        label,
        [((c.name,), c.results["error"]) for c in controllers],
    )
    yield counter(
        "controller_runtime_terminal_reconcile_errors",
        "Total number of terminal reconciliation errors per controller",
        label,
        [((c.name,), c.terminal_errors) for c in controllers],
    )
    yield counter(
        "controller_runtime_reconcile_panics",
        "Total number of reconciliation panics per controller",
        label,
        [((c.name,), c.panics) for c in controllers],
    )
    yield counter(
        "controller_runtime_reconcile_timeouts",
        "Total number of reconciliation timeouts per controller",
        label,
        [((c.name,), c.timeouts) for c in controllers],
    )
    yield histogram(
        "controller_runtime_reconcile_time_seconds",
        "Length of time per reconciliation per controller",
        label,
        [((c.name,), c.seconds) for c in controllers],
    )
    yield gauge(
        "controller_runtime_max_concurrent_reconciles",
        "Maximum number of concurrent reconciles per controller",
        label,
        [((c.name,), c.workers) for c in controllers],
    )
    yield gauge(
        "controller_runtime_active_workers",
        "Number of currently used workers per controller",
        label,
        [((c.name,), c.active) for c in controllers],
    )
    yield counter(
        "reconciler_reconcile_reasons",
        "Reconciles by why they ran; one that had several reasons counts for each",
        ("controller", "reason"),
        [((c.name, reason), number) for c in controllers for reason, number in list(c.reasons.items())],
    )
    yield counter(
        "reconciler_echoes_dropped",
        "Events of own writes that were recognised after they had been queued, and woke nobody",
        label,
        [((c.name,), c.echoes) for c in controllers],
    )
    yield counter(
        "reconciler_storms",
        "Keys reported for reconciling in a tight loop",
        label,
        [((c.name,), c.storms) for c in controllers],
    )
    yield counter(
        "reconciler_mapper_errors",
        "Calls of mappers that failed or took too long",
        label,
        [((c.name,), c.mapper_errors) for c in controllers],
    )
    yield counter(
        "reconciler_unmapped",
        "Versions of watched objects that were given up, so that the keys they name were not woken",
        label,
        [((c.name,), c.unmapped_versions) for c in controllers],
    )
