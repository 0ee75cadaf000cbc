"""Say what the queue tells about itself while it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.workqueue._reports import QueueStatistics

__all__ = ["QueueMetrics"]


class QueueMetrics(Protocol):
    """Count what one queue does.

    The methods are called in the middle of the work: they must be quick, must not raise, and must not call the queue.
    What is a state rather than an event (waiting keys, ages of runs) is read from the queue's statistics when somebody
    asks, through `watch`.
    """

    def watch(self, statistics: Callable[[], QueueStatistics], /) -> None:
        """Take the function that tells the queue's state; called once, when the queue is made."""
        ...

    def added(self, priority: int, /) -> None:
        """Hear that a key became ready. Adds that joined a run which was ready anyway are not told."""
        ...

    def handed_out(self, priority: int, seconds: float, /) -> None:
        """Hear that a key was handed out, and how long it could have been before."""
        ...

    def finished(self, seconds: float, /) -> None:
        """Hear that a key was given back, and how long it was in hand."""
        ...

    def delayed(self) -> None:
        """Hear of an add with a delay."""
        ...

    def raised(self, before: int, after: int, /) -> None:
        """Hear that a ready key got a higher priority."""
        ...

    def taken_back(self, priority: int, /) -> None:
        """Hear that a ready key will not run: its last reason was retracted, or a shutdown dropped it."""
        ...

    def dropped(self, keys: int, /) -> None:
        """Hear how many keys a shutdown dropped, or how many adds came after it."""
        ...
