"""Say what becomes of one delivery."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

__all__ = ["Delivery", "Verdict"]


class Verdict(Enum):
    """Say how a delivery ended."""

    DELIVERED = "delivered"
    RETRYABLE = "retryable"
    PERMANENT = "permanent"
    DEFERRED = "deferred"
    UNKNOWN = "unknown"  # the receiver may have the message
    DOUBTFUL = "doubtful"  # it failed, and nobody says that the receiver has not got it
    UNKNOWN_CHANNEL = "unknown channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Hold what became of one channel in one pass.

    Attributes:
        channel: its name.
        verdict: how it ended.
        started: when the attempt began.
        ended: when it ended; waits count from here.
        seconds: how long it took.
        error: what went wrong, redacted and bounded.
        retry_after: seconds that the receiver asked to wait, or None.
    """

    channel: str
    verdict: Verdict
    started: datetime
    ended: datetime
    seconds: float = 0.0
    error: str = ""
    retry_after: float | None = None
