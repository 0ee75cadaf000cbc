"""Say what the queue tells about itself while it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.workqueue.reports import QueueStatistics

__all__ = ["QueueMetrics"]


class QueueMetrics(Protocol):
    """Measure how long the keys of one queue wait and are in hand.

    All else is a count or a state, which the queue keeps anyway: it is read from its statistics when somebody asks. The
    methods are called in the middle of the work: they must be quick and must not raise.
    """

    def watch(self, statistics: Callable[[], QueueStatistics], /) -> None:
        """Take the function that tells the queue's counts and state; called once, when the queue is made."""
        ...

    def handed_out(self, seconds: float, /) -> None:
        """Hear that a key was handed out, and how long before it could have been."""
        ...

    def finished(self, seconds: float, /) -> None:
        """Hear that a key was given back, and how long it was in hand."""
        ...
