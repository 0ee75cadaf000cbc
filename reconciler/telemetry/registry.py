"""The metrics registry of a manager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from reconciler.telemetry.controllers import (
    ControllerCounters,
    QueueCounters,
    StatusCounters,
    controller_families,
    queue_families,
    status_families,
)
from reconciler.telemetry.process import (
    EventLoopCounters,
    LeaderCounters,
    RequestCounters,
    ShardCounters,
    cache_families,
    event_loop_families,
    leader_families,
    request_families,
    shard_families,
)

__all__ = ["MetricsRegistry"]


class MetricsRegistry:
    """The metrics of one manager: creates counters by name, and is the Prometheus collector that exports them.

    The same name always returns the same counters.

    Attributes:
        registry: the prometheus_client registry. Register your own collectors there; the collectors of the process and
            the interpreter are already registered.
        requests: counts requests to the API server.
        event_loop: counts how often the event loop was blocked.
        unreadable: returns, per kind, the number of cached objects that cannot be decoded. Default: nothing.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestCounters()
        self.event_loop = EventLoopCounters()
        self.unreadable: Callable[[], Sequence[tuple[str, int]]] = list
        self._queues: dict[str, QueueCounters] = {}
        self._controllers: dict[str, ControllerCounters] = {}
        self._statuses: dict[str, StatusCounters] = {}
        self._leaders: dict[str, LeaderCounters] = {}
        self._shards: dict[tuple[str, str], ShardCounters] = {}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def queue(self, name: str) -> QueueCounters:
        """Return the counters of a work queue."""
        return self._queues.setdefault(name, QueueCounters(name))

    def controller(self, name: str) -> ControllerCounters:
        """Return the counters of a controller."""
        return self._controllers.setdefault(name, ControllerCounters(name))

    def status(self, name: str) -> StatusCounters:
        """Return the counters of a controller's status writes."""
        return self._statuses.setdefault(name, StatusCounters(name))

    def leader(self, name: str) -> LeaderCounters:
        """Return the counters of an elector."""
        return self._leaders.setdefault(name, LeaderCounters(name))

    def shard(self, ring: str, shard: str) -> ShardCounters:
        """Return the counters of a shard."""
        return self._shards.setdefault((ring, shard), ShardCounters(ring, shard))

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics; safe to call from any thread."""
        yield from queue_families(list(self._queues.values()))
        yield from controller_families(list(self._controllers.values()))
        yield from status_families(list(self._statuses.values()))
        yield from leader_families(list(self._leaders.values()))
        yield from shard_families(list(self._shards.values()))
        yield from request_families(self.requests)
        yield from event_loop_families(self.event_loop)
        yield from cache_families(self.unreadable())

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Render all metrics in a Prometheus text format.

        This takes milliseconds, or tens of milliseconds for some thousand series: call it in a thread.

        Args:
            accept: the Accept header of the scrape, which selects the text format. Default: the classic format.

        Returns:
            The content type and the body.
        """
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)
