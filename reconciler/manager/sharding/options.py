"""Say how several replicas share the objects of some kinds: by a ring with a sharder, or by the replica's index."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from reconciler.errors import ConfigurationError
from reconciler.manager.election.options import LeaderElection
from reconciler.objects import KindLike, gvk_from

__all__ = ["ShardByIndex", "ShardRing", "Sharding"]

_LONGEST = 63
"""Characters of a label's value, and of a label's key after the slash."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_ORDINAL = re.compile(r"-(\d+)$")


@dataclass(frozen=True, slots=True)
class ShardRing:
    """Be one shard of a ring, to which a sharder assigns objects: kubernetes-controller-sharding's contract.

    The process keeps a Lease of its own, works only while it holds it, watches only what is labelled with its name, and
    hands an object over when the sharder asks for it. The times are those of `LeaderElection`.

    Attributes:
        ring: the name of the ControllerRing, at most 63 characters.
        kinds: what the sharder assigns: the ring's ``resources`` and ``controlledResources``. The kinds of all
            controllers of the manager must be among them.
        shard: the name of this process, at most 63 characters; no two that run may have the same. Default: the host's
            name, which is the pod's.
        namespace: where the Lease is. Default: the pod's own, or the one namespace that the manager watches.
        lease_duration: seconds after which the sharder may take the shard for dead. Default 15.
        renew_deadline: seconds after the last renewal that succeeded, when this process gives up. Default 10.
        retry_period: seconds between renewals. Default 2.

    Raises:
        ConfigurationError: a name cannot be a label, no kind is given, or the times do not fit.
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
            if not _NAME.fullmatch(name) or len(name) > _LONGEST:
                raise ConfigurationError(
                    f"ShardRing: the {what}'s name {name!r} cannot be a label: use lower case, digits, '-' and '.', at "
                    f"most {_LONGEST} characters"
                )
        self.election(self.namespace)

    @property
    def name(self) -> str:
        """Return the shard's name."""
        return self.shard or ""

    def election(self, namespace: str | None) -> LeaderElection:
        """Return the election that nobody else takes part in: the one for this shard's own Lease."""
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
    """Be one of a fixed number of replicas, each of which answers for an equal range of the hashes of uids.

    Nothing has to be installed, and nothing is handed over: which replica answers for an object never changes while
    `replicas` stays the same. What a replica that is down answers for waits until it is back.

    Attributes:
        replicas: how many there are. All that run at the same time must be given the same number.
        kinds: what is shared out: the kinds of the manager's controllers, all of them. What these own or watch is not:
            it has a uid of its own.
        index: which of them this is, from 0. Default: the ordinal at the end of the host's name, as a StatefulSet gives
            it (``operator-2``).

    Raises:
        ConfigurationError: no kind is given, or the index is not below `replicas` or cannot be read.
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
                f"ShardByIndex: index {self.number} of {self.replicas} replicas: it counts from 0, so it must be below "
                f"{self.replicas}. Does every replica know how many there are?"
            )

    @property
    def number(self) -> int:
        """Return the index."""
        return self.index or 0


Sharding = ShardRing | ShardByIndex
"""How replicas share objects."""


def _ordinal(host: str) -> int:
    found = _ORDINAL.search(host)
    if found is None:
        raise ConfigurationError(
            f"ShardByIndex: the host's name {host!r} does not end with an ordinal, as that of a StatefulSet's pod "
            "does: give index="
        )
    return int(found[1])


def _check_kinds(what: str, kinds: Sequence[KindLike]) -> None:
    if isinstance(kinds, str) or not kinds:
        raise ConfigurationError(f"{what}: kinds={kinds!r} names no kind: give a sequence of what is shared out")
    for kind in kinds:
        try:
            gvk_from(kind)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{what}: {error}") from error
