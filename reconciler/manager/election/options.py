"""Say how a leader is elected: names and times."""

from __future__ import annotations

import math
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from reconciler.errors import ConfigurationError

__all__ = ["LeaderElection", "lease_namespace", "settled"]

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_JITTER = 1.2
"""The wait between two attempts to become leader is spread over ``retry_period * (1 … 1 + this)``; client-go's."""


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Describe an election on a Lease of ``coordination.k8s.io/v1``. The times are controller-runtime's defaults.

    Attributes:
        name: the lease's name; the same for all replicas, and for nobody else.
        namespace: the lease's namespace. Default: the pod's own, or the one namespace that the manager watches.
        identity: who this process is; unique. Default: host name and a random id.
        lease_duration: seconds after which others may take a lease that is not renewed. Default 15.
        renew_deadline: seconds after the start of the last renewal that succeeded, when this process gives up. Default
            10. What lies between it and `lease_duration` is the time for the workers to stop.
        retry_period: seconds between renewals; while another leads, one to 2.2 of it between two looks. Default 2.
        labels: put on the lease, beside those that others have put there. Default: none.

    Raises:
        ConfigurationError: the name is empty, or the times do not fit: ``lease_duration > renew_deadline > 1.2 *
            retry_period``, and a lease of 1 s at least.
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
            raise ConfigurationError("leader_election='' names no lease: give a name that all replicas share")
        times = (self.lease_duration, self.renew_deadline, self.retry_period)
        fit = self.lease_duration > self.renew_deadline > _JITTER * self.retry_period > 0
        if not (fit and self.lease_duration >= 1 and all(map(math.isfinite, times))):
            raise ConfigurationError(
                f"leader election {self.name!r}: lease_duration={times[0]!r}, renew_deadline={times[1]!r}, "
                f"retry_period={times[2]!r} do not fit: lease_duration > renew_deadline > {_JITTER} * retry_period > 0 "
                "and lease_duration >= 1 s"
            )

    def look_again(self, chance: float) -> float:
        """Return the seconds until the next attempt to become leader; `chance` lies between 0 and 1."""
        return self.retry_period * (1 + _JITTER * chance)


def settled(
    election: str | LeaderElection, *, namespace: str | None, namespaces: Sequence[str] | None
) -> LeaderElection:
    """Return the election with namespace and identity filled in.

    Raises:
        ConfigurationError: no namespace is known, so that replicas might look at different leases.
    """
    election = LeaderElection(election) if isinstance(election, str) else election
    found = lease_namespace(namespace or election.namespace, namespaces)
    if found is None:
        raise ConfigurationError(
            f"leader_election={election.name!r} needs a namespace for its lease: this is no pod, so give "
            "leader_election_namespace="
        )
    return replace(election, namespace=found, identity=election.identity or f"{socket.gethostname()}_{uuid.uuid4()}")


def lease_namespace(given: str | None, namespaces: Sequence[str] | None) -> str | None:
    """Return where a lease is: as given, in the pod's own namespace, or in the one that is watched."""
    found = given or _pod_namespace()
    if found is None and namespaces is not None and len(namespaces) == 1:
        return namespaces[0]
    return found


def _pod_namespace() -> str | None:
    try:
        return _POD_NAMESPACE.read_text().strip() or None
    except OSError:
        return None
