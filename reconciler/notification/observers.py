"""The observers of saved status changes: the log, Kubernetes Events and Prometheus metrics.

They are notified of a change only once its status write is durable.
"""

from __future__ import annotations

import logging
import math
from collections import Counter as Counts
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from reconciler._core.lru import LRU
from reconciler.clock import current_clock
from reconciler.meta.documents import format_time, human_duration
from reconciler.notification.api import DeliveryAttempt
from reconciler.notification.channels.limits import BreakerState, LimitedChannel
from reconciler.notification.schedule import StatusChange

if TYPE_CHECKING:
    from reconciler.notification.audit import AuditLog
    from reconciler.notification.channel import ChannelRegistry
    from reconciler.notification.reconciler import NotificationReconciler
    from reconciler.notification.router import RoutingTable

_log = logging.getLogger("reconciler.notification")

OUTBOX_LIMIT = 10_000
"""Maximum requests whose changes wait for their status write. The oldest are dropped first, and counted."""


class Observer(Protocol):
    """An observer of saved status changes."""

    def status_saved(self, change: StatusChange, /) -> None:
        """Called on the event loop after the status write, once for each change. Must not block."""


class Outbox:
    """Status changes that wait for their status write before they go to the observers.

    Args:
        observers: the observers. An exception of an observer is logged and affects nothing else.

    Attributes:
        counts: the changes so far, by the names of `NotificationStatistics`.
        dropped: number of changes that were dropped because their status was not written.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._waiting: OrderedDict[str, list[StatusChange]] = OrderedDict()
        self.counts: Counts[str] = Counts()
        self.dropped = 0

    def add(self, change: StatusChange) -> None:
        """Count a change, and hold it until `publish`."""
        self.counts.update("delivered" if attempt.result == "success" else "failed" for attempt in change.attempts)
        self.counts["deferred"] += len(change.deferred)
        self.counts["finished"] += change.finished
        uid = change.request.uid
        self._waiting.setdefault(uid, []).append(change)
        self._waiting.move_to_end(uid)
        if len(self._waiting) > OUTBOX_LIMIT:
            _, lost = self._waiting.popitem(last=False)
            self.dropped += len(lost)

    def publish(self, uid: str) -> None:
        """Pass the changes of a request to the observers, in order: its status is written."""
        for change in self._waiting.pop(uid, ()):
            for observer in self._observers:
                try:
                    observer.status_saved(change)
                except Exception as error:  # noqa: BLE001 - observers are user code
                    name, key = type(observer).__name__, f"{change.request.namespace}/{change.request.name}"
                    _log.exception("%s: observer %s failed: %s: %s", key, name, type(error).__name__, error)


_LOG_INTERVAL = 10.0
"""Seconds between two log lines about failed attempts on one channel."""

_LOGGED_CHANNELS = 1_000


@dataclass(slots=True)
class _Failures:
    since: float
    logged_at: float = -math.inf
    unlogged: int = 0
    number: int = 0


class AttemptLog:
    """An observer that logs failed attempts, and the first success on a channel after them.

    Of one channel at most one failure in ten seconds is logged, with the number of those that were not.
    """

    def __init__(self) -> None:
        self._failing: LRU[str, _Failures] = LRU(_LOGGED_CHANNELS)

    def status_saved(self, change: StatusChange) -> None:
        """Log the attempts of a change."""
        for attempt in change.attempts:
            if attempt.result == "success":
                self._log_recovery(attempt.channel)
            else:
                self._log_failure(change, attempt)

    def _log_recovery(self, channel: str) -> None:
        failures = self._failing.pop(channel, None)
        if failures is not None:
            text = "receiver %s delivers again, after %d failed attempts in %s"
            seconds = current_clock().monotonic() - failures.since
            _log.info(text, channel, failures.number, human_duration(seconds))

    def _log_failure(self, change: StatusChange, attempt: DeliveryAttempt) -> None:
        now = current_clock().monotonic()
        failures = self._failing[attempt.channel] = self._failing.get(attempt.channel) or _Failures(now)
        failures.number += 1
        if now - failures.logged_at < _LOG_INTERVAL:
            failures.unlogged += 1
            return
        others = f" (and {failures.unlogged} other attempts since the last line)" if failures.unlogged else ""
        failures.logged_at, failures.unlogged = now, 0
        due = {each.name: each.next_attempt_time for each in change.after.channels}.get(attempt.channel)
        _log.warning(
            "receiver %s: attempt %d of %s/%s failed%s: %s; %s",
            attempt.channel,
            attempt.attempt,
            change.request.namespace,
            change.request.name,
            others,
            attempt.error or attempt.result,
            "not retried" if due is None else f"next attempt at {format_time(due)}",
        )


class EventEmitter:
    """An observer that emits a Kubernetes Event when the phase of a request changes, and when a delivery is deferred.

    Args:
        reconciler: the reconciler, whose recorder is used; it has none before it is added to a manager.
    """

    def __init__(self, reconciler: NotificationReconciler) -> None:
        self._reconciler = reconciler

    def status_saved(self, change: StatusChange) -> None:
        """Emit an Event if the phase has changed, or a channel deferred the delivery."""
        after = change.after
        for channel in after.channels:
            if channel.name in change.deferred and channel.last_error:
                self._reconciler.events.warning(change.request, "DeliveryDeferred", channel.last_error)
        if after.phase == change.before.phase:
            return
        events = self._reconciler.events
        emit = events.warning if after.phase in {"Failed", "PartiallySent"} else events.normal
        emit(change.request, after.reason or "", after.message or "")


@dataclass(frozen=True, slots=True)
class NotificationStatistics:
    """Counts of a reconciler since it was created.

    Attributes:
        delivered: successful attempts.
        failed: attempts that failed or whose outcome is unknown.
        deferred: deliveries that were deferred without an attempt.
        early: reconciles before anything was due, which did nothing.
        stale: reconciles that stopped because the server had a newer version.
        live_reads: reads from the server before a first delivery.
        finished: requests that reached a terminal phase.
        expired: finished requests that were deleted by ``ttlSecondsAfterFinished``.
        active: requests that are being delivered now.
        waiting: deliveries that wait in a queue now.
        unpublished: status changes that were dropped before observers saw them, because their status could not be
            written for too long.
    """

    delivered: int = 0
    failed: int = 0
    deferred: int = 0
    early: int = 0
    stale: int = 0
    live_reads: int = 0
    finished: int = 0
    expired: int = 0
    active: int = 0
    waiting: int = 0
    unpublished: int = 0


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
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        of_channel = ["channel"]
        self._attempts = counter(
            "notification_delivery_attempts", "Delivery attempts by result.", ["channel", "result"]
        )
        self._duration = histogram(
            "notification_delivery_duration_seconds", "Duration of a delivery attempt.", of_channel, buckets=_BUCKETS
        )
        self._retries = counter(
            "notification_delivery_retries",
            "Attempts after a channel's first, by the reason why the previous one failed.",
            ["channel", "reason"],
        )
        self._deferred = counter(
            "notification_deliveries_deferred", "Deliveries deferred without an attempt.", of_channel
        )
        self._finished = counter("notification_requests_finished", "Finished requests by final phase.", ["phase"])
        self._lifetime = histogram(
            "notification_request_duration_seconds",
            "Time from the first reconcile of a request to its completion.",
            ["phase"],
            buckets=(0.1, 1, 10, 60, 300, 600, 1800, 3600, 86_400),
        )
        self._health = Gauge(
            "notification_channel_health_score",
            f"Success ratio of the last {HEALTH_WINDOW} attempts.",
            of_channel,
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
        parts: Sequence[tuple[Callable[[Any], Iterable[Metric]], object]] = (
            (_reconciler_families, reconciler),
            (_channel_families, channels),
            (_routing_families, routing),
            (_audit_families, audit),
        )
        self._sources += [partial(families, part) for families, part in parts if part is not None]

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of the parts that were passed to `watch`."""
        for source in self._sources:
            yield from source()


_M = TypeVar("_M", CounterMetricFamily, GaugeMetricFamily)


def _filled(family: _M, values: Mapping[str, float]) -> _M:
    """Return a metric with a value for each value of its label."""
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _reconciler_families(reconciler: NotificationReconciler) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "notification_reconciler_active", "Requests being delivered now.", value=reconciler.statistics().active
    )
    waiting = GaugeMetricFamily(
        "notification_deliveries_waiting", "Deliveries that wait for a slot.", labels=["channel"]
    )
    yield _filled(waiting, reconciler.waiting())
    yield GaugeMetricFamily(
        "notification_clock_offset_seconds",
        "How far the API server's clock is ahead of this machine's; 0 if the difference is insignificant.",
        value=reconciler.clock_offset.total_seconds(),
    )


def _channel_families(channels: ChannelRegistry) -> Iterable[Metric]:
    limited = {name: channel for name in channels if isinstance(channel := channels.get(name), LimitedChannel)}
    states = GaugeMetricFamily(
        "notification_channel_circuit_breaker_state", "0 closed, 1 half open, 2 open.", labels=["channel"]
    )
    yield _filled(states, {name: _BREAKER[channel.breaker.state] for name, channel in limited.items()})


def _routing_families(routing: RoutingTable) -> Iterable[Metric]:
    valid = routing.config is not None and not routing.problem
    yield GaugeMetricFamily(
        "notification_routing_config_valid", "1 if the latest routing configuration is in use.", value=int(valid)
    )
    loads = CounterMetricFamily(
        "notification_routing_config_loads", "Loads of the routing configuration by result.", labels=["result"]
    )
    yield _filled(loads, {"loaded": routing.loaded, "refused": routing.refused})


def _audit_families(audit: AuditLog) -> Iterable[Metric]:
    found = audit.statistics()
    records = CounterMetricFamily("notification_audit_records", "Audit records by result.", labels=["result"])
    yield _filled(records, {"written": found.written, "dropped": found.dropped})
