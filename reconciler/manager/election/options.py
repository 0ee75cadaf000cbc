"""Options of leader election: names, times and the lease's namespace."""

from __future__ import annotations

import math
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from reconciler.errors import ConfigurationError

__all__ = ["LEASE_ANNOTATIONS", "PROCESS_ANNOTATION", "LeaderElection", "complete_election", "lease_namespace"]

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

LEASE_ANNOTATIONS = {"app.kubernetes.io/managed-by": "kube-reconciler"}
"""The annotations of each lease, by which ``reconciler explain`` finds the leader."""

PROCESS_ANNOTATION = "reconciler.dev/process"
"""The annotation of a lease with a random id of the process that wrote it last."""

_JITTER = 1.2
"""The delay between two attempts to acquire the lease is ``retry_period * (1 … 1 + _JITTER)``; client-go's number."""


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Options of a leader election on a Lease (``coordination.k8s.io/v1``). The times default to controller-runtime's.

    Attributes:
        name: the lease's name; shared by all replicas of this operator, and by nothing else.
        namespace: the lease's namespace. Default: the pod's namespace, or the only namespace that the manager watches.
        identity: the name of this process. Default: the host name and a random id. Another process of the same identity
            counts as another holder: one that starts again after a crash waits until its old lease expires.
        lease_duration: seconds after which others may acquire a lease that is not renewed. Default 15.
        renew_deadline: seconds after the start of its last successful renewal at which this process stops leading.
            Default 10. Its workers have until `lease_duration` to stop.
        retry_period: seconds between renewals. A candidate waits 1 to 2.2 times as long between attempts. Default 2.
        labels: added to the lease's own labels. Default: none.

    Raises:
        ConfigurationError: the name is empty, or the times are inconsistent. Required are ``lease_duration >
            renew_deadline > 1.2 * retry_period`` and a lease duration of at least 1 s.
    """

    name: str
    namespace: str | None = None
    identity: str | None = None
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("leader_election='' is not a valid lease name: pass one that all replicas share")
        times = (self.lease_duration, self.renew_deadline, self.retry_period)
        consistent = self.lease_duration > self.renew_deadline > _JITTER * self.retry_period > 0
        if not (consistent and self.lease_duration >= 1 and all(map(math.isfinite, times))):
            raise ConfigurationError(
                f"leader election {self.name!r}: lease_duration={times[0]!r}, renew_deadline={times[1]!r} and "
                f"retry_period={times[2]!r} are inconsistent: required are lease_duration > renew_deadline > "
                f"{_JITTER} * retry_period > 0 and lease_duration >= 1 s"
            )

    def next_attempt_delay(self, fraction: float) -> float:
        """Return the seconds until the next attempt to acquire the lease.

        Args:
            fraction: a random number between 0 and 1.
        """
        return self.retry_period * (1 + _JITTER * fraction)


def complete_election(
    election: str | LeaderElection, *, namespace: str | None, namespaces: Sequence[str] | None
) -> LeaderElection:
    """Return the options with namespace and identity filled in.

    Raises:
        ConfigurationError: `election` has another type, or the namespace is unknown, so that replicas might use
            different leases.
    """
    election = LeaderElection(election) if isinstance(election, str) else election
    if not isinstance(election, LeaderElection):
        raise ConfigurationError(
            f"leader_election takes the name of the lease, such as 'my-operator', or a LeaderElection, not {election!r}"
        )
    given = namespace or election.namespace
    what = f"leader_election={election.name!r}"
    found = lease_namespace(given, namespaces, what=what, option="leader_election_namespace")
    return replace(election, namespace=found, identity=election.identity or f"{socket.gethostname()}_{uuid.uuid4()}")


def lease_namespace(given: str | None, namespaces: Sequence[str] | None, *, what: str, option: str) -> str:
    """Return a lease's namespace: the given one, the pod's own, or the only one that the manager watches.

    Raises:
        ConfigurationError: there is none of these. The message says what needs it, and which option sets it.
    """
    found = given or _pod_namespace()
    if found is not None:
        return found
    if namespaces is None or len(namespaces) != 1:
        raise ConfigurationError(
            f"{what} needs a namespace for its lease: this process does not run in a pod, so pass {option}="
        )
    return namespaces[0]


def _pod_namespace() -> str | None:
    try:
        return _POD_NAMESPACE.read_text().strip() or None
    except OSError:
        return None
