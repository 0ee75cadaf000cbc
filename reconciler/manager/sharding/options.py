"""Options of sharding: a ring whose sharder assigns objects, or a fixed number of replicas."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from reconciler.errors import ConfigurationError
from reconciler.manager.election.options import LeaderElection
from reconciler.objects.kinds import KindLike, gvk_from

__all__ = ["ShardByIndex", "ShardRing", "Sharding"]

_MAX_LABEL = 63
"""Characters of a label's value, and of a label's key after the slash."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_ORDINAL = re.compile(r"-(\d+)$")


@dataclass(frozen=True, slots=True)
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
        lease_duration: seconds after which the sharder may consider the shard dead. Default 15.
        renew_deadline: seconds after the start of its last successful renewal at which this process stops. Default 10.
        retry_period: seconds between renewals. Default 2.

    Raises:
        ConfigurationError: a name is not a valid label value, no kind is given, or the times are inconsistent.
    """

    ring: str
    kinds: Sequence[KindLike]
    _: KW_ONLY
    shard: str | None = None
    namespace: str | None = None
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

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
        """Return the election options of this shard's own Lease; no other process is a candidate."""
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
