"""The end of a reconcile: its timeout, its errors, and the check of the returned outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from pydantic import ValidationError

from reconciler._core.redaction import redact_error
from reconciler.controller.errors import ReconcileTimeout
from reconciler.controller.metrics import ReconcileResult
from reconciler.controller.result import Outcome, Result
from reconciler.errors import APIError, TerminalError, error_text

__all__ = [
    "Completion",
    "check_outcome",
    "error_message",
    "is_terminal",
    "result_of",
    "run_to_completion",
    "text_without_values",
]

T = TypeVar("T")

_MAX_PARTS = 3
"""How many exceptions of a group a message names."""

_MAX_CHAIN = 8
_MAX_DEPTH = 4


class Completion(msgspec.Struct):
    """The outcome or the error of a reconcile that has ended.

    Attributes:
        outcome: what it returned; also None if it failed.
        error: what it raised; None if it returned.
        timed_out: whether its timeout expired.
        panicked: whether it ended with a cancellation that did not come from the controller.
        result: the value of the metrics' label ``result``; it follows from the others.
        terminal: whether a retry cannot help; it follows from the others.
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
            self.result = result_of(self.outcome)


async def run_to_completion(
    reconcile: Callable[[T], Awaitable[object]],
    cycle: T,
    *,
    timeout: float | None,  # noqa: ASYNC109 - a timeout is a completion
) -> Completion:
    """Run a reconcile, as the only content of a task, and return how it ended.

    Every exception becomes part of the result, so that one key cannot end a worker. A BaseException that is not an
    Exception (`SystemExit`, pytest's outcomes) is raised. Cancellation of the task cancels the reconcile and is raised
    when that has ended.

    Args:
        reconcile: starts it.
        cycle: its argument.
        timeout: seconds after which it is cancelled, which counts as an error. None: no limit.
    """
    error: Exception | None = None
    if timeout is None:
        try:
            return Completion(check_outcome(await reconcile(cycle)))
        except Exception as raised:  # noqa: BLE001 - as below
            return Completion(error=raised)
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            outcome = await reconcile(cycle)
        if not scope.expired():
            return Completion(check_outcome(outcome))
    except Exception as raised:  # noqa: BLE001 - the worker passes it to the log, the metrics and the backoff
        error = raised
    if scope.expired():
        late = ReconcileTimeout(f"the reconcile did not end within {timeout:g} s")
        late.__cause__ = error
        return Completion(error=late, timed_out=True)
    return Completion(error=error)


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


def result_of(outcome: object) -> ReconcileResult:
    """Return the value of the metrics' label ``result`` for a reconcile that returned this."""
    if not isinstance(outcome, Result):
        return "success"
    if outcome.again:
        return "requeue"
    return "success" if outcome.requeue_after is None else "requeue_after"


def check_outcome(outcome: object) -> Outcome:
    """Return the outcome; raise a TypeError if it is neither None nor a `Result`."""
    if outcome is None or isinstance(outcome, Result):
        return outcome
    raise TypeError(f"a reconcile must return None or a Result, not {type(outcome).__name__}")
