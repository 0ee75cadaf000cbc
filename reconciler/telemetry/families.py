"""Prometheus metric families built from plain numbers, with the buckets of client-go and controller-runtime."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

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


def counter(name: str, help_text: str, labels: Sequence[str], samples: Iterable[Sample]) -> Metric:
    """Return a counter; ``_total`` is appended to its name."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def gauge(name: str, help_text: str, labels: Sequence[str], samples: Iterable[Sample]) -> Metric:
    """Return a gauge."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def histogram(
    name: str, help_text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], Histogram]]
) -> Metric:
    """Return a histogram."""
    family = HistogramMetricFamily(name, help_text, labels=labels)
    for values, data in samples:
        family.add_metric(values, data.cumulative(), data.total)
    return family
