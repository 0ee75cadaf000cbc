"""Tell how the process fares: metrics for Prometheus, log lines for people and for machines.

Metrics have controller-runtime's names, labels and buckets, so that dashboards and alerts made for it work unchanged;
what it does not measure begins with ``reconciler_``. They are plain numbers while the work goes on, and become
Prometheus samples only when somebody scrapes. One `MetricsRegistry` belongs to one manager: nothing is global.

Formatters put the controller, the key and the reconcile's id into each line that is logged during a reconcile, by whom
ever. The library itself configures no logging.
"""

from reconciler.telemetry.controllers import ControllerCounters
from reconciler.telemetry.histogram import Histogram
from reconciler.telemetry.logs import JSONFormatter, TextFormatter
from reconciler.telemetry.processes import LeaderCounters, RequestCounters
from reconciler.telemetry.queues import QueueCounters
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.shards import ShardCounters
from reconciler.telemetry.statuses import StatusCounters
from reconciler.telemetry.tracing import is_tracing, tracer

__all__ = [
    "ControllerCounters",
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
