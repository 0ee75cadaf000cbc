"""The shard of a process: which part of the objects it watches and reconciles, and which Lease it holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from reconciler.cache import CachedClient, HashRange, Partition
from reconciler.controller import ShardFilter, Watch
from reconciler.errors import ConfigurationError
from reconciler.manager.election.options import LeaderElection, lease_namespace
from reconciler.manager.sharding.filters import IndexShardFilter, KindInProgress, RingLabels, RingShardFilter
from reconciler.manager.sharding.options import ShardByIndex, Sharding, ShardRing
from reconciler.meta import GroupVersionKind
from reconciler.objects import KindLike, gvk_from
from reconciler.telemetry import MetricsRegistry
from reconciler.wire import JSONObject

__all__ = ["Shard", "new_shard"]

RING_LABEL = "alpha.sharding.timebertt.dev/controllerring"
"""The label of a Lease that names its ring."""

SHARD_LABEL = "shard.alpha.sharding.timebertt.dev/"
"""The label of an object that names its shard; the ring's name follows."""

DRAIN_LABEL = "drain.alpha.sharding.timebertt.dev/"
"""The label of an object that its shard must hand over; the ring's name follows."""


class Shard(Protocol):
    """The shard of this process.

    Attributes:
        name: the shard's name or index; None without sharding.
        election: options of the Lease that must be held while this process works; None if there is no such Lease.
        lease_labels: the labels of that Lease.
        debug_info: shown at ``/debug/queue``; None for nothing.
    """

    name: str | None
    election: LeaderElection | None
    lease_labels: Mapping[str, str]
    debug_info: JSONObject | None

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the part of a kind that this process watches; None for all objects."""
        ...

    def shard_filter(
        self, name: str, kind: KindLike | None, watched: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        """Return the shard filter of a controller; None without sharding, or if the kind is unknown.

        Args:
            name: the controller's name.
            kind: the kind that it reconciles.
            watched: the other kinds that it watches.
            client: reads and writes objects.

        Raises:
            ConfigurationError: the controller cannot be sharded in this way.
        """
        ...


def new_shard(
    sharding: Sharding | None, leader_election: object, *, namespaces: Sequence[str] | None, metrics: MetricsRegistry
) -> Shard:
    """Return the shard for the given options.

    Raises:
        ConfigurationError: the options are invalid, leader election is enabled too, or the Lease has no namespace.
    """
    if sharding is None:
        return Unsharded()
    if not isinstance(sharding, (ShardRing, ShardByIndex)):
        raise ConfigurationError(f"sharding= takes a ShardRing or a ShardByIndex, not {sharding!r}")
    if leader_election is not None:
        raise ConfigurationError(
            "sharding= and leader_election= exclude each other: a single leader reconciles everything. Run what must "
            "run only once in a manager of its own"
        )
    return (
        RingShard(sharding, namespaces, metrics) if isinstance(sharding, ShardRing) else IndexShard(sharding, metrics)
    )


class _ShardedKinds:
    """The set of sharded kinds, compared by group and kind: an API version is only a representation."""

    def __init__(self, kinds: Sequence[KindLike]) -> None:
        self._known = {(gvk.group, gvk.kind) for gvk in map(gvk_from, kinds)}

    def __contains__(self, gvk: GroupVersionKind) -> bool:
        return (gvk.group, gvk.kind) in self._known

    def check(self, name: str, kind: KindLike) -> None:
        """Raise if a controller's kind is not sharded."""
        if gvk_from(kind) not in self:
            raise ConfigurationError(
                f"controller {name!r} reconciles {gvk_from(kind)}, which is not among the kinds= of the manager's "
                "sharding, so every replica would reconcile all objects. Add the kind there, or run this controller in "
                "a manager of its own"
            )


class Unsharded:
    """The shard of a process without sharding: all objects."""

    name: str | None = None
    election: LeaderElection | None = None
    lease_labels: Mapping[str, str] = {}
    debug_info: JSONObject | None = None

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:  # noqa: ARG002 - every kind is whole
        """Return None."""
        return None

    def shard_filter(self, *_: object) -> ShardFilter | None:
        """Return None."""
        return None


class RingShard:
    """A shard of a ring: the objects that a sharder assigns to it by label.

    Args:
        ring: the options.
        namespaces: the namespaces that the manager watches.
        metrics: counts handovers.
    """

    def __init__(self, ring: ShardRing, namespaces: Sequence[str] | None, metrics: MetricsRegistry) -> None:
        namespace = lease_namespace(ring.namespace, namespaces)
        if namespace is None:
            raise ConfigurationError(
                f"ShardRing({ring.ring!r}) needs a namespace for its Lease: this process does not run in a pod, so "
                "pass namespace="
            )
        self._shard = ring.name
        self.name: str | None = ring.name
        self.election: LeaderElection | None = ring.election(namespace)
        self.lease_labels: Mapping[str, str] = {RING_LABEL: ring.ring}
        self.debug_info: JSONObject | None = {"ring": ring.ring, "shard": ring.name}
        self._labels = RingLabels(SHARD_LABEL + ring.ring, DRAIN_LABEL + ring.ring)
        self._kinds = _ShardedKinds(ring.kinds)
        self._counters = metrics.shard(ring.ring, ring.name)
        self._in_progress: defaultdict[tuple[str, str], KindInProgress] = defaultdict(KindInProgress)

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the objects labeled with this shard's name."""
        return Partition(labels=f"{self._labels.shard}={self._shard}") if gvk in self._kinds else None

    def shard_filter(
        self, name: str, kind: KindLike | None, _: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        """Return the filter that reads the labels and acknowledges drains."""
        if kind is None:
            return None
        self._kinds.check(name, kind)
        gvk = gvk_from(kind)
        return RingShardFilter(
            name,
            kind,
            client,
            self._counters,
            labels=self._labels,
            name=self._shard,
            in_progress=self._in_progress[gvk.group, gvk.kind],
        )


class IndexShard:
    """A shard by index: the objects whose uid hashes into this replica's range.

    Args:
        replica: the options.
        metrics: counts skipped reconciles.
    """

    election: LeaderElection | None = None
    lease_labels: Mapping[str, str] = {}

    def __init__(self, replica: ShardByIndex, metrics: MetricsRegistry) -> None:
        self.name: str | None = str(replica.number)
        self._hashes = HashRange.share(replica.number, replica.replicas)
        self.debug_info: JSONObject | None = {
            "index": replica.number,
            "replicas": replica.replicas,
            "hashes": str(self._hashes),
        }
        self._kinds = _ShardedKinds(replica.kinds)
        self._counters = metrics.shard(f"of {replica.replicas}", str(replica.number))

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the objects whose uid hashes into this replica's range."""
        return Partition(hashes=self._hashes) if gvk in self._kinds else None

    def shard_filter(
        self, name: str, kind: KindLike | None, watched: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        """Return the filter that looks the object up in the cache."""
        if kind is None:
            return None
        self._kinds.check(name, kind)
        for each in watched:
            gvk = gvk_from(each.kind if isinstance(each, Watch) else each)
            if gvk in self._kinds:
                raise ConfigurationError(
                    f"controller {name!r} watches {gvk}, which is sharded by the hash of its own uid: events that "
                    f"concern an object of this replica would reach another one. Remove {gvk.kind} from kinds=, and "
                    f"run a controller of {gvk.kind} in a second manager of this process, with kinds=[{gvk.kind}]"
                )
        return IndexShardFilter(name, kind, client, self._counters)
