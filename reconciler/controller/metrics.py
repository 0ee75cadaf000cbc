"""The metrics of a controller: the protocol of a back end, and one that ignores everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Protocol

__all__ = ["ControllerMetrics", "NoMetrics", "ReconcileResult"]

ReconcileResult = Literal["success", "error", "requeue", "requeue_after"]
"""How a reconcile ended, in controller-runtime's words; ``requeue`` is ``Result(again=True)``, also with backoff."""


class ControllerMetrics(Protocol):
    """The metrics of one controller. The methods are called on the event loop, and must not block.

    An exception that a method raises while the controller runs is logged once and ignored.
    """

    def set_max_concurrent_reconciles(self, workers: int, /) -> None:
        """Called once, at the start, with the number of workers."""
        ...

    def watch_active_workers(self, active: Callable[[], int], /) -> None:
        """Called once, at the start, with the function that returns how many workers are reconciling. Thread-safe."""
        ...

    def reconciled(
        self,
        result: ReconcileResult,
        seconds: float,
        reasons: Iterable[str],
        /,
        *,
        terminal: bool,
        timed_out: bool,
        panicked: bool,
    ) -> None:
        """Called when a reconcile has ended.

        Args:
            result: how it ended.
            seconds: its duration, including the status flush.
            reasons: the words of why it ran (``"event"``, ``"retry"``), few in number.
            terminal: it ended with a `TerminalError`.
            timed_out: its timeout expired.
            panicked: it ended with a cancellation that did not come from the controller.
        """
        ...

    def echo_dropped(self) -> None:
        """Called when a watch event of an own write was dropped."""
        ...

    def storm(self) -> None:
        """Called when a key was found to reconcile in a tight loop."""
        ...

    def mapper_failed(self) -> None:
        """Called when a call of a mapper failed or took too long."""
        ...

    def unmapped(self, versions: int, /) -> None:
        """Called when versions of a watched object were given up, so that their keys are not enqueued."""
        ...


class NoMetrics:
    """Metrics that ignore everything."""

    def set_max_concurrent_reconciles(self, workers: int, /) -> None:
        """Ignore it."""

    def watch_active_workers(self, active: Callable[[], int], /) -> None:
        """Ignore it."""

    def reconciled(
        self,
        result: ReconcileResult,
        seconds: float,
        reasons: Iterable[str],
        /,
        *,
        terminal: bool,
        timed_out: bool,
        panicked: bool,
    ) -> None:
        """Ignore it."""

    def echo_dropped(self) -> None:
        """Ignore it."""

    def storm(self) -> None:
        """Ignore it."""

    def mapper_failed(self) -> None:
        """Ignore it."""

    def unmapped(self, versions: int, /) -> None:
        """Ignore it."""
