"""The metrics of a controller: its reconciles, its work queue and its status writes.

Metric families are built from plain numbers, with the buckets of client-go and controller-runtime.
"""

from __future__ import annotations

import functools
import operator
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from reconciler.workqueue import QueueStatistics

MAX_LABELS = 25
"""Distinct values of one label, such as priorities; further values share one. controller-runtime's number."""

OTHER = "exceeded_cardinality_limit"
"""The label value that those share."""

Sample = tuple[Sequence[str], float]
"""Label values and a number."""

MetricFactory = Callable[[str, str, Sequence[str], Iterable[Sample]], Metric]
"""`counter` or `gauge`."""


def _decades(first: float, count: int) -> tuple[float, ...]:
    """Return powers of ten, multiplied the way Go does, so that the bounds match client-go's to the last bit."""
    return tuple(accumulate(range(count - 1), lambda bound, _: bound * 10, initial=first))


QUEUE_BUCKETS = _decades(10e-9, 12)
"""10 ns to 1000 s, one bucket per decade: client-go's ``workqueue_*_duration_seconds``."""

# fmt: off
RECONCILE_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 1.75,
    2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0,
)
"""controller-runtime's ``controller_runtime_reconcile_time_seconds``."""
# fmt: on

STATUS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The defaults of Prometheus, up to the 10 s timeout of a flush."""


class Histogram:
    """A histogram of observations.

    That of prometheus_client makes eight calls and takes locks for each observation, where this one makes three; a
    reconcile has three observations.

    Args:
        bounds: upper bounds of the buckets, inclusive and ascending; the ``+Inf`` bucket is added.

    Attributes:
        bounds: the same bounds.
        counts: observations per bucket, not cumulative; ``+Inf`` is last.
        total: sum of all observations.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, /) -> None:
        """Record one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets in Prometheus form: each bound with the number of observations up to it."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    labels: Sequence[str],
    samples: Iterable[Sample],
) -> Metric:
    family = kind(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


counter = functools.partial(_family, CounterMetricFamily)
"""Returns a counter; ``_total`` is appended to its name."""

gauge = functools.partial(_family, GaugeMetricFamily)
"""Returns a gauge."""

Attributes = Mapping[str, tuple[str, str]]
"""Metrics by name: their help text, and the attribute that they are read from."""


def attribute_families(
    kind: MetricFactory, metrics: Attributes, labels: Sequence[str], objects: Sequence[tuple[Sequence[str], object]]
) -> Iterable[Metric]:
    """Yield metrics that are attributes of the same objects, which are given with the values of their labels."""
    for name, (text, attribute) in metrics.items():
        read = operator.attrgetter(attribute)
        yield kind(name, text, labels, [(values, float(read(each))) for values, each in objects])


def histogram(
    name: str, help_text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], Histogram]]
) -> Metric:
    """Return a histogram."""
    family = HistogramMetricFamily(name, help_text, labels=labels)
    for values, data in samples:
        family.add_metric(values, data.cumulative(), data.total)
    return family


_LABELS = ("name", "controller")
_RESULTS = ("success", "error", "requeue", "requeue_after")


class ReconcileCounts(Protocol):
    """The counters of a controller that have labels; the others are read by name."""

    @property
    def results(self) -> Mapping[str, int]:
        """Return how many reconciles ended with each result."""
        ...

    @property
    def reasons(self) -> Mapping[str, int]:
        """Return how many reconciles had each reason."""
        ...


class ControllerCounters:
    """Measurements of one controller; implements `reconciler.controller.observers.ControllerMetrics`.

    Args:
        name: the controller's name; the label ``controller``.

    Attributes:
        seconds: durations of the reconciles.
        statistics: returns the controller's counts; None until `watch` is called.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds = Histogram(RECONCILE_BUCKETS)
        # Not a method of this class that calls this one: it runs once per reconcile, and a call costs as much.
        self.observe_reconcile_duration = self.seconds.observe
        self.statistics: Callable[[], ReconcileCounts] | None = None

    def watch(self, statistics: Callable[[], ReconcileCounts], /) -> None:
        """Set the function that returns the controller's statistics."""
        self.statistics = statistics


_CONTROLLER_COUNTERS = {
    "controller_runtime_terminal_reconcile_errors": (
        "Total number of terminal reconciliation errors per controller",
        "terminal_errors",
    ),
    "controller_runtime_reconcile_panics": ("Total number of reconciliation panics per controller", "panics"),
    "controller_runtime_reconcile_timeouts": ("Total number of reconciliation timeouts per controller", "timeouts"),
    "reconciler_echoes_dropped": (
        "Total number of events of own writes that were recognized and did not cause a reconcile",
        "echo.dropped",
    ),
    "reconciler_storms": ("Total number of times that a key was reported for reconciling in a tight loop", "storms"),
    "reconciler_mapper_errors": ("Total number of mapper calls that failed or timed out", "mapper_errors"),
    "reconciler_unmapped": (
        "Total number of versions of watched objects that could not be mapped to keys and were dropped",
        "unmapped",
    ),
}
_CONTROLLER_GAUGES = {
    "controller_runtime_max_concurrent_reconciles": (
        "Maximum number of concurrent reconciles per controller",
        "workers",
    ),
    "controller_runtime_active_workers": ("Number of currently used workers per controller", "active"),
    "reconciler_low_priority_concurrency": (
        "Number of keys of low priority that may be reconciled at once, fewer while the API server is slow",
        "low_priority_workers",
    ),
}


def controller_families(controllers: Sequence[ControllerCounters]) -> Iterable[Metric]:
    """Yield the metrics of all controllers."""
    now = [(each.name, each.statistics()) for each in controllers if each.statistics is not None]
    yield counter(
        "controller_runtime_reconcile",
        "Total number of reconciliations per controller",
        ("controller", "result"),
        [((name, result), statistics.results[result]) for name, statistics in now for result in _RESULTS],
    )
    yield histogram(
        "controller_runtime_reconcile_time_seconds",
        "Length of time per reconciliation per controller",
        ("controller",),
        [((each.name,), each.seconds) for each in controllers],
    )
    yield counter(
        "reconciler_reconcile_reasons",
        "Total number of reconciles per controller and reason; a reconcile with several reasons counts for each",
        ("controller", "reason"),
        [((name, reason), number) for name, statistics in now for reason, number in statistics.reasons.items()],
    )
    yield counter(
        "controller_runtime_reconcile_errors",
        "Total number of reconciliation errors per controller",
        ("controller",),
        [((name,), statistics.results["error"]) for name, statistics in now],
    )
    labeled = [((name,), statistics) for name, statistics in now]
    yield from attribute_families(counter, _CONTROLLER_COUNTERS, ("controller",), labeled)
    yield from attribute_families(gauge, _CONTROLLER_GAUGES, ("controller",), labeled)


class QueueCounters:
    """Measurements of one work queue; implements `reconciler.workqueue.QueueMetrics`.

    Args:
        name: the queue's name; the labels ``name`` and ``controller``.

    Attributes:
        wait: seconds that keys were ready before a worker took them.
        work: seconds that keys were in progress.
        statistics: returns the queue's counts and state; None until `watch` is called.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.wait = Histogram(QUEUE_BUCKETS)
        self.work = Histogram(QUEUE_BUCKETS)
        # Not methods of this class that call these: they run once per key, and a call costs as much as the count.
        self.observe_queue_duration = self.wait.observe
        self.observe_work_duration = self.work.observe
        self.statistics: Callable[[], QueueStatistics] | None = None
        self._priorities: dict[int, None] = {0: None}

    def watch(self, statistics: Callable[[], QueueStatistics], /) -> None:
        """Set the function that returns the queue's statistics."""
        self.statistics = statistics

    def depth(self, ready: Mapping[int, int]) -> dict[str, int]:
        """Return the number of ready keys by priority; priorities seen at an earlier scrape stay, with 0."""
        for priority in ready:
            if len(self._priorities) < MAX_LABELS:
                self._priorities.setdefault(priority)
        depth = {str(priority): ready.get(priority, 0) for priority in self._priorities}
        if others := sum(number for priority, number in ready.items() if priority not in self._priorities):
            depth[OTHER] = others
        return depth


_QUEUE_COUNTERS = {
    "workqueue_adds": ("Total number of adds handled by workqueue", "adds"),
    "workqueue_retries": ("Total number of retries handled by workqueue", "delayed_adds"),
}
_QUEUE_GAUGES = {
    "workqueue_unfinished_work_seconds": (
        (
            "How many seconds of work has been done that is in progress and hasn't been observed by work_duration. "
            "Large values indicate stuck threads."
        ),
        "unfinished_work",
    ),
    "workqueue_longest_running_processor_seconds": (
        "How many seconds has the longest running processor for workqueue been running.",
        "longest_in_progress",
    ),
    "reconciler_workqueue_waiting": ("Current number of keys whose delay has not ended", "waiting"),
}


def queue_families(queues: Sequence[QueueCounters]) -> Iterable[Metric]:
    """Yield the metrics of all queues."""
    now = [(queue, queue.statistics()) for queue in queues if queue.statistics is not None]
    yield gauge(
        "workqueue_depth",
        "Current depth of workqueue by workqueue and priority",
        (*_LABELS, "priority"),
        [
            ((queue.name, queue.name, priority), number)
            for queue, statistics in now
            for priority, number in queue.depth(statistics.ready_by_priority).items()
        ],
    )
    yield histogram(
        "workqueue_queue_duration_seconds",
        "How long in seconds an item stays in workqueue before being requested",
        _LABELS,
        [((queue.name, queue.name), queue.wait) for queue, _ in now],
    )
    yield histogram(
        "workqueue_work_duration_seconds",
        "How long in seconds processing an item from workqueue takes.",
        _LABELS,
        [((queue.name, queue.name), queue.work) for queue, _ in now],
    )
    yield counter(
        "reconciler_workqueue_dropped",
        "Total number of ready keys, delayed keys and adds that a shutdown dropped",
        _LABELS,
        [
            ((queue.name, queue.name), each.dropped_adds + each.dropped_ready + each.dropped_timers)
            for queue, each in now
        ],
    )
    labeled = [((queue.name, queue.name), statistics) for queue, statistics in now]
    yield from attribute_families(counter, _QUEUE_COUNTERS, _LABELS, labeled)
    yield from attribute_families(gauge, _QUEUE_GAUGES, _LABELS, labeled)


class StatusCounters:
    """Counters of the flushes of one controller's batchers; implements `reconciler.status.recording.StatusMetrics`.

    Safe to call from any thread.

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
        """Record one flush: a write that took effect, nothing to write, or neither."""
        result = "written" if written else "suppressed" if suppressed else "not_written"
        with self._lock:
            self.results[result] += 1
            self.conflicts += conflicts
            self.replays += replays
            self.fields += fields
            self.seconds.observe(seconds)


_STATUS_COUNTERS = {
    "reconciler_status_conflicts": (
        "Total number of status writes refused because the object had changed",
        "conflicts",
    ),
    "reconciler_status_replays": (
        "Total number of times that recorded mutations were replayed on a newer version of the object",
        "replays",
    ),
    "reconciler_status_fields": ("Total number of fields in status writes", "fields"),
}


def status_families(statuses: Sequence[StatusCounters]) -> Iterable[Metric]:
    """Yield the metrics of all controllers' status writes."""
    labels = ("controller",)
    yield counter(
        "reconciler_status_flushes",
        "Total number of status flushes: written, suppressed because nothing had changed, or not_written",
        ("controller", "result"),
        [((s.name, result), number) for s in statuses for result, number in s.results.items()],
    )
    yield from attribute_families(counter, _STATUS_COUNTERS, labels, [((s.name,), s) for s in statuses])
    yield histogram(
        "reconciler_status_flush_seconds",
        "Length of time per status flush",
        labels,
        [((s.name,), s.seconds) for s in statuses],
    )
