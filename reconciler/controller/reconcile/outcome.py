"""Run one reconcile to its end and say how it ended, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from reconciler.controller.errors import ReconcileTimeout
from reconciler.controller.metrics import ReconcileResult
from reconciler.controller.result import Outcome, Result
from reconciler.errors import TerminalError

__all__ = ["Verdict", "checked", "is_terminal", "judge"]


class Verdict(msgspec.Struct, frozen=True):
    """Say how a reconcile ended.

    Attributes:
        outcome: what it returned; None as well when it failed.
        error: what it raised; None when it returned.
        timed_out: its time was up.
        panicked: it ended by a cancellation that nobody asked for.
    """

    outcome: Outcome = None
    error: Exception | None = None
    timed_out: bool = False
    panicked: bool = False

    @property
    def terminal(self) -> bool:
        """Say whether retrying cannot help."""
        return self.error is not None and is_terminal(self.error)

    @property
    def result(self) -> ReconcileResult:
        """Return the word that the metrics count."""
        if self.error is not None:
            return "error"
        if self.outcome is None:
            return "success"
        if self.outcome.again:
            return "requeue"
        return "success" if self.outcome.requeue_after is None else "requeue_after"


async def judge(reconcile: Callable[[], Awaitable[object]], *, timeout: float | None) -> Verdict:  # noqa: ASYNC109 - a timeout is a verdict
    """Run a reconcile as the whole of a task.

    Every exception becomes a verdict, so that one key cannot end a worker. What is no exception (`SystemExit`, pytest's
    outcomes) passes. Cancellation of the task cancels the reconcile and is raised when that has ended.

    Args:
        reconcile: starts it.
        timeout: seconds after which it is cancelled, which counts as an error. None: no limit.
    """
    error: Exception | None = None
    if timeout is None:
        try:
            return Verdict(checked(await reconcile()))
        except Exception as raised:  # noqa: BLE001 - as below
            return Verdict(error=raised)
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            outcome = await reconcile()
        if not scope.expired():
            return Verdict(checked(outcome))
    except Exception as raised:  # noqa: BLE001 - the verdict carries it to the log, the metrics and the back-off
        error = raised
    if scope.expired():
        late = ReconcileTimeout(f"the reconcile did not end within {timeout:g} s")
        late.__cause__ = error
        return Verdict(error=late, timed_out=True)
    return Verdict(error=error)


def is_terminal(error: BaseException) -> bool:
    """Return whether an error is a `TerminalError`, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):  # of a TaskGroup: as long as one part may be cured, it is tried again
        return all(is_terminal(part) for part in error.exceptions)
    return isinstance(error, TerminalError)


def checked(outcome: object) -> Outcome:
    """Return the outcome; raise a TypeError if it is neither None nor a `Result`."""
    if outcome is None or isinstance(outcome, Result):
        return outcome
    raise TypeError(f"a reconcile returns None or a Result, not {type(outcome).__name__}")
