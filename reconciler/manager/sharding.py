"""Sharding: several active replicas, each of which watches and reconciles a part of the objects.

What is guaranteed:

* A key is reconciled only while this process's cache holds its object and the object belongs to this shard. Both are
  checked right before each reconcile, including delayed and retried ones. A key whose object is gone or belongs to
  another shard is dropped: no reconcile, no timer, no backoff. A reconcile is therefore not notified that an object is
  gone; use a finalizer.
* In a ring a reconcile runs only while this shard's Lease is held, and every write is fenced by it; see `Elector`.
* A drain is acknowledged by a worker that took the key, instead of a reconcile, and only while no other controller of
  this process reconciles the object. So it never happens during a reconcile of the key. The patch applies to one
  version of the object only. The next shard therefore starts after this shard has finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from weakref import WeakValueDictionary

from reconciler._core.durations import Seconds
from reconciler._core.wire import JSONObject
from reconciler.cache import CachedClient, CachedObject
from reconciler.cache.scope import HashRange, Partition
from reconciler.controller import Permission, ShardFilter, Watch
from reconciler.controller.wake.predicates import Unsharded
from reconciler.errors import ConfigurationError, Conflict, NotFound
from reconciler.manager.election import LeaderElection, lease_namespace
from reconciler.meta import GroupVersionKind, Request
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.telemetry.registry import MetricsRegistry, ShardCounters

_log = logging.getLogger("reconciler.manager")


_MAX_LABEL = 63
"""Characters of a label's value, and of a label's key after the slash."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_ORDINAL = re.compile(r"-(\d+)$")


@dataclass(frozen=True)
class ShardRing:
    """Options of one shard of a ring, to which a sharder assigns objects as in kubernetes-controller-sharding.

    The process holds its own Lease and works only while it holds it. It watches only objects labeled with its name, and
    hands an object over when the sharder asks for it. The times are those of `LeaderElection`.

    Attributes:
        ring: the name of the ControllerRing, at most 63 characters.
        kinds: the kinds that the sharder assigns: the ring's ``resources`` and ``controlledResources``. They must
            include the kinds of all controllers of the manager.
        shard: the name of this process, at most 63 characters, unique among running shards. Default: the host name,
            which in a pod is the pod's name.
        namespace: the Lease's namespace. Default: the pod's namespace, or the only namespace that the manager watches.
        lease_duration: the time after which the sharder may consider the shard dead. Default 15.
        renew_deadline: the time after the start of its last successful renewal at which this process stops. Default 10.
        retry_period: the time between renewals. Default 2.

    Raises:
        ConfigurationError: a name is not a valid label value, no kind is given, or the times are inconsistent.
    """

    ring: str
    kinds: Sequence[KindLike]
    _: KW_ONLY
    shard: str | None = None
    namespace: str | None = None
    lease_duration: Seconds = Seconds(15.0)
    renew_deadline: Seconds = Seconds(10.0)
    retry_period: Seconds = Seconds(2.0)

    def __post_init__(self) -> None:
        _check_kinds(f"ShardRing({self.ring!r})", self.kinds)
        object.__setattr__(self, "shard", self.shard or socket.gethostname())
        for what, name in (("ring", self.ring), ("shard", self.name)):
            if not _NAME.fullmatch(name) or len(name) > _MAX_LABEL:
                raise ConfigurationError(
                    f"ShardRing: the {what} name {name!r} is not a valid label value: use lower-case letters, digits, "
                    f"'-' and '.', at most {_MAX_LABEL} characters"
                )
        self.election(self.namespace)

    @property
    def name(self) -> str:
        """Return the shard's name."""
        return self.shard or ""

    def election(self, namespace: str | None) -> LeaderElection:
        """Return the options of the election on this shard's own Lease. No other process takes part in it."""
        return LeaderElection(
            self.name,
            namespace=namespace,
            identity=self.name,
            lease_duration=self.lease_duration,
            renew_deadline=self.renew_deadline,
            retry_period=self.retry_period,
        )


@dataclass(frozen=True, slots=True)
class ShardByIndex:
    """Options of one of a fixed number of replicas, each of which reconciles an equal range of the hashes of uids.

    Nothing needs to be installed, and nothing is handed over: an object stays with its replica unless `replicas`
    changes. While a replica is down, its objects wait.

    Attributes:
        replicas: the number of replicas. All replicas that run at the same time must use the same number.
        kinds: the sharded kinds: those that the manager's controllers reconcile, all of them. Kinds that these own or
            watch are not sharded, because their objects have their own uids.
        index: the index of this replica, from 0. Default: the ordinal at the end of the host name, as a StatefulSet
            sets it (``operator-2``).

    Raises:
        ConfigurationError: no kind is given, or the index is missing or not below `replicas`.
    """

    replicas: int
    kinds: Sequence[KindLike]
    _: KW_ONLY
    index: int | None = None

    def __post_init__(self) -> None:
        _check_kinds("ShardByIndex", self.kinds)
        if self.replicas < 1:
            raise ConfigurationError(f"ShardByIndex: replicas must be 1 or more, not {self.replicas!r}")
        object.__setattr__(self, "index", _ordinal(socket.gethostname()) if self.index is None else self.index)
        if not 0 <= self.number < self.replicas:
            raise ConfigurationError(
                f"ShardByIndex: index {self.number} of {self.replicas} replicas: the index starts at 0 and must be "
                f"below {self.replicas}. Check that all replicas are given the same number"
            )

    @property
    def number(self) -> int:
        """Return the index."""
        return self.index or 0


Sharding = ShardRing | ShardByIndex
"""Options of sharding."""


def _ordinal(host: str) -> int:
    found = _ORDINAL.search(host)
    if found is None:
        raise ConfigurationError(
            f"ShardByIndex: the host name {host!r} does not end with an ordinal, as the names of a StatefulSet's pods "
            "do: pass index="
        )
    return int(found[1])


def _check_kinds(what: str, kinds: Sequence[KindLike]) -> None:
    if isinstance(kinds, str) or not kinds:
        raise ConfigurationError(f"{what}: kinds={kinds!r} is not a sequence of kinds: name the sharded kinds")
    for kind in kinds:
        try:
            gvk_from(kind)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{what}: {error}") from error


RING_LABEL = "alpha.sharding.timebertt.dev/controllerring"
"""The label of a Lease that names its ring."""

SHARD_LABEL = "shard.alpha.sharding.timebertt.dev/"
"""The label of an object that names its shard; the ring's name follows."""

DRAIN_LABEL = "drain.alpha.sharding.timebertt.dev/"
"""The label of an object that its shard must hand over; the ring's name follows."""

_ATTEMPTS = 5
"""Attempts to acknowledge one drain when other writers cause conflicts; then the key backs off."""


@dataclass(frozen=True, slots=True)
class IndexShardFilter(Unsharded):
    """A filter for sharding by index: this shard owns all objects in its cache, which holds only its own hash range."""

    controller: str
    kind: KindLike
    client: CachedClient
    counters: ShardCounters

    sharded = True

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether the cache holds the object."""
        if await self.client.peek(self.kind, request) is None:
            self.counters.skipped[self.controller] += 1
            return False
        return True


class KindInProgress:
    """The keys of one kind that the controllers of this process reconcile, so that the last one hands an object over.

    Each controller gets the event of a drain. One that finds that another one reconciles the object leaves the
    handover to that one, which takes the key again afterwards.
    """

    def __init__(self) -> None:
        self._keys: Counter[Request] = Counter()
        self._locks: WeakValueDictionary[Request, asyncio.Lock] = WeakValueDictionary()

    def lock(self, request: Request) -> asyncio.Lock:
        """Return the lock of a key, for its check: no reconcile begins while another controller hands it over."""
        return self._locks.setdefault(request, asyncio.Lock())

    def begin(self, request: Request) -> None:
        """Record that a reconcile begins."""
        self._keys[request] += 1

    def end(self, request: Request) -> None:
        """Record that a reconcile has ended."""
        self._keys[request] -= 1
        if not self._keys[request]:
            del self._keys[request]

    def __contains__(self, request: Request) -> bool:
        """Return whether a controller reconciles the key."""
        return request in self._keys


@dataclass(frozen=True, slots=True)
class RingShardFilter:
    """A filter for a ring: this shard owns the objects labeled with its name and hands over drained ones.

    Attributes:
        ring: the name of the ring.
        name: that of the shard.
        in_progress: shared by the controllers of the kind.
    """

    controller: str
    kind: KindLike
    client: CachedClient
    counters: ShardCounters
    ring: str
    name: str
    in_progress: KindInProgress

    sharded = True

    @property
    def permissions(self) -> Sequence[Permission]:
        """Return the permissions that a handover needs."""
        return (Permission(self.kind, "patch"),)

    def matches(self, labels: Mapping[str, str], /) -> bool:
        """Return whether an object with these labels belongs to this shard."""
        return labels.get(SHARD_LABEL + self.ring) == self.name

    def must_drain(self, cached: CachedObject, /) -> bool:
        """Return whether the object must be handed over."""
        return DRAIN_LABEL + self.ring in cached.labels

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether the object belongs to this shard; if it is being drained, hand it over and return False."""
        async with self.in_progress.lock(request):
            if not await self._belongs(request):
                return False
            self.in_progress.begin(request)
            return True

    def ended(self, request: Request, /) -> None:
        """Let the next controller that takes the key hand the object over, unless another one reconciles it."""
        self.in_progress.end(request)

    async def _belongs(self, request: Request) -> bool:
        cached = await self.client.peek(self.kind, request)
        if cached is None:
            self.counters.skipped[self.controller] += 1
            return False
        labels, version = cached.labels, str(cached.version)
        for attempts_left in reversed(range(_ATTEMPTS)):
            if not self.matches(labels):
                self.counters.skipped[self.controller] += 1
                return False
            if DRAIN_LABEL + self.ring not in labels:
                return True
            if request in self.in_progress:
                return False
            try:
                await self._hand_over(request, version)
            except Conflict:
                if not attempts_left:
                    raise
                # Another writer was faster. Decide by the server's version, which the cache may not have yet.
                labels, version = await self._read_live(request)
            else:
                return False
        return False

    async def _read_live(self, request: Request) -> tuple[Mapping[str, str], str]:
        """Read the labels and the version from the server; no labels if the object is gone."""
        try:
            found = await self.client.live.get(self.kind, request.name, request.namespace)
        except NotFound:
            return {}, ""
        metadata = found.to_dict()["metadata"]
        return metadata.get("labels") or {}, str(metadata["resourceVersion"])

    async def _hand_over(self, request: Request, version: str) -> None:
        labels = {SHARD_LABEL + self.ring: None, DRAIN_LABEL + self.ring: None}
        with contextlib.suppress(NotFound):
            await self.client.patch(
                self.kind,
                request.name,
                request.namespace,
                patch={"metadata": {"resourceVersion": version, "labels": labels}},
            )
            self.counters.drained[self.controller] += 1
            _log.debug("%s: handed over %s: drained from shard %s", self.controller, request, self.name)


_claimed: dict[tuple[object, ...], Shard] = {}
"""The Leases of the rings that run in this process."""

NewFilter = Callable[[str, KindLike, CachedClient], ShardFilter]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The shard of this process, with a part of the objects of some kinds; without sharding, with all objects.

    Kinds are compared by group and kind: an API version is only a representation.

    Attributes:
        name: the shard's name or index; None without sharding.
        kinds: the sharded kinds.
        part: the part of their objects that this process watches.
        new_filter: returns the filter of a controller, given its name, kind and client.
        by_uid: whether an object belongs to a shard by its own uid, so that its events concern no object of another
            kind.
        election: options of the Lease that must be held while this process works; None if there is no such Lease.
        lease_labels: the labels of that Lease.
        debug_info: shown at ``/debug/queue``; None for nothing.
    """

    name: str | None = None
    kinds: Sequence[KindLike] = ()
    part: Partition | None = None
    new_filter: NewFilter | None = None
    by_uid: bool = False
    election: LeaderElection | None = None
    lease_labels: Mapping[str, str] = field(default_factory=dict)
    debug_info: JSONObject | None = None

    def partition(self, gvk: GroupVersionKind, /) -> Partition | None:
        """Return the part of a kind that this process watches; None for all objects."""
        return self.part if self._shares(gvk) else None

    @contextlib.contextmanager
    def claimed(self, cluster: object) -> Iterator[None]:
        """Claim the shard's Lease while its manager runs; `cluster` identifies the API server.

        Raises:
            ConfigurationError: another manager of this process has the Lease of this name.
        """
        if self.election is None:
            yield
            return
        lease = (cluster, self.election.namespace, self.name)
        if _claimed.setdefault(lease, self) is not self:
            raise ConfigurationError(
                f"another ring of this process has the Lease {self.election.namespace}/{self.name}, so this one would "
                "wait for it as long as that one runs. A Lease is named after its shard, by default after the host: "
                "pass another shard= to one of them"
            )
        try:
            yield
        finally:
            del _claimed[lease]

    def shard_filter(
        self, name: str, kind: KindLike | None, watched: Sequence[KindLike | Watch], client: CachedClient, /
    ) -> ShardFilter | None:
        """Return the shard filter of a controller; None without sharding, or if the kind is unknown.

        `watched` are the other kinds that it watches.

        Raises:
            ConfigurationError: the controller cannot be sharded in this way.
        """
        if self.new_filter is None or kind is None:
            return None
        if not self._shares(gvk_from(kind)):
            raise ConfigurationError(
                f"controller {name!r} reconciles {gvk_from(kind)}, which is not among the kinds= of the manager's "
                "sharding, so every replica would reconcile all objects. Add the kind there, or run this controller in "
                "a manager of its own"
            )
        for each in watched if self.by_uid else ():
            gvk = gvk_from(each.kind if isinstance(each, Watch) else each)
            if self._shares(gvk):
                raise ConfigurationError(
                    f"controller {name!r} watches {gvk}, which is sharded by the hash of its own uid: events that "
                    f"concern an object of this replica would reach another one. Remove {gvk.kind} from kinds=, and "
                    f"run a controller of {gvk.kind} in a second manager of this process, with kinds=[{gvk.kind}]"
                )
        return self.new_filter(name, kind, client)

    def _shares(self, gvk: GroupVersionKind) -> bool:
        return (gvk.group, gvk.kind) in {(each.group, each.kind) for each in map(gvk_from, self.kinds)}


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
    if isinstance(sharding, ShardRing):
        return _shard_of_ring(sharding, namespaces, metrics)
    return _shard_by_index(sharding, metrics)


def _shard_of_ring(ring: ShardRing, namespaces: Sequence[str] | None, metrics: MetricsRegistry) -> Shard:
    """Return a shard of a ring: the objects that a sharder assigns to it by label."""
    namespace = lease_namespace(ring.namespace, namespaces, what=f"ShardRing({ring.ring!r})", option="namespace")
    counters = metrics.shard(ring.ring, ring.name)
    in_progress: defaultdict[tuple[str, str], KindInProgress] = defaultdict(KindInProgress)

    def new_filter(name: str, kind: KindLike, client: CachedClient) -> ShardFilter:
        gvk = gvk_from(kind)
        return RingShardFilter(name, kind, client, counters, ring.ring, ring.name, in_progress[gvk.group, gvk.kind])

    return Shard(
        name=ring.name,
        kinds=ring.kinds,
        part=Partition(labels=f"{SHARD_LABEL}{ring.ring}={ring.name}"),
        new_filter=new_filter,
        election=ring.election(namespace),
        lease_labels={RING_LABEL: ring.ring},
        debug_info={"ring": ring.ring, "shard": ring.name},
    )


def _shard_by_index(replica: ShardByIndex, metrics: MetricsRegistry) -> Shard:
    """Return a shard by index: the objects whose uid hashes into this replica's range."""
    hashes, name = HashRange.share(replica.number, replica.replicas), str(replica.number)
    counters = metrics.shard(f"of {replica.replicas}", name)

    def new_filter(name: str, kind: KindLike, client: CachedClient) -> ShardFilter:
        return IndexShardFilter(name, kind, client, counters)

    return Shard(
        name=name,
        kinds=replica.kinds,
        part=Partition(hashes=hashes),
        new_filter=new_filter,
        by_uid=True,
        debug_info={"index": replica.number, "replicas": replica.replicas, "hashes": str(hashes)},
    )
