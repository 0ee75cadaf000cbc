"""Counts of what batchers do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

__all__ = ["StatusMetrics", "StatusStatistics", "counters"]


@dataclass(frozen=True, slots=True)
class StatusStatistics:
    """The counters of one batcher since it was opened.

    Attributes:
        flushes: ends of a block and checkpoints, with or without a request.
        written: flushes whose write took effect.
        suppressed: flushes that had nothing to write.
        ignored: flushes whose write succeeded although nothing of it was stored: the CRD lacks the fields.
        dropped: flushes that found the object deleted, or another one under its name.
        failed: flushes that raised.
        attempts: write requests.
        reads: read requests, including those at opening and those counted as read backs.
        read_backs: times that the object was read back after an unknown outcome.
        conflicts: writes refused because the object was newer, none of them caused by the batcher's own writes.
        replays: times that mutations were applied to a version that the caller had not seen.
        unknown: writes whose response was lost.
        contested: times that another writer had changed a field that was set.
        fields: paths that those writes contained.
        trimmed: list entries dropped by ``keep_last``.
        pruned: fields found that the server does not store, each reported once.
    """

    flushes: int = 0
    written: int = 0
    suppressed: int = 0
    ignored: int = 0
    dropped: int = 0
    failed: int = 0
    attempts: int = 0
    reads: int = 0
    read_backs: int = 0
    conflicts: int = 0
    replays: int = 0
    unknown: int = 0
    contested: int = 0
    fields: int = 0
    trimmed: int = 0
    pruned: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> StatusStatistics:
        """Return the statistics with the values of counters."""
        return cls(**{field.name: counts.get(field.name, 0) for field in fields(cls)})


_ZEROS = {field.name: 0 for field in fields(StatusStatistics)}


def counters(**initial: int) -> dict[str, int]:
    """Return counters, one for each name in `StatusStatistics`, all zero except the given ones."""
    return {**_ZEROS, **initial}


class StatusMetrics(Protocol):
    """An observer of flushes. It is called on the thread that flushes, so it must be quick.

    What it raises is logged once and ignored: the status is written.
    """

    def flushed(
        self, *, written: bool, suppressed: bool, conflicts: int, replays: int, fields: int, seconds: float
    ) -> None:
        """Called after each flush.

        Args:
            written: a write took effect.
            suppressed: there was nothing to write. If neither is true, it failed, the object is gone, or the server
                stored nothing of what was sent.
            conflicts: writes refused because the object was newer.
            replays: times that mutations were applied to a newer version.
            fields: paths that the write contained; 0 if there was none.
            seconds: how long it took.
        """
        ...
