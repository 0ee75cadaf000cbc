"""What needs attention: keys that fail, hang or loop, objects that are not healthy, and saturated workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

from reconciler._core.redaction import redact
from reconciler.controller import Controller
from reconciler.controller.reconcile.explanation import EndedReconcile, KeyExplanation, KeyRate
from reconciler.meta import Request
from reconciler.meta.documents import human_duration, parse_time

_LOOP_PAUSE = 15.0
"""Seconds without a reconcile after which a tight loop has ended."""

_SATURATED = 10.0
"""Seconds that a ready key waits for a worker before the workers need attention."""

_EXAMINED = 1_000
"""Keys that are examined for the longest wait."""


class Attention:
    """What needs attention in one controller now.

    Args:
        controller: the controller.

    Attributes:
        unhealthy: the condition of each object that is not healthy.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._history = controller.history
        self.unhealthy = controller.health.unhealthy()

    def is_failing(self, rows: Sequence[EndedReconcile]) -> bool:
        """Return whether the latest reconcile of a key failed, given its latest reconciles."""
        return bool(rows) and rows[-1].ending.failure is not None

    def is_stuck(self, seconds: float | None) -> bool:
        """Return whether a reconcile that is in progress for so many seconds is stuck."""
        limit = self._controller.stuck_after
        return seconds is not None and limit is not None and seconds >= limit

    def is_in_loop(self, key: Request, rows: Sequence[EndedReconcile]) -> bool:
        """Return whether a key is reconciled again and again."""
        if not rows or not self._controller.tight_loops.is_in_loop(key):
            return False
        return self._history.age(rows[-1]) < _LOOP_PAUSE

    def is_needed(self, key: Request, rows: Sequence[EndedReconcile]) -> bool:
        """Return whether a key needs attention."""
        return (
            self.is_failing(rows)
            or key in self.unhealthy
            or bool(self._history.warnings(key))
            or self.is_in_loop(key, rows)
            or self.is_stuck(self._controller.queue.explain(key).in_progress)
        )

    def texts(
        self, found: KeyExplanation, rows: Sequence[EndedReconcile], rate: KeyRate, now: datetime, *, trusted: bool
    ) -> Iterator[str]:
        """Yield why a key needs attention, beside the error of its latest reconcile, which is told elsewhere."""
        if self.is_stuck(found.in_progress):
            yield f"stuck for {human_duration(found.in_progress or 0.0)} at {found.place}"
        yield from found.warnings
        if self.is_in_loop(found.request, rows):
            yield f"in a tight loop: {rate_text(rate.per_minute)}, because of {reasons_text(rate.reasons)}"
        condition = self.unhealthy.get(found.request)
        if condition is not None:
            message = f": {redact(condition.message)}" if condition.message and trusted else ""
            yield f"{condition} for {since_text(condition.last_transition_time, now)}{message}"

    def of_workers(self) -> Iterator[str]:
        """Yield why the workers need attention."""
        queue, figures = self._controller.queue, self._controller.statistics()
        if figures.active < figures.workers or not figures.queue.ready:
            return
        waits = [queue.explain(key).ready or 0.0 for key in islice(queue.keys(), _EXAMINED)]
        if max(waits, default=0.0) >= _SATURATED:
            yield (
                f"all {figures.workers} workers are busy, the longest for "
                f"{human_duration(figures.queue.longest_in_progress)}; keys that are ready: {figures.queue.ready}, the "
                f"first for {human_duration(max(waits))}. Find out what is slow, or raise workers="
            )


def rate_text(per_minute: float) -> str:
    """Return a rate for people: ``"12 per second"`` or ``"4.5 per minute"``."""
    return f"{per_minute / 60:,.1f} per second" if per_minute >= 60 else f"{per_minute:,.1f} per minute"


def reasons_text(reasons: Mapping[str, int]) -> str:
    """Return reasons with their counts."""
    return ", ".join(f"{reason} ×{count}" for reason, count in reasons.items())


def since_text(time: object, now: datetime) -> str:
    """Return how long ago an RFC 3339 time was, for people."""
    try:
        return human_duration(max(0.0, (now - parse_time(str(time))).total_seconds()))
    except ValueError:
        return "an unknown time"
