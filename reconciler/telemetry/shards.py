"""Tell which share of the objects a process answers for, and what it handed over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.metrics_core import Metric

from reconciler.telemetry.families import counter, gauge

__all__ = ["ShardCounters", "shard_families"]


class ShardCounters:
    """Hold what a shard tells.

    Args:
        ring: whose part it is; the label ``ring``.
        shard: the label ``shard``.

    Attributes:
        drained: objects that were handed over, by controller.
        let_go: reconciles that were left out because the object was another's by then, by controller.
    """

    def __init__(self, ring: str, shard: str) -> None:
        self.ring = ring
        self.shard = shard
        self.drained: dict[str, int] = {}
        self.let_go: dict[str, int] = {}

    def drain(self, controller: str) -> None:
        """Count an object that was handed over."""
        self.drained[controller] = self.drained.get(controller, 0) + 1

    def leave(self, controller: str) -> None:
        """Count a reconcile that was left out."""
        self.let_go[controller] = self.let_go.get(controller, 0) + 1


def shard_families(shards: Sequence[ShardCounters]) -> Iterable[Metric]:
    """Make the metrics of shards, if there is one."""
    if not shards:
        return
    yield gauge(
        "reconciler_shard",
        "1, with the ring and the shard that this process is as labels.",
        ("ring", "shard"),
        [((each.ring, each.shard), 1.0) for each in shards],
    )
    yield counter(
        "reconciler_shard_drained",
        "Total number of objects that this process handed over, per controller.",
        ("controller", "shard"),
        [((name, each.shard), count) for each in shards for name, count in list(each.drained.items())],
    )
    yield counter(
        "reconciler_shard_let_go",
        "Total number of reconciles left out because another process answers for the object, per controller.",
        ("controller", "shard"),
        [((name, each.shard), count) for each in shards for name, count in list(each.let_go.items())],
    )
