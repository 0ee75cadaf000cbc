"""Prometheus metrics, log formatters and OpenTelemetry tracing.

Metrics have controller-runtime's names, labels and buckets, so dashboards and alerts made for it work unchanged. The
names of further metrics begin with ``reconciler_``. All are plain numbers until a scrape turns them into Prometheus
samples. Each manager has its own `MetricsRegistry`; nothing is global.

The formatters add the controller, the key and the reconcile id to every line that is logged during a reconcile,
including the lines of other libraries. This library never configures logging itself.
"""

from reconciler.telemetry.controllers import ControllerCounters, QueueCounters, StatusCounters
from reconciler.telemetry.families import Histogram
from reconciler.telemetry.logs import Facts, JSONFormatter, TextFormatter
from reconciler.telemetry.process import EventLoopCounters, LeaderCounters, RequestCounters, ShardCounters
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.tracing import is_tracing, tracer

__all__ = [
    "ControllerCounters",
    "EventLoopCounters",
    "Facts",
    "Histogram",
    "JSONFormatter",
    "LeaderCounters",
    "MetricsRegistry",
    "QueueCounters",
    "RequestCounters",
    "ShardCounters",
    "StatusCounters",
    "TextFormatter",
    "is_tracing",
    "tracer",
]
