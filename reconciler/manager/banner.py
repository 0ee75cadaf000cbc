"""The first log line of a manager: what runs, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler._version import __version__
from reconciler.client import Client
from reconciler.manager.election.options import LeaderElection

__all__ = ["banner"]


def banner(
    client: Client,
    *,
    namespaces: Sequence[str] | None,
    controllers: Iterable[str],
    endpoints: Iterable[tuple[str, str | None]],
    election: LeaderElection | None,
    shard: str | None,
) -> str:
    """Return the version, the cluster without credentials, and the options that a manager runs with, as one line.

    Args:
        client: the connection to the API server.
        namespaces: the namespaces that are watched; None for all.
        controllers: the names of the controllers.
        endpoints: name and URL of each endpoint; None if it is not served.
        election: options of the Lease; None without one.
        shard: the shard of this process; None without sharding.
    """
    host = str(getattr(client.session.connection.transport, "host", ""))
    parts = {
        "cluster": host or "in this process",
        "namespaces": "all" if namespaces is None else " ".join(namespaces),
        "controllers": " ".join(controllers) or "none",
        **{name: url or "not served" for name, url in endpoints},
        "shard": shard,
        "leader election": "none" if election is None and shard is None else None,
        "lease": None if election is None else f"{election.namespace}/{election.name} as {election.identity}",
    }
    return f"kube-reconciler {__version__}: " + ", ".join(f"{name} {text}" for name, text in parts.items() if text)
