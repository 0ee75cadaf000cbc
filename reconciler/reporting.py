"""Calls of a metrics back end: what it raises is logged, and does not reach what it measures."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from reconciler.cancellation import FAILURES
from reconciler.errors import RepeatedFailures

__all__ = ["log_metrics_failure", "report"]

_failures = RepeatedFailures(
    logging.getLogger("reconciler.metrics"), logging.ERROR, "%s failed, so its metrics are wrong"
)


def report(method: Callable[..., object], /, *values: object, **named: object) -> None:
    """Call a method of a metrics back end, and log what it raises.

    What is called in each reconcile uses `log_metrics_failure` instead, without the cost of this call.
    """
    try:
        method(*values, **named)
    except FAILURES:
        log_metrics_failure(method)


def log_metrics_failure(method: Callable[..., object], /) -> None:
    """Log the exception that a method of a metrics back end has raised, once for each method and type of error.

    Call it in the ``except`` clause.
    """
    name, error = getattr(method, "__qualname__", repr(method)), sys.exc_info()[1]
    assert error is not None  # noqa: S101 - see above
    _failures.log(error, name, kind=(name, type(error)))
