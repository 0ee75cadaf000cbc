"""Calls of a metrics back end: what it raises is logged, and does not reach what it measures."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from reconciler.cancellation import FAILURES

__all__ = ["log_metrics_failure", "report"]

_log = logging.getLogger("reconciler.metrics")

_logged: set[tuple[str, str]] = set()
"""The methods that have failed, by their name and the type of the error: each is logged once."""


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
    name = getattr(method, "__qualname__", repr(method))
    failure = (name, repr(sys.exc_info()[0]))
    if failure not in _logged:
        _logged.add(failure)
        _log.exception("%s failed, so its metrics are wrong; the same error is not logged again", name)
