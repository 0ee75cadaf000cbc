"""Say when a credential has to be replaced."""

from __future__ import annotations

from datetime import datetime, timedelta

from reconciler.clock import current_clock

__all__ = ["expires_soon"]

SKEW = timedelta(seconds=70)
"""How long before its expiry a credential is replaced: a little more than the time between two looks at it."""


def expires_soon(expiry: datetime | None) -> bool:
    """Say whether a credential has to be replaced now; never, if it names no expiry."""
    return expiry is not None and current_clock().now() >= expiry - SKEW
