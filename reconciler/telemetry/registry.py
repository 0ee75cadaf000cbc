"""The metrics registry of a manager, and the metrics of a process: election, requests, cache and shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from reconciler.telemetry.controllers import (
    ControllerCounters,
    QueueCounters,
    StatusCounters,
    attribute_families,
    controller_families,
    counter,
    gauge,
    queue_families,
    status_families,
)
from reconciler.telemetry.tracing import RequestCounters


class EventLoopCounters:
    """Counters of the event loop.

    Attributes:
        blocked: how often the loop ran nothing for more than a second, because code did not await.
    """

    def __init__(self) -> None:
        self.blocked = 0


class LeaderCounters:
    """Counters of an elector.

    Args:
        name: the lease's name; the label ``name``.

    Attributes:
        leading: whether this process is the leader.
        slow_paths: renewals that had to read the lease first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.leading = False
        self.slow_paths = 0


def event_loop_families(loop: EventLoopCounters) -> Iterable[Metric]:
    """Yield the metric of the event loop."""
    yield counter(
        "reconciler_event_loop_blocked",
        "Total number of times that code blocked the event loop for more than a second.",
        (),
        [((), loop.blocked)],
    )


def leader_families(leaders: Sequence[LeaderCounters]) -> Iterable[Metric]:
    """Yield the metrics of leader election."""
    yield gauge(
        "leader_election_master_status",
        "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. "
        "'name' is the string used to identify the lease. Please make sure to group by name.",
        ("name",),
        [((leader.name,), float(leader.leading)) for leader in leaders],
    )
    yield counter(
        "leader_election_slowpath",
        "Total number of slow path exercised in renewing leader leases. 'name' is the string used to identify the "
        "lease. Please make sure to group by name.",
        ("name",),
        [((leader.name,), leader.slow_paths) for leader in leaders],
    )


def request_families(requests: RequestCounters) -> Iterable[Metric]:
    """Yield the metric of requests to the API server."""
    yield counter(
        "rest_client_requests",
        "Number of HTTP requests, partitioned by status code, method, and host.",
        ("code", "method", "host"),
        requests.samples(),
    )


class CachedKind(NamedTuple):
    """What the cache contains of one kind.

    Attributes:
        kind: as text.
        unreadable: number of objects that cannot be decoded.
        bytes: total length of the documents.
        held: bytes of memory that the documents take.
    """

    kind: str
    unreadable: int
    bytes: int
    held: int


_CACHE_GAUGES = {
    "reconciler_cache_unreadable_objects": (
        "Current number of cached objects that cannot be decoded, in whole or in part.",
        "unreadable",
    ),
    "reconciler_cache_document_bytes": ("Total length of the cached documents in bytes.", "bytes"),
    "reconciler_cache_held_bytes": (
        "Memory that the cached documents take in bytes; idle ones are compressed.",
        "held",
    ),
}


def cache_families(kinds: Sequence[CachedKind]) -> Iterable[Metric]:
    """Yield the metrics of the cache."""
    return attribute_families(gauge, _CACHE_GAUGES, ("kind",), [((each.kind,), each) for each in kinds])


class ShardCounters:
    """Counters of a shard.

    Args:
        ring: the ring's name; the label ``ring``.
        shard: the shard's name; the label ``shard``.

    Attributes:
        drained: objects handed over to another shard, by controller.
        skipped: reconciles skipped because the object no longer belonged to this shard, by controller.
    """

    def __init__(self, ring: str, shard: str) -> None:
        self.ring = ring
        self.shard = shard
        self.drained: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()


def shard_families(shards: Sequence[ShardCounters]) -> Iterable[Metric]:
    """Yield the metrics of shards."""
    yield gauge(
        "reconciler_shard",
        "Always 1; the labels name the ring and the shard of this process.",
        ("ring", "shard"),
        [((each.ring, each.shard), 1.0) for each in shards],
    )
    yield counter(
        "reconciler_shard_drained",
        "Total number of objects that this process handed over to another shard, per controller.",
        ("controller", "shard"),
        [((name, each.shard), count) for each in shards for name, count in list(each.drained.items())],
    )
    yield counter(
        "reconciler_shard_let_go",
        "Total number of reconciles skipped because the object belongs to another shard, per controller.",
        ("controller", "shard"),
        [((name, each.shard), count) for each in shards for name, count in list(each.skipped.items())],
    )


@dataclass(frozen=True, slots=True)
class RecordingStatistics:
    """The figures of a recording.

    Attributes:
        active: whether it records now.
        reconciles: reconciles that were written.
        lost: reconciles that were not, because the recording ended early, or because there were too many for it.
        bytes: bytes of its files now.
        problem: why it ended early, or why it loses reconciles now; None if it does neither.
    """

    active: bool
    reconciles: int
    lost: int
    bytes: int
    problem: str | None


def recording_families(recording: RecordingStatistics | None) -> Iterable[Metric]:
    """Yield the metrics of a recording, if there is one."""
    if recording is None:
        return
    yield gauge(
        "reconciler_recording_active",
        "Whether reconciles are recorded; 0 after the recording ended early, because of a full or slow disk.",
        (),
        [((), float(recording.active))],
    )
    yield gauge("reconciler_recording_bytes", "Bytes of the files of the recording.", (), [((), recording.bytes)])
    yield counter(
        "reconciler_recording_reconciles",
        "Total number of reconciles, by whether they were written to the recording or lost.",
        ("result",),
        [(("written",), recording.reconciles), (("lost",), recording.lost)],
    )


class MetricsRegistry:
    """The metrics of one manager: creates counters by name, and is the Prometheus collector that exports them.

    The same name always returns the same counters.

    Attributes:
        registry: the prometheus_client registry. Register your own collectors there; the collectors of the process and
            the interpreter are already registered.
        requests: counts requests to the API server.
        event_loop: counts how often the event loop was blocked.
        cached_kinds: returns what the cache contains of each kind. Default: nothing.
        recording: returns the figures of the recording. Default: there is none.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestCounters()
        self.event_loop = EventLoopCounters()
        self.cached_kinds: Callable[[], Sequence[CachedKind]] = list
        self.recording: Callable[[], RecordingStatistics | None] = lambda: None
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
        """Yield all metrics that have a value; safe to call from any thread."""
        families = (
            queue_families(list(self._queues.values())),
            controller_families(list(self._controllers.values())),
            status_families(list(self._statuses.values())),
            leader_families(list(self._leaders.values())),
            shard_families(list(self._shards.values())),
            request_families(self.requests),
            event_loop_families(self.event_loop),
            cache_families(self.cached_kinds()),
            recording_families(self.recording()),
        )
        return chain.from_iterable(families)

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
