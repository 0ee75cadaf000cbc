"""Make Prometheus metric families of plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from reconciler.telemetry.histogram import Histogram

__all__ = ["MAX_LABELS", "OTHER", "Labelled", "counter", "gauge", "histogram"]

MAX_LABELS = 25
"""Different values of one label, such as priorities, after which all further ones count together; c-r's number."""

OTHER = "exceeded_cardinality_limit"
"""The label value of those."""

Labelled = tuple[Sequence[str], float]


def counter(name: str, help_text: str, labels: Sequence[str], samples: Iterable[Labelled]) -> Metric:
    """Make a counter; ``_total`` is appended to its name."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def gauge(name: str, help_text: str, labels: Sequence[str], samples: Iterable[Labelled]) -> Metric:
    """Make a gauge."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def histogram(
    name: str, help_text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], Histogram]]
) -> Metric:
    """Make a histogram."""
    family = HistogramMetricFamily(name, help_text, labels=labels)
    for values, data in samples:
        family.add_metric(values, data.cumulative(), data.total)
    return family
