"""The end of a reconcile: the result that it returns, the errors, and the completion.

The errors of controllers, under `reconciler.errors.ReconcilerError`::

    ControllerError
    ├── NotBound             a reconciler was used without a controller
    ├── CacheSyncTimeout     a watched kind could not be listed in time
    ├── ObjectMoved          a write was refused: the object has moved to another shard
    ├── ReconcileTimeout     a reconcile took too long
    └── ReconcileCancelled   its thread must stop
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
from pydantic import ValidationError

from reconciler._core.durations import OptionalSeconds
from reconciler._core.redaction import redact_error
from reconciler.errors import APIError, ReconcilerError, TerminalError, error_text
from reconciler.workqueue.order import as_priority


class ControllerError(ReconcilerError):
    """The base class of the errors that controllers raise."""


class NotBound(ControllerError):
    """A reconciler was used before it belonged to a controller, such as its client; the message says what to do."""


class CacheSyncTimeout(ControllerError):
    """A watched kind could not be listed in time; the message has the kind and the last error."""


class ObjectMoved(ControllerError):
    """A write of a reconcile was refused because its object moved to another shard meanwhile. Nothing was sent."""


class ReconcileTimeout(ControllerError):
    """A reconcile did not end within the controller's ``timeout``."""


class ReconcileCancelled(ControllerError):
    """A reconcile that runs in a thread must stop: its timeout expired, or the controller stops.

    `Reconciler.wait` raises it in that thread. Do not catch it: the key stays in progress until the thread has ended.
    """


@dataclass(frozen=True)
class Result:
    """A request for another reconcile. Return None instead to wait for the next event.

    A key has one timer, which belongs to the outcome of the latest reconcile; every reconcile of the key clears it. For
    a period, return `requeue_after` from every path. Store a wait that must survive events in the object's status.

    Attributes:
        requeue_after: the duration (seconds, a timedelta or ``"5m"``) until the key is reconciled again if nothing
            wakes it earlier; more than 0. None for no timer.
        again: reconcile once more now, after the keys that are ready already. A controller's own status write does not
            wake it, so a reconcile that works in a few steps returns this. If the next reconcile of the key returns it
            too, the one after that waits for the backoff of the controller's rate limiter, by default 5 ms, 10 ms, … up
            to 5 s; a reconcile that ends otherwise resets it. It is not an error and not counted as one. To wait
            for something, use `requeue_after`. Once the controller stops, no further step begins. Excludes
            `requeue_after`.
        priority: the priority of the next reconcile; keys with a higher one come first. None keeps the current
            priority, which stays with the key through errors as well.

    Raises:
        ValueError: `requeue_after` is not a duration, 0, negative or not finite, or is combined with `again`.
        TypeError: `priority` is not an integer.
    """

    requeue_after: OptionalSeconds = OptionalSeconds(None, hint="to reconcile once more now, return Result(again=True)")
    again: bool = False
    priority: int | None = None

    def __post_init__(self) -> None:
        # Here, where the traceback shows the mistake: in the worker, the error would end the controller.
        if self.priority is not None:
            object.__setattr__(self, "priority", as_priority(self.priority))
        if self.again and self.requeue_after is not None:
            raise ValueError("again=True and requeue_after exclude each other: now, or later")

    @staticmethod
    def merge(*outcomes: Outcome) -> Outcome:
        """Choose the most urgent of several outcomes: `again` before the shortest delay before None.

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


_MAX_PARTS = 3
"""How many exceptions of a group a message names."""

_MAX_CHAIN = 8
_MAX_DEPTH = 4


ReconcileResult = Literal["success", "error", "requeue", "requeue_after"]
"""How a reconcile ended, in controller-runtime's words; ``requeue`` is ``Result(again=True)``, also with backoff."""


class Completion(msgspec.Struct):
    """The outcome or the error of a reconcile that has ended.

    Attributes:
        outcome: what it returned; also None if it failed.
        error: what it raised; None if it returned.
        timed_out: whether its timeout expired.
        panicked: whether it ended with a cancellation that did not come from the controller.
        result: the value of the metrics' label ``result``; it follows from the others.
        terminal: whether a retry cannot help; it follows from the others.

    Raises:
        TypeError: the outcome is neither None nor a `Result`.
    """

    outcome: Outcome = None
    error: Exception | None = None
    timed_out: bool = False
    panicked: bool = False
    result: ReconcileResult = "success"
    terminal: bool = False

    def __post_init__(self) -> None:
        if self.error is not None:
            self.result, self.terminal = "error", is_terminal(self.error)
        elif self.outcome is not None:
            check_outcome(self.outcome)
            if self.outcome.again:
                self.result = "requeue"
            elif self.outcome.requeue_after is not None:
                self.result = "requeue_after"


def is_terminal(error: BaseException) -> bool:
    """Return whether an error is a `TerminalError`, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):  # of a TaskGroup: it is retried if a retry can help one part
        return all(is_terminal(part) for part in error.exceptions)
    return isinstance(error, TerminalError)


def error_message(error: BaseException) -> str:
    """Return the type of an error and its text without values: for everybody who may read Events and conditions."""
    name, text = type(error).__name__, text_without_values(error)
    return name if text == name else f"{name}: {text}"


def text_without_values(error: BaseException) -> str:
    """Return the text of an error in one line, without the values of objects that an API server or a model rejected.

    What looks like a key, a token or a password is hidden as well. The text of a group contains the types and texts of
    its first exceptions. Of a long text the beginning is returned.
    """
    return " ".join(redact_error(_without_values(error)).split())


def _named(error: BaseException, depth: int) -> str:
    name, text = type(error).__name__, _without_values(error, depth)
    return name if text == name else f"{name}: {text}"


def _without_values(error: BaseException, depth: int = _MAX_DEPTH) -> str:
    text = error_text(error)
    for linked in _chain(error):
        if isinstance(linked, APIError) and linked.status == 422:
            fields = ", ".join(f"{cause.field or '?'} ({cause.reason})" for cause in linked.causes)
            text = text.replace(linked.message, fields or "the object is invalid")
        elif isinstance(linked, ValidationError):
            problems = linked.errors(include_url=False, include_context=False, include_input=False)
            fields = "; ".join(f"{'.'.join(map(str, each['loc'])) or '$'}: {each['type']}" for each in problems)
            text = text.replace(str(linked), f"{linked.title} is invalid: {fields}")
    if isinstance(error, BaseExceptionGroup) and depth:
        text += ": " + "; ".join(_named(each, depth - 1) for each in error.exceptions[:_MAX_PARTS])
    return text


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that caused it, eight at most. Exceptions are not compared: `__eq__` may raise."""
    chain: list[BaseException] = []
    linked: BaseException | None = error
    while linked is not None and not any(linked is each for each in chain) and len(chain) < _MAX_CHAIN:
        chain.append(linked)
        linked = linked.__context__ if linked.__cause__ is None else linked.__cause__
    return chain


def check_outcome(outcome: object) -> Outcome:
    """Check that an outcome is None or a `Result`, and return it."""
    if outcome is None or isinstance(outcome, Result):
        return outcome
    raise TypeError(f"a reconcile must return None or a Result, not {type(outcome).__name__}")
