"""The shard of a process: which part of the objects it watches and reconciles, and which Lease it holds."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from reconciler._core.wire import JSONObject
from reconciler.cache import CachedClient, HashRange, Partition
from reconciler.controller import ShardFilter, Watch
from reconciler.errors import ConfigurationError
from reconciler.manager.election.options import LeaderElection, lease_namespace
from reconciler.manager.sharding.filters import IndexShardFilter, KindInProgress, RingLabels, RingShardFilter
from reconciler.manager.sharding.options import ShardByIndex, Sharding, ShardRing
from reconciler.meta import GroupVersionKind
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.telemetry import MetricsRegistry

__all__ = ["Shard", "new_shard"]

RING_LABEL = "alpha.sharding.timebertt.dev/controllerring"
"""The label of a Lease that names its ring."""

SHARD_LABEL = "shard.alpha.sharding.timebertt.dev/"
"""The label of an object that names its shard; the ring's name follows."""

DRAIN_LABEL = "drain.alpha.sharding.timebertt.dev/"
"""The label of an object that its shard must hand over; the ring's name follows."""

_claimed: dict[tuple[object, ...], RingShard] = {}
"""The Leases of the rings that run in this process."""


class Shard:
    """The shard of this process; of this class without sharding, when it has all objects.

    Attributes:
        name: the shard's name or index; None without sharding.
        election: options of the Lease that must be held while this process works; None if there is no such Lease.
        lease_labels: the labels of that Lease.
        debug_info: shown at ``/debug/queue``; None for nothing.
    """

    name: str | None = None
    election: LeaderElection | None = None
    lease_labels: Mapping[str, str] = {}
    debug_info: JSONObject | None = None

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:  # noqa: ARG002 - every kind is whole
        """Return the part of a kind that this process watches; None for all objects."""
        return None

    def claimed(self, cluster: object) -> AbstractContextManager[None]:  # noqa: ARG002 - it has no Lease
        """Claim the shard's Lease while its manager runs; `cluster` identifies the API server.

        Raises:
            ConfigurationError: another manager of this process has the Lease of this name.
        """
        return contextlib.nullcontext()

    def shard_filter(
        self,
        name: str,  # noqa: ARG002 - it has all objects
        kind: KindLike | None,  # noqa: ARG002
        watched: Sequence[KindLike | Watch],  # noqa: ARG002
        client: CachedClient,  # noqa: ARG002
        /,
    ) -> ShardFilter | None:
        """Return the shard filter of a controller; None without sharding, or if the kind is unknown.

        `watched` are the other kinds that it watches.

        Raises:
            ConfigurationError: the controller cannot be sharded in this way.
        """
        return None


def new_shard(
    sharding: Sharding | None, leader_election: object, *, namespaces: Sequence[str] | None, metrics: MetricsRegistry
) -> Shard:
    """Return the shard for the given options.

    Raises:
        ConfigurationError: the options are invalid, leader election is enabled too, or the Lease has no namespace.
    """
    if sharding is None:
        return Shard()
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


class _PartialShard(Shard):
    """A shard that has a part of the objects of some kinds.

    Kinds are compared by group and kind: an API version is only a representation.
    """

    def __init__(self, kinds: Sequence[KindLike], part: Partition) -> None:
        self._kinds = {(gvk.group, gvk.kind) for gvk in map(gvk_from, kinds)}
        self._part = part

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        return self._part if self._shares(gvk) else None

    def shard_filter(
        self, name: str, kind: KindLike | None, watched: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        if kind is None:
            return None
        if not self._shares(gvk_from(kind)):
            raise ConfigurationError(
                f"controller {name!r} reconciles {gvk_from(kind)}, which is not among the kinds= of the manager's "
                "sharding, so every replica would reconcile all objects. Add the kind there, or run this controller in "
                "a manager of its own"
            )
        return self._filter(name, kind, watched, client)

    def _shares(self, gvk: GroupVersionKind) -> bool:
        return (gvk.group, gvk.kind) in self._kinds

    def _filter(
        self, name: str, kind: KindLike, watched: Sequence[KindLike | Watch], client: CachedClient
    ) -> ShardFilter:
        raise NotImplementedError


class RingShard(_PartialShard):
    """A shard of a ring: the objects that a sharder assigns to it by label."""

    def __init__(self, ring: ShardRing, namespaces: Sequence[str] | None, metrics: MetricsRegistry) -> None:
        what = f"ShardRing({ring.ring!r})"
        namespace = lease_namespace(ring.namespace, namespaces, what=what, option="namespace")
        self._labels = RingLabels(SHARD_LABEL + ring.ring, DRAIN_LABEL + ring.ring)
        super().__init__(ring.kinds, Partition(labels=f"{self._labels.shard}={ring.name}"))
        self._shard = self.name = ring.name
        self._namespace = namespace
        self.election = ring.election(namespace)
        self.lease_labels = {RING_LABEL: ring.ring}
        self.debug_info = {"ring": ring.ring, "shard": ring.name}
        self._counters = metrics.shard(ring.ring, ring.name)
        self._in_progress: defaultdict[tuple[str, str], KindInProgress] = defaultdict(KindInProgress)

    @contextlib.contextmanager
    def claimed(self, cluster: object) -> Iterator[None]:
        lease = (cluster, self._namespace, self._shard)
        if _claimed.setdefault(lease, self) is not self:
            raise ConfigurationError(
                f"another ring of this process has the Lease {self._namespace}/{self._shard}, so this one would wait "
                "for it as long as that one runs. A Lease is named after its shard, by default after the host: pass "
                "another shard= to one of them"
            )
        try:
            yield
        finally:
            del _claimed[lease]

    def _filter(
        self,
        name: str,
        kind: KindLike,
        watched: Sequence[KindLike | Watch],  # noqa: ARG002 - of other kinds, whose objects have labels of their own
        client: CachedClient,
    ) -> ShardFilter:
        gvk = gvk_from(kind)
        in_progress = self._in_progress[gvk.group, gvk.kind]
        return RingShardFilter(name, kind, client, self._counters, self._labels, self._shard, in_progress)


class IndexShard(_PartialShard):
    """A shard by index: the objects whose uid hashes into this replica's range."""

    def __init__(self, replica: ShardByIndex, metrics: MetricsRegistry) -> None:
        hashes = HashRange.share(replica.number, replica.replicas)
        super().__init__(replica.kinds, Partition(hashes=hashes))
        self.name = str(replica.number)
        self.debug_info = {"index": replica.number, "replicas": replica.replicas, "hashes": str(hashes)}
        self._counters = metrics.shard(f"of {replica.replicas}", self.name)

    def _filter(
        self, name: str, kind: KindLike, watched: Sequence[KindLike | Watch], client: CachedClient
    ) -> ShardFilter:
        for each in watched:
            gvk = gvk_from(each.kind if isinstance(each, Watch) else each)
            if self._shares(gvk):
                raise ConfigurationError(
                    f"controller {name!r} watches {gvk}, which is sharded by the hash of its own uid: events that "
                    f"concern an object of this replica would reach another one. Remove {gvk.kind} from kinds=, and "
                    f"run a controller of {gvk.kind} in a second manager of this process, with kinds=[{gvk.kind}]"
                )
        return IndexShardFilter(name, kind, client, self._counters)
