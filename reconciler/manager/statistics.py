"""Tell how a manager fares: a snapshot that does not change."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.cache import CacheStatistics
from reconciler.controller import ControllerStatistics
from reconciler.manager.lifecycle import State

__all__ = ["ManagerStatistics"]


@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """Tell how a manager fares.

    Attributes:
        state: where it is in its life.
        leading: whether this process leads, or holds its shard's Lease; None where there is no lease.
        shard: the name, or the index, of this process's shard; None without sharding.
        controllers: each one's own figures, in the order in which they were added.
        cache: what is cached.
    """

    state: State
    leading: bool | None
    shard: str | None
    controllers: tuple[ControllerStatistics, ...]
    cache: CacheStatistics
