"""Count observations in buckets: an array and a sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.utils import floatToGoString

__all__ = ["QUEUE_BUCKETS", "RECONCILE_BUCKETS", "STATUS_BUCKETS", "Histogram"]


def _decades(first: float, count: int) -> tuple[float, ...]:
    """Multiply as Go does, so that the bounds, rounding errors included, are those of client-go's buckets."""
    return tuple(accumulate(range(count - 1), lambda bound, _: bound * 10, initial=first))


QUEUE_BUCKETS = _decades(10e-9, 12)
"""10 ns to 1000 s, a bucket a decade: client-go's ``workqueue_*_duration_seconds``."""

# fmt: off
RECONCILE_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 1.75,
    2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0,
)
"""controller-runtime's ``controller_runtime_reconcile_time_seconds``."""
# fmt: on

STATUS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Prometheus' own default, up to the flush's time limit of 10 s."""


class Histogram:
    """Count observations by size.

    Args:
        bounds: upper bounds of the buckets, inclusive and ascending; one without bound follows.

    Attributes:
        bounds: as given.
        counts: observations in each bucket alone, the one without bound last.
        total: sum of all observations.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus wants them: bound, and observations up to it."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))
