"""Measure work queues: the ``workqueue_*`` metrics of client-go as controller-runtime exposes them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.metrics_core import Metric

from reconciler.telemetry.families import MAX_LABELS, OTHER, Labelled, counter, gauge, histogram
from reconciler.telemetry.histogram import QUEUE_BUCKETS, Histogram
from reconciler.workqueue import QueueStatistics

__all__ = ["QueueCounters", "queue_families"]

_LABELS = ("name", "controller")


class QueueCounters:
    """Measure one work queue; implements `reconciler.workqueue.QueueMetrics`.

    Args:
        name: the queue's name; the labels ``name`` and ``controller``.

    Attributes:
        wait: seconds between ready and in hand.
        work: seconds in hand.
        statistics: tells the queue's counts and state; None until there is a queue.
    """

    __slots__ = ("_priorities", "name", "statistics", "wait", "work")

    def __init__(self, name: str) -> None:
        self.name = name
        self.wait = Histogram(QUEUE_BUCKETS)
        self.work = Histogram(QUEUE_BUCKETS)
        self.statistics: Callable[[], QueueStatistics] | None = None
        self._priorities: dict[int, None] = {0: None}

    def watch(self, statistics: Callable[[], QueueStatistics], /) -> None:
        """Take the function that tells the queue's state."""
        self.statistics = statistics

    # What follows is Histogram.observe written out, twice a key: the calls would cost as much as the counting.

    def observe_queue_duration(self, seconds: float, /) -> None:
        """Hear that a key was handed out after a wait."""
        wait = self.wait
        wait.counts[bisect_left(QUEUE_BUCKETS, seconds)] += 1
        wait.total += seconds

    def observe_work_duration(self, seconds: float, /) -> None:
        """Hear that a key was given back after some work."""
        work = self.work
        work.counts[bisect_left(QUEUE_BUCKETS, seconds)] += 1
        work.total += seconds

    def depth(self, ready: Mapping[int, int]) -> dict[str, int]:
        """Return the number of ready keys by priority, those included that were seen at an earlier scrape."""
        for priority in ready:
            if len(self._priorities) < MAX_LABELS:
                self._priorities.setdefault(priority)
        depth = {str(priority): ready.get(priority, 0) for priority in self._priorities}
        if others := sum(number for priority, number in ready.items() if priority not in self._priorities):
            depth[OTHER] = others
        return depth


def queue_families(queues: Sequence[QueueCounters]) -> Iterable[Metric]:
    """Make the metrics of all queues."""
    now = [(queue, queue.statistics()) for queue in queues if queue.statistics is not None]

    def each(read: Callable[[QueueStatistics], float]) -> list[Labelled]:
        return [((queue.name, queue.name), read(statistics)) for queue, statistics in now]

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
    yield counter("workqueue_adds", "Total number of adds handled by workqueue", _LABELS, each(lambda s: s.adds))
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
    yield gauge(
        "workqueue_unfinished_work_seconds",
        "How many seconds of work has been done that is in progress and hasn't been observed by work_duration. Large "
        "values indicate stuck threads.",
        _LABELS,
        each(lambda s: s.unfinished_work),
    )
    yield gauge(
        "workqueue_longest_running_processor_seconds",
        "How many seconds has the longest running processor for workqueue been running.",
        _LABELS,
        each(lambda s: s.longest_in_progress),
    )
    yield counter(
        "workqueue_retries", "Total number of retries handled by workqueue", _LABELS, each(lambda s: s.delayed_adds)
    )
    yield gauge("reconciler_workqueue_waiting", "Keys that wait for a delay to end", _LABELS, each(lambda s: s.waiting))
    yield counter(
        "reconciler_workqueue_dropped",
        "Ready keys, timers and adds that a shutdown dropped",
        _LABELS,
        each(lambda s: s.dropped_adds + s.dropped_ready + s.dropped_timers),
    )
