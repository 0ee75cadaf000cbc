"""Measure what a process has once: its leadership, its requests to the API server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.metrics_core import Metric

from reconciler.telemetry.families import counter, gauge

__all__ = ["LeaderCounters", "RequestCounters", "cache_families", "leader_families", "request_families"]


class LeaderCounters:
    """Hold what an elector tells.

    Args:
        name: the lease's name; the label ``name``.

    Attributes:
        leading: whether this process leads now.
        slow_paths: how often the lease had to be read before it could be renewed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.leading = False
        self.slow_paths = 0


class RequestCounters:
    """Count the requests to API servers by status code, method and host; codes are few, so is the memory."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def count(self, code: str, method: str, host: str) -> None:
        """Count one answer.

        Args:
            code: the status code, or ``<error>`` when no answer came.
            method: of the request.
            host: of the server.
        """
        key = (code, method, host)
        self._counts[key] = self._counts.get(key, 0) + 1

    def samples(self) -> list[tuple[tuple[str, str, str], float]]:
        """Return the counts so far."""
        return list(self._counts.items())


def leader_families(leaders: Sequence[LeaderCounters]) -> Iterable[Metric]:
    """Make the metrics of leader election, if there is one."""
    if not leaders:
        return
    yield gauge(
        "leader_election_master_status",
        "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. "
        "'name' is the string used to identify the lease. Please make sure to group by name.",
        ("name",),
        [((leader.name,), float(leader.leading)) for leader in leaders],
    )
    yield counter(
        "leader_election_slowpath",
        "Total number of slow path exercised in renewing leader leases. 'name' is the string used to identify the "
        "lease. Please make sure to group by name.",
        ("name",),
        [((leader.name,), leader.slow_paths) for leader in leaders],
    )


def request_families(requests: RequestCounters) -> Iterable[Metric]:
    """Make the metric of requests to the API server."""
    yield counter(
        "rest_client_requests",
        "Number of HTTP requests, partitioned by status code, method, and host.",
        ("code", "method", "host"),
        requests.samples(),
    )


def cache_families(unreadable: Sequence[tuple[str, int]]) -> Iterable[Metric]:
    """Make the metrics of the cache, if it holds anything."""
    if unreadable:
        yield gauge(
            "reconciler_cache_unreadable_objects",
            "Number of cached objects that cannot be decoded, in whole or in part.",
            ("kind",),
            [((kind,), float(count)) for kind, count in unreadable],
        )
