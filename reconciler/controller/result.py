"""Say what is to happen with a key after its reconcile."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Outcome", "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """Ask for another run. A reconcile that needs none returns None and is woken by the next foreign change.

    The outcome of the latest cycle owns the key's only timer, and any run consumes it: who wants a period returns
    `requeue_after` from every path, and a wait that must survive events is stored in the object's status.

    Attributes:
        requeue_after: seconds until the key runs again if nothing wakes it earlier; more than 0. None for no timer.
        again: run once more now, after the keys that are ready already. A controller's own status write does not wake
            it, so a reconcile that works in steps says this. Once the controller stops, no further step begins.
            Excludes `requeue_after`.
        priority: the priority of the run asked for; a higher one goes first. None keeps that of this run, which stays
            with the key through errors as well.

    Raises:
        ValueError: `requeue_after` is 0, negative or not finite, or stands beside `again`.
    """

    requeue_after: float | None = None
    again: bool = False
    priority: int | None = None

    def __post_init__(self) -> None:
        after = self.requeue_after
        if after is None:
            return
        if not (after > 0 and math.isfinite(after)):
            raise ValueError(
                f"requeue_after must be a finite number of seconds above 0, not {after!r}; "
                "to run once more now, return Result(again=True)"
            )
        if self.again:
            raise ValueError("again=True runs the key now and requeue_after later: give one of them")

    @staticmethod
    def merge(*outcomes: Outcome) -> Outcome:
        """Return the most urgent of several outcomes: `again` before the shortest delay before None.

        The highest priority that any of them names is kept.
        """
        results = [outcome for outcome in outcomes if outcome is not None]
        if not results:
            return None
        priority = max((r.priority for r in results if r.priority is not None), default=None)
        if any(r.again for r in results):
            return Result(again=True, priority=priority)
        after = min((r.requeue_after for r in results if r.requeue_after is not None), default=None)
        return Result(requeue_after=after, priority=priority)


Outcome = Result | None
"""What a reconcile returns: a `Result`, or None to wait for the next event."""
