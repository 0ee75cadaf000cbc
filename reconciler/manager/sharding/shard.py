"""Say which share of the objects a process answers for, and what that asks of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from reconciler.cache import CachedClient, HashRange, Partition
from reconciler.controller import ShardFilter, Watch
from reconciler.errors import ConfigurationError
from reconciler.manager.election.options import LeaderElection, lease_namespace
from reconciler.manager.sharding.handover import Held, Labels, Ours
from reconciler.manager.sharding.options import ShardByIndex, Sharding, ShardRing
from reconciler.meta import GroupVersionKind
from reconciler.objects import KindLike, gvk_from
from reconciler.telemetry import MetricsRegistry

__all__ = ["Shard", "shard_of"]

RING_LABEL = "alpha.sharding.timebertt.dev/controllerring"
"""The label of a Lease that says which ring it is of."""

SHARD_LABEL = "shard.alpha.sharding.timebertt.dev/"
"""The label of an object that says whose it is; the ring's name follows."""

DRAIN_LABEL = "drain.alpha.sharding.timebertt.dev/"
"""The label of an object that is to be handed over; the ring's name follows."""


class Shard(Protocol):
    """Be this process's share.

    Attributes:
        name: which part; None for everything.
        election: the Lease to hold while it works; None for none.
        lease_labels: what this Lease is labelled with.
        told: what people are shown; None for nothing.
    """

    name: str | None
    election: LeaderElection | None
    lease_labels: Mapping[str, str]
    told: Mapping[str, Any] | None

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the part of a kind that is watched; None for all of it."""
        ...

    def responsibility(
        self, name: str, kind: KindLike | None, watched: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        """Return what a controller is to ask; None for one that need not, or whose kind is not known.

        Args:
            name: the controller's.
            kind: what it reconciles.
            watched: what else it watches.
            client: reads and writes.

        Raises:
            ConfigurationError: the controller cannot be sharded so.
        """
        ...


def shard_of(
    sharding: Sharding | None, leader_election: object, *, namespaces: Sequence[str] | None, metrics: MetricsRegistry
) -> Shard:
    """Return the share that a configuration describes.

    Raises:
        ConfigurationError: it describes none, does not fit a leader election, or nobody says where the Lease is.
    """
    if sharding is None:
        return Everything()
    if not isinstance(sharding, (ShardRing, ShardByIndex)):
        raise ConfigurationError(f"sharding= takes a ShardRing or a ShardByIndex, not {sharding!r}")
    if leader_election is not None:
        raise ConfigurationError(
            "sharding= and leader_election= exclude each other: with one leader there is nothing to share. What must "
            "run once belongs into a manager of its own"
        )
    return (
        RingShard(sharding, namespaces, metrics) if isinstance(sharding, ShardRing) else IndexShard(sharding, metrics)
    )


class _Kinds:
    """Be the kinds that are shared out; the version of the API is only a form of the object."""

    def __init__(self, kinds: Sequence[KindLike]) -> None:
        self._known = {(gvk.group, gvk.kind) for gvk in map(gvk_from, kinds)}

    def __contains__(self, gvk: GroupVersionKind) -> bool:
        return (gvk.group, gvk.kind) in self._known

    def check(self, name: str, kind: KindLike) -> None:
        """Raise if a controller's objects are not shared out."""
        if gvk_from(kind) not in self:
            raise ConfigurationError(
                f"controller {name!r} reconciles {gvk_from(kind)}, which is not among the kinds= of the manager's "
                "sharding: each replica would reconcile all of it. Add it there, or run it in a manager of its own"
            )


class Everything:
    """Be the share of a process that shares with nobody."""

    name: str | None = None
    election: LeaderElection | None = None
    lease_labels: Mapping[str, str] = {}
    told: Mapping[str, Any] | None = None

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:  # noqa: ARG002 - every kind is whole
        """Return None."""
        return None

    def responsibility(self, *_: object) -> ShardFilter | None:
        """Return None."""
        return None


class RingShard:
    """Be the share that a sharder assigns by labels.

    Args:
        ring: the configuration.
        namespaces: what the manager watches.
        metrics: count what is handed over.
    """

    def __init__(self, ring: ShardRing, namespaces: Sequence[str] | None, metrics: MetricsRegistry) -> None:
        namespace = lease_namespace(ring.namespace, namespaces)
        if namespace is None:
            raise ConfigurationError(
                f"ShardRing({ring.ring!r}) needs a namespace for its Lease: this is no pod, so give namespace="
            )
        self._shard = ring.name
        self.name: str | None = ring.name
        self.election: LeaderElection | None = ring.election(namespace)
        self.lease_labels: Mapping[str, str] = {RING_LABEL: ring.ring}
        self.told: Mapping[str, Any] | None = {"ring": ring.ring, "shard": ring.name}
        self._labels = Labels(SHARD_LABEL + ring.ring, DRAIN_LABEL + ring.ring)
        self._kinds = _Kinds(ring.kinds)
        self._counters = metrics.shard(ring.ring, ring.name)

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the objects that are labelled with this shard's name."""
        return Partition(labels=f"{self._labels.shard}={self._shard}") if gvk in self._kinds else None

    def responsibility(
        self, name: str, kind: KindLike | None, _: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        """Return what reads the labels and acknowledges drains."""
        if kind is None:
            return None
        self._kinds.check(name, kind)
        return Ours(name, kind, client, self._counters, labels=self._labels, name=self._shard)


class IndexShard:
    """Be the share that the replica's index gives.

    Args:
        replica: how many there are, and which this is.
        metrics: count what is let go.
    """

    election: LeaderElection | None = None
    lease_labels: Mapping[str, str] = {}

    def __init__(self, replica: ShardByIndex, metrics: MetricsRegistry) -> None:
        self.name: str | None = str(replica.number)
        self._hashes = HashRange.share(replica.number, replica.replicas)
        self.told: Mapping[str, Any] | None = {
            "index": replica.number,
            "replicas": replica.replicas,
            "hashes": str(self._hashes),
        }
        self._kinds = _Kinds(replica.kinds)
        self._counters = metrics.shard(f"of {replica.replicas}", str(replica.number))

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the objects whose uid's hash is in this replica's range."""
        return Partition(hashes=self._hashes) if gvk in self._kinds else None

    def responsibility(
        self, name: str, kind: KindLike | None, watched: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        """Return what looks into the cache."""
        if kind is None:
            return None
        self._kinds.check(name, kind)
        for each in watched:
            gvk = gvk_from(each.kind if isinstance(each, Watch) else each)
            if gvk in self._kinds:
                raise ConfigurationError(
                    f"controller {name!r} watches {gvk}, which is shared out by the hash of its own uid: another "
                    "replica would hear of what concerns an object here. Leave it out of kinds="
                )
        return Held(name, kind, client, self._counters)
