"""Count what a controller did: a snapshot that does not change."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from reconciler.controller.reconcile.unsaved import UnsavedStatistics
from reconciler.controller.wake.echo import EchoStatistics
from reconciler.workqueue import QueueStatistics

__all__ = ["ControllerStatistics"]


@dataclass(frozen=True, slots=True)
class ControllerStatistics:
    """Count what a controller did since it was made.

    Attributes:
        name: the controller's name.
        workers: how many there may be at a time.
        active: how many are reconciling now.
        reconciles: reconciles that ended; one that a shutdown cancelled counts in `cancelled` alone.
        results: how many ended with each of ``success``, ``error``, ``requeue``, ``requeue_after``.
        terminal_errors: how many ended with a `TerminalError`.
        timeouts: how many did not end in time.
        panics: how many ended by a cancellation that nobody asked for.
        cancelled: how many a shutdown cancelled.
        storms: how many tight loops were reported.
        echo: what the echo rule knows and did.
        unsaved: status mutations that wait for a later cycle.
        mapper_errors: calls of mappers that failed or took too long.
        mapper_pending: versions of watched objects that wait for their mapper, or for its next call.
        unmapped: versions of watched objects that were given up, so that the keys they name were not woken: the mapper
            failed for too long, or too many waited for it.
        queue: what the queue holds and did.
    """

    name: str
    workers: int
    active: int
    reconciles: int
    results: Counter[str]
    terminal_errors: int
    timeouts: int
    panics: int
    cancelled: int
    storms: int
    echo: EchoStatistics
    unsaved: UnsavedStatistics
    mapper_errors: int
    mapper_pending: int
    unmapped: int
    queue: QueueStatistics
