"""Say what a controller tells a metrics back end. Plain calls; who implements them decides what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

__all__ = ["ControllerMetrics", "ReconcileResult"]

ReconcileResult = Literal["success", "error", "requeue", "requeue_after"]
"""How a reconcile ended, in controller-runtime's words; ``requeue`` is ``Result(again=True)``."""


class ControllerMetrics(Protocol):
    """Count what one controller does. Called on the event loop; must not block or raise."""

    def set_max_concurrent_reconciles(self, workers: int, /) -> None:
        """Hear how many workers there are, once, at the start."""
        ...

    def set_active_workers(self, active: int, /) -> None:
        """Hear how many workers are reconciling now."""
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
        """Hear that a reconcile ended.

        Args:
            result: how.
            seconds: its duration, the status flush included.
            reasons: the words of why it ran (``"event"``, ``"retry"``), few in number.
            terminal: it ended with a `TerminalError`.
            timed_out: its time was up.
            panicked: it ended by a cancellation that nobody asked for.
        """
        ...

    def echo_dropped(self) -> None:
        """Hear that the event of an own write was recognised and woke nobody."""
        ...

    def storm(self) -> None:
        """Hear that a key was reported for running in a tight loop."""
        ...

    def mapper_failed(self) -> None:
        """Called when a call of a mapper failed or took too long."""
        ...

    def unmapped(self, versions: int, /) -> None:
        """Called when versions of a watched object were given up, so that the keys they name are not woken."""
        ...


class NoMetrics:
    """Count nothing."""

    def set_max_concurrent_reconciles(self, workers: int, /) -> None:
        """Ignore it."""

    def set_active_workers(self, active: int, /) -> None:
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
