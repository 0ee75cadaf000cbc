"""Reconciles in progress: the place where each one is, and a report of those that do not end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable

from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile
from reconciler.controller.reconcile.frames import CodePlace, place_of_task, place_of_thread
from reconciler.meta import Request
from reconciler.meta.documents import human_duration

_log = logging.getLogger("reconciler.controller")

STUCK = "ReconcileStuck"
"""The reason of the Warning Event."""

_LONGEST_PAUSE = 3600.0
"""Seconds between two reports of one reconcile at most; Events are kept for an hour. The pause doubles up to that."""


class RunningReconciles(ReconcileObserver):
    """The reconciles in progress of one controller; those that take too long are logged and become Events.

    Args:
        warn: records a Warning Event on the object of a key; None for none.
        clock: source of monotonic time.
        stuck_after: seconds after which a reconcile is reported; None for never.
    """

    def __init__(
        self, warn: Callable[[Request, str, str], None] | None, clock: Clock, stuck_after: float | None
    ) -> None:
        self.stuck_after = stuck_after
        self._warn = warn
        self._clock = clock
        self._running: dict[Request, Reconcile] = {}
        self._next_report: dict[Request, float] = {}  # seconds of the reconcile, of those that were reported
        self._timer: asyncio.TimerHandle | None = None

    def begun(self, reconcile: Reconcile, /) -> None:
        """Note a reconcile. One timer is enough for all that are in progress."""
        self._running[reconcile.request] = reconcile
        if self._timer is None and self.stuck_after is not None:
            self._timer = asyncio.get_running_loop().call_later(
                self.stuck_after,
                self._look,
                self.stuck_after,
                context=contextvars.Context(),  # not that of the reconcile
            )

    def ended(self, reconcile: Reconcile, /) -> None:
        """Forget a reconcile; log the end of one that was reported."""
        self._running.pop(reconcile.request, None)
        if not self._running and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next_report and self._next_report.pop(reconcile.request, None) is not None:
            run = reconcile.run
            _log.info(
                "%s: the reconcile of %s ended after %s",
                run.controller,
                run.request,
                human_duration(reconcile.seconds),
                extra=run.log_fields(),
            )

    def place(self, request: Request) -> CodePlace | None:
        """Return where the reconcile of a key is; None if none is in progress. Call it on the event loop."""
        reconcile = self._running.get(request)
        if reconcile is None or reconcile.task is None:
            return None
        thread = reconcile.thread
        return place_of_task(reconcile.task) if thread is None else place_of_thread(thread)

    def stop(self) -> None:
        """Report nothing more."""
        self.stuck_after = None
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, stuck_after: float) -> None:
        """Report the reconciles that are in progress for too long, and look again when the next one may be."""
        self._timer, delays = None, []
        for key, reconcile in self._running.items():
            seconds = self._clock.monotonic() - reconcile.run.since
            due = self._next_report.get(key, stuck_after)
            if seconds >= due:
                due = self._next_report[key] = seconds + min(max(seconds, stuck_after), _LONGEST_PAUSE)
                self._report(reconcile, seconds)
            delays.append(due - seconds)
        if delays:
            self._timer = asyncio.get_running_loop().call_later(max(0.001, min(delays)), self._look, stuck_after)

    def _report(self, reconcile: Reconcile, seconds: float) -> None:
        run, place = reconcile.run, self.place(reconcile.request)
        text = f"in progress for {human_duration(seconds)}, at {place}"
        _log.warning("%s: the reconcile of %s is %s", run.controller, run.request, text, extra=run.log_fields())
        if self._warn is not None:
            self._warn(run.request, STUCK, f"the reconcile is {text}")
