"""Hold all metrics of one manager and write them down when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from reconciler.telemetry.controllers import ControllerCounters, controller_families
from reconciler.telemetry.processes import (
    LeaderCounters,
    RequestCounters,
    cache_families,
    leader_families,
    request_families,
)
from reconciler.telemetry.queues import QueueCounters, queue_families
from reconciler.telemetry.shards import ShardCounters, shard_families
from reconciler.telemetry.statuses import StatusCounters, status_families

__all__ = ["MetricsRegistry"]


class MetricsRegistry:
    """Make the counters of controllers, and be the Prometheus collector that reads them.

    Names are unique in one registry: asked twice for a name, it gives the same counters.

    Attributes:
        registry: the prometheus_client registry; register collectors of your own there. The process' and the
            interpreter's are there already.
        requests: counts requests to the API server.
        unreadable: returns kind and number of the cached objects that cannot be decoded. Default: none.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestCounters()
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
        """Make Prometheus metrics of all numbers; may be called from any thread."""
        yield from queue_families(list(self._queues.values()))
        yield from controller_families(list(self._controllers.values()))
        yield from status_families(list(self._statuses.values()))
        yield from leader_families(list(self._leaders.values()))
        yield from shard_families(list(self._shards.values()))
        yield from request_families(self.requests)
        yield from cache_families(self.unreadable())

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Write all metrics down.

        Takes milliseconds, for some thousand series tens of them: call it in a thread.

        Args:
            accept: the Accept header of the scrape, which chooses the text format. Defaults to the classic one.

        Returns:
            The content type and the body.
        """
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)
