"""Prometheus metrics of the operator. Only saved status changes are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from reconciler.notification.channels.limits import BreakerState, LimitedChannel
from reconciler.notification.schedule import StatusChange

if TYPE_CHECKING:
    from reconciler.notification.audit import AuditLog
    from reconciler.notification.channel import ChannelRegistry
    from reconciler.notification.reconciler import NotificationReconciler
    from reconciler.notification.router import RoutingTable

HEALTH_WINDOW = 20
"""Number of recent attempts that a channel's health score covers."""

_BREAKER: dict[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class NotificationMetrics:
    """The operator's metrics: an observer of the reconciler, and a collector for its parts.

    The names and labels are below; each metric has a help text, and docs/notification.md lists them.

    Args:
        registry: the registry to register with, such as ``manager.metrics.registry``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "notification_delivery_attempts", "Delivery attempts by result.", ["channel", "result"], registry=registry
        )
        self._duration = Histogram(
            "notification_delivery_duration_seconds",
            "Duration of a delivery attempt.",
            ["channel"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._retries = Counter(
            "notification_delivery_retries",
            "Attempts after a channel's first, by the reason why the previous one failed.",
            ["channel", "reason"],
            registry=registry,
        )
        self._deferred = Counter(
            "notification_deliveries_deferred",
            "Deliveries deferred without an attempt.",
            ["channel"],
            registry=registry,
        )
        self._finished = Counter(
            "notification_requests_finished", "Finished requests by final phase.", ["phase"], registry=registry
        )
        self._lifetime = Histogram(
            "notification_request_duration_seconds",
            "Time from the first reconcile of a request to its completion.",
            ["phase"],
            buckets=(0.1, 1, 10, 60, 300, 600, 1800, 3600, 86_400),
            registry=registry,
        )
        self._health = Gauge(
            "notification_channel_health_score",
            f"Success ratio of the last {HEALTH_WINDOW} attempts.",
            ["channel"],
            registry=registry,
        )
        self._window: dict[str, deque[bool]] = {}
        self._sources: list[Callable[[], Iterable[Metric]]] = []
        registry.register(self)

    def status_saved(self, change: StatusChange, /) -> None:
        """Count a saved status change."""
        before = {channel.name: channel.reason for channel in change.before.channels}
        for attempt in change.attempts:
            self._attempts.labels(attempt.channel, attempt.result).inc()
            self._duration.labels(attempt.channel).observe(attempt.duration_seconds)
            if attempt.attempt > 1:
                self._retries.labels(attempt.channel, before.get(attempt.channel) or "AttemptFailed").inc()
            window = self._window.setdefault(attempt.channel, deque(maxlen=HEALTH_WINDOW))
            window.append(attempt.result == "success")
            self._health.labels(attempt.channel).set(sum(window) / len(window))
        for channel in change.deferred:
            self._deferred.labels(channel).inc()
        if change.finished and change.after.phase is not None:
            self._finished.labels(change.after.phase).inc()
            if change.after.queued_at is not None and change.after.completion_time is not None:
                seconds = (change.after.completion_time - change.after.queued_at).total_seconds()
                self._lifetime.labels(change.after.phase).observe(seconds)

    def watch(
        self,
        *,
        reconciler: NotificationReconciler | None = None,
        channels: ChannelRegistry | None = None,
        routing: RoutingTable | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        """Add the metrics of these parts, which are read at each scrape."""
        if reconciler is not None:
            self._sources.append(lambda: _reconciler_families(reconciler))
        if channels is not None:
            self._sources.append(lambda: _channel_families(channels))
        if routing is not None:
            self._sources.append(lambda: _routing_families(routing))
        if audit is not None:
            self._sources.append(lambda: _audit_families(audit))

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the parts that were passed to `watch`."""
        for source in self._sources:
            yield from source()


def _reconciler_families(reconciler: NotificationReconciler) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "notification_reconciler_active", "Requests being delivered now.", value=reconciler.statistics().active
    )
    waiting = GaugeMetricFamily(
        "notification_deliveries_waiting", "Deliveries that wait for a slot.", labels=["channel"]
    )
    for channel, count in reconciler.waiting().items():
        waiting.add_metric([channel], count)
    yield waiting
    yield GaugeMetricFamily(
        "notification_clock_offset_seconds",
        "How far the API server's clock is ahead of this machine's; 0 if the difference is insignificant.",
        value=reconciler.clock_offset.total_seconds(),
    )


def _channel_families(channels: ChannelRegistry) -> Iterable[Metric]:
    states = GaugeMetricFamily(
        "notification_channel_circuit_breaker_state", "0 closed, 1 half open, 2 open.", labels=["channel"]
    )
    for name in channels:
        if isinstance(channel := channels.get(name), LimitedChannel):
            states.add_metric([name], _BREAKER[channel.breaker.state])
    yield states


def _routing_families(routing: RoutingTable) -> Iterable[Metric]:
    valid = routing.config is not None and not routing.problem
    yield GaugeMetricFamily(
        "notification_routing_config_valid", "1 if the latest routing configuration is in use.", value=int(valid)
    )
    loads = CounterMetricFamily(
        "notification_routing_config_loads", "Loads of the routing configuration by result.", labels=["result"]
    )
    loads.add_metric(["loaded"], routing.loaded)
    loads.add_metric(["refused"], routing.refused)
    yield loads


def _audit_families(audit: AuditLog) -> Iterable[Metric]:
    statistics = audit.statistics()
    records = CounterMetricFamily("notification_audit_records", "Audit records by result.", labels=["result"])
    records.add_metric(["written"], statistics.written)
    records.add_metric(["dropped"], statistics.dropped)
    yield records
