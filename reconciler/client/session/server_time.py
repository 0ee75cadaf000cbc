"""Estimate how far the API server's clock is ahead of this machine's, from the ``Date`` of its answers.

What one machine stores another one reads: a due time means the same on both when it is told by a clock that they share.
"""

from __future__ import annotations

import email.utils
import logging
from datetime import UTC, datetime, timedelta

__all__ = ["ServerTime"]

_log = logging.getLogger("reconciler.client")

WORTH_TELLING = timedelta(seconds=2)
"""A skew above it is logged: certificates, leases and log lines suffer from it too."""

_RESOLUTION = timedelta(seconds=1)
"""``Date`` is cut to whole seconds."""

_NONE = timedelta()


class ServerTime:
    """Bound the offset by every answer that has another ``Date`` than the one before.

    An answer that was made at the server's time D to D + 1 s, after the request was sent and before the answer came,
    says that the offset lies within these bounds. Their intersection over the answers narrows down; an answer that
    contradicts it, since a clock was set, begins anew. The estimate stays as long as it is within the bounds, so that
    machines whose clocks agree have an offset of exactly 0. It is wrong by 1 s and the time of one exchange at most.
    """

    __slots__ = ("_high", "_low", "_seen", "_told", "offset")

    def __init__(self) -> None:
        self.offset = _NONE
        self._seen = ""
        self._low = timedelta.min
        self._high = timedelta.max
        self._told = False

    def is_news(self, date: str) -> bool:
        """Say whether a ``Date`` tells something that the last one did not."""
        return date != self._seen

    def heard(self, date: str, *, sent: datetime, received: datetime) -> None:
        """Take note of an answer.

        Args:
            date: its ``Date``; one that cannot be read tells nothing.
            sent: the local wall time when its request was sent.
            received: the local wall time when it came.
        """
        self._seen = date
        try:
            told = email.utils.parsedate_to_datetime(date)
        except (ValueError, TypeError):
            return
        told = told if told.tzinfo is not None else told.replace(tzinfo=UTC)
        low, high = told - received, told + _RESOLUTION - sent
        if low > high:
            return  # the local clock was set while the answer was under way
        self._low, self._high = max(self._low, low), min(self._high, high)
        if self._low > self._high:
            self._low, self._high = low, high
        if not self._low <= self.offset <= self._high:
            self.offset = _NONE if self._low <= _NONE <= self._high else self._low + (self._high - self._low) / 2
            self._tell()

    def _tell(self) -> None:
        """Log a skew once, until it is gone."""
        far = abs(self.offset) > WORTH_TELLING
        if far and not self._told:
            _log.warning(
                "the API server's clock is %.1f s %s this machine's; times that are stored follow the server's",
                abs(self.offset.total_seconds()),
                "ahead of" if self.offset > _NONE else "behind",
            )
        self._told = far
