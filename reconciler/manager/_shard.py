"""Do what sharding asks of a process: narrow what is watched, and decide before each reconcile whose the key is.

What the two ways promise:

* A key is reconciled only while this process's cache holds its object, and the object says that it is this shard's.
  Both are looked at right before each reconcile, also one that was delayed or is retried. What is gone, or another's,
  is let go: no reconcile, no timer, no back-off. So no reconcile hears that an object is gone; a finalizer does.
* In a ring a reconcile runs only while this shard's Lease is held, and every write is fenced by it; see `_leader`.
* A drain is acknowledged only with the key in hand, hence never while a reconcile of it runs, by a patch that holds for
  one version of the object alone. So the next shard begins after this one has ended.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from reconciler.cache import CachedClient, CachedObject, HashRange, Partition
from reconciler.controller import Permission, Responsibility, Watch
from reconciler.errors import ConfigurationError, Conflict, NotFound
from reconciler.manager._election import LeaderElection, lease_namespace
from reconciler.manager._sharding import ShardByIndex, Sharding, ShardRing
from reconciler.meta import GroupVersionKind, Request
from reconciler.objects import KindLike, gvk_from
from reconciler.telemetry import ShardCounters

__all__ = ["Shard", "shard_of"]

_log = logging.getLogger("reconciler.manager")

RING_LABEL = "alpha.sharding.timebertt.dev/controllerring"
"""The label of a Lease that says which ring it is of."""

SHARD_LABEL = "shard.alpha.sharding.timebertt.dev/"
"""The label of an object that says whose it is; the ring's name follows."""

DRAIN_LABEL = "drain.alpha.sharding.timebertt.dev/"
"""The label of an object that is to be handed over; the ring's name follows."""

_ATTEMPTS = 5
"""Acknowledgements of one drain against others' writes, before the key backs off."""


class Shard(Protocol):
    """Be this process's share.

    Attributes:
        ring: whose part it is.
        name: which part.
        election: the Lease to hold while it works; None for none.
        lease_labels: what this Lease is labelled with.
    """

    ring: str
    name: str
    election: LeaderElection | None
    lease_labels: Mapping[str, str]

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the part of a kind that is watched; None for all of it."""
        ...

    def responsibility(
        self, controller: Controlled, client: CachedClient, counters: ShardCounters, /
    ) -> Responsibility:
        """Return what a controller of a kind is to ask.

        Raises:
            ConfigurationError: the controller cannot be sharded so.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return what people are shown."""
        ...


class Controlled:
    """Describe a controller to a shard.

    Args:
        name: its name.
        kind: what it reconciles.
        watched: what else it watches.
    """

    def __init__(self, name: str, kind: KindLike, watched: Iterable[KindLike | Watch]) -> None:
        self.name = name
        self.kind = kind
        self.gvk = gvk_from(kind)
        self.watched = [gvk_from(each.kind if isinstance(each, Watch) else each) for each in watched]


def shard_of(sharding: Sharding, *, namespaces: Sequence[str] | None) -> Shard:
    """Return the share that a configuration describes.

    Raises:
        ConfigurationError: nobody says where the Lease is.
    """
    return RingShard(sharding, namespaces) if isinstance(sharding, ShardRing) else IndexShard(sharding)


class _Kinds:
    """Be the kinds that are shared out; the version of the API is only a form of the object."""

    def __init__(self, kinds: Sequence[KindLike]) -> None:
        self._known = {(gvk.group, gvk.kind) for gvk in map(gvk_from, kinds)}

    def __contains__(self, gvk: GroupVersionKind) -> bool:
        return (gvk.group, gvk.kind) in self._known

    def check(self, controller: Controlled) -> None:
        """Raise if a controller's objects are not shared out."""
        if controller.gvk not in self:
            raise ConfigurationError(
                f"controller {controller.name!r} reconciles {controller.gvk}, which is not among the kinds= of the "
                "manager's sharding: each replica would reconcile all of it. Add it there, or run it in a manager of "
                "its own"
            )


class RingShard:
    """Be the share that a sharder assigns by labels.

    Args:
        ring: the configuration.
        namespaces: what the manager watches.
    """

    def __init__(self, ring: ShardRing, namespaces: Sequence[str] | None) -> None:
        namespace = lease_namespace(ring.namespace, namespaces)
        if namespace is None:
            raise ConfigurationError(
                f"ShardRing({ring.ring!r}) needs a namespace for its Lease: this is no pod, so give namespace="
            )
        self.ring = ring.ring
        self.name = ring.name
        self.election: LeaderElection | None = ring.election(namespace)
        self.lease_labels: Mapping[str, str] = {RING_LABEL: ring.ring}
        self._kinds = _Kinds(ring.kinds)

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the objects that are labelled with this shard's name."""
        return Partition(labels=f"{SHARD_LABEL}{self.ring}={self.name}") if gvk in self._kinds else None

    def responsibility(
        self, controller: Controlled, client: CachedClient, counters: ShardCounters, /
    ) -> Responsibility:
        """Return what reads the labels and acknowledges drains."""
        self._kinds.check(controller)
        return _Labelled(self, controller, client, counters)

    def describe(self) -> dict[str, Any]:
        """Return ring and shard."""
        return {"ring": self.ring, "shard": self.name}


class IndexShard:
    """Be the share that the replica's index gives.

    Args:
        configuration: how many there are, and which this is.
    """

    def __init__(self, configuration: ShardByIndex) -> None:
        self.ring = f"of {configuration.replicas}"
        self.name = str(configuration.number)
        self.election: LeaderElection | None = None
        self.lease_labels: Mapping[str, str] = {}
        self._hashes = HashRange.share(configuration.number, configuration.replicas)
        self._replicas = configuration.replicas
        self._kinds = _Kinds(configuration.kinds)

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the objects whose uid's hash is in this replica's range."""
        return Partition(hashes=self._hashes) if gvk in self._kinds else None

    def responsibility(
        self, controller: Controlled, client: CachedClient, counters: ShardCounters, /
    ) -> Responsibility:
        """Return what looks into the cache."""
        self._kinds.check(controller)
        for gvk in controller.watched:
            if gvk in self._kinds:
                raise ConfigurationError(
                    f"controller {controller.name!r} watches {gvk}, which is shared out by the hash of its own uid: "
                    "another replica would hear of what concerns an object here. Leave it out of kinds="
                )
        return _Cached(controller, client, counters)

    def describe(self) -> dict[str, Any]:
        """Return index and range."""
        return {"index": int(self.name), "replicas": self._replicas, "hashes": str(self._hashes)}


class _Cached:
    """Answer for what the cache holds.

    Args:
        controller: whose keys they are.
        client: reads the cache.
        counters: count what is let go.
    """

    shared = True

    def __init__(self, controller: Controlled, client: CachedClient, counters: ShardCounters) -> None:
        self._controller = controller
        self._client = client
        self._counters = counters

    @property
    def permissions(self) -> Sequence[Permission]:
        return ()

    def owns(self, labels: Mapping[str, str], /) -> bool:  # noqa: ARG002 - a uid stays, and its hash with it
        return True

    def insists(self, cached: CachedObject, /) -> bool:  # noqa: ARG002 - nothing is handed over
        return False

    async def admits(self, request: Request, /) -> bool:
        """Say whether the cache holds the object."""
        return await self._held(request) is not None

    async def _held(self, request: Request) -> CachedObject | None:
        cached = await self._client.peek(self._controller.kind, request)
        if cached is None:
            self._counters.leave(self._controller.name)
        return cached


class _Labelled(_Cached):
    """Answer for what is labelled, and hand over what is to be drained."""

    def __init__(self, shard: RingShard, controller: Controlled, client: CachedClient, counters: ShardCounters) -> None:
        super().__init__(controller, client, counters)
        self._shard_label = SHARD_LABEL + shard.ring
        self._drain_label = DRAIN_LABEL + shard.ring
        self._name = shard.name

    @property
    def permissions(self) -> Sequence[Permission]:
        return (Permission(self._controller.kind, "patch"),)

    def owns(self, labels: Mapping[str, str], /) -> bool:
        return labels.get(self._shard_label) == self._name

    def insists(self, cached: CachedObject, /) -> bool:
        return self._drain_label in cached.labels

    async def admits(self, request: Request, /) -> bool:
        """Say whether the object is this shard's, and not to be drained; if it is, hand it over."""
        cached = await self._held(request)
        if cached is None:
            return False
        labels, version = cached.labels, str(cached.version)
        for attempts_left in reversed(range(_ATTEMPTS)):
            if not self.owns(labels):
                self._counters.leave(self._controller.name)
                return False
            if self._drain_label not in labels:
                return True
            try:
                await self._hand_over(request, version)
            except Conflict:
                if not attempts_left:
                    raise
                # Somebody else has written; what is there now decides, and the cache may not know it yet.
                labels, version = await self._now(request)
            else:
                return False
        return False

    async def _now(self, request: Request) -> tuple[Mapping[str, str], str]:
        """Return labels and version as the server has them; none of what is gone."""
        try:
            found = await self._client.live.get(self._controller.kind, request.name, request.namespace)
        except NotFound:
            return {}, ""
        metadata = found.to_dict()["metadata"]
        return metadata.get("labels") or {}, str(metadata["resourceVersion"])

    async def _hand_over(self, request: Request, version: str) -> None:
        labels = {self._shard_label: None, self._drain_label: None}
        with contextlib.suppress(NotFound):
            await self._client.patch(
                self._controller.kind,
                request.name,
                request.namespace,
                patch={"metadata": {"resourceVersion": version, "labels": labels}},
            )
            self._counters.drain(self._controller.name)
            _log.debug("%s hands %s over: it is drained from shard %s", self._controller.name, request, self._name)
