"""Calls of a metrics back end: what it raises is logged, and does not reach what it measures."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["report"]

_log = logging.getLogger("reconciler.metrics")

_logged: set[tuple[str, str]] = set()
"""The methods that have failed, by their name and the type of the error: each is logged once."""


def report(method: Callable[..., object], /, *values: object, **named: object) -> None:
    """Call a method of a metrics back end, and log what it raises, once for each method and type of error."""
    try:
        method(*values, **named)
    except Exception as error:  # noqa: BLE001 - any mistake in code that only counts
        name = getattr(method, "__qualname__", repr(method))
        failure = (name, type(error).__name__)
        if failure not in _logged:
            _logged.add(failure)
            _log.exception("%s failed, so its metrics are wrong; the same error is not logged again", name)
