"""Prometheus metrics, log formatters and OpenTelemetry tracing.

Metrics have controller-runtime's names, labels and buckets, so dashboards and alerts made for it work unchanged. The
names of further metrics begin with ``reconciler_``. All are plain numbers until a scrape turns them into Prometheus
samples. Each manager has its own `MetricsRegistry`; nothing is global.

The formatters add the controller, the key and the reconcile id to every line that is logged during a reconcile,
including the lines of other libraries. This library never configures logging itself.
"""

from reconciler.telemetry.logs import JSONFormatter, TextFormatter

__all__ = ["JSONFormatter", "TextFormatter"]
