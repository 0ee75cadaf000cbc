"""`Result`: what a reconcile returns to be run again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from reconciler.workqueue import as_priority

__all__ = ["Outcome", "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """A request for another reconcile. Return None instead to wait for the next event.

    A key has one timer, which belongs to the outcome of the latest reconcile; every reconcile of the key clears it. For
    a period, return `requeue_after` from every path. Store a wait that must survive events in the object's status.

    Attributes:
        requeue_after: seconds until the key is reconciled again if nothing wakes it earlier; more than 0. None for no
            timer.
        again: reconcile once more now, after the keys that are ready already. A controller's own status write does not
            wake it, so a reconcile that works in a few steps returns this. If the next reconcile of the key returns it
            too, the one after that waits for the backoff of the controller's rate limiter, by default 5 ms, 10 ms, … up
            to 5 s; a reconcile that ends otherwise resets it. It is not an error and not counted as one. To wait
            for something, use `requeue_after`. Once the controller stops, no further step begins. Excludes
            `requeue_after`.
        priority: the priority of the next reconcile; keys with a higher one come first. None keeps the current
            priority, which stays with the key through errors as well.

    Raises:
        ValueError: `requeue_after` is not a number, 0, negative or not finite, or is combined with `again`.
        TypeError: `priority` is not an integer.
    """

    requeue_after: float | None = None
    again: bool = False
    priority: int | None = None

    def __post_init__(self) -> None:
        # Here, where the traceback shows the mistake: in the worker, the error would end the controller.
        if self.priority is not None:
            object.__setattr__(self, "priority", as_priority(self.priority))
        after: object = self.requeue_after
        if after is None:
            return
        if not isinstance(after, (int, float, Decimal)) or not (after > 0 and math.isfinite(after)):
            remedy = (
                "write its total_seconds()"
                if isinstance(after, timedelta)
                else "to reconcile once more now, return Result(again=True)"
            )
            raise ValueError(f"requeue_after must be a finite number of seconds above 0, not {after!r}; {remedy}")
        if self.again:
            raise ValueError("again=True and requeue_after exclude each other: now, or later")
        if type(after) not in (int, float):  # a Decimal, which cannot be added to the time
            object.__setattr__(self, "requeue_after", float(after))

    @staticmethod
    def merge(*outcomes: Outcome) -> Outcome:
        """Return the most urgent of several outcomes: `again` before the shortest delay before None.

        The result has the highest priority of all of them.
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
