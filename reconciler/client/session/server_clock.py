"""The offset between the API server's clock and this machine's, estimated from the ``Date`` of responses.

A time that one machine stores is read by another. A due time means the same on both if both use the server's clock.
"""

from __future__ import annotations

import email.utils
import logging
from datetime import UTC, datetime, timedelta

__all__ = ["ServerClock"]

_logger = logging.getLogger("reconciler.client")

_LOGGED_SKEW = timedelta(seconds=2)
"""A larger skew is logged: certificates, leases and log lines suffer from it too."""

_RESOLUTION = timedelta(seconds=1)
"""``Date`` is truncated to whole seconds."""

_ZERO = timedelta()


class ServerClock:
    """The offset of the server's clock, bounded by each response whose ``Date`` differs from the one before.

    A response was made at a server time from D to D + 1 s, after the request was sent and before the response arrived.
    So the offset lies within two bounds. The intersection over all responses narrows down. A response that contradicts
    it, because a clock was set, starts a new one. The estimate does not move while it is within the bounds: machines
    whose clocks agree have an offset of exactly 0. It is wrong by at most 1 s and the time of one exchange.
    """

    __slots__ = ("_date", "_high", "_logged", "_low", "offset")

    def __init__(self) -> None:
        self.offset = _ZERO
        self._date = ""
        self._low = timedelta.min
        self._high = timedelta.max
        self._logged = False

    def is_new(self, date: str) -> bool:
        """Return whether a ``Date`` differs from the last one, and so may narrow the bounds."""
        return date != self._date

    def record(self, date: str, *, sent: datetime, received: datetime) -> None:
        """Narrow the bounds by a response.

        Args:
            date: its ``Date``; ignored if it is malformed, or at the end of time.
            sent: the local wall time when the request was sent.
            received: the local wall time when the response arrived.
        """
        self._date = date
        try:
            server = email.utils.parsedate_to_datetime(date)
            server = server if server.tzinfo is not None else server.replace(tzinfo=UTC)
            low, high = server - received, server + _RESOLUTION - sent
        except (ValueError, TypeError, IndexError, OverflowError):  # an error would hide that the request succeeded
            return
        if low > high:
            return  # the local clock was set while the request was in progress
        self._low, self._high = max(self._low, low), min(self._high, high)
        if self._low > self._high:
            self._low, self._high = low, high
        if not self._low <= self.offset <= self._high:
            self.offset = _ZERO if self._low <= _ZERO <= self._high else self._low + (self._high - self._low) / 2
            self._log()

    def _log(self) -> None:
        """Log a skew once, until it is gone."""
        large = abs(self.offset) > _LOGGED_SKEW
        if large and not self._logged:
            _logger.warning(
                "the API server's clock is %.1f s %s this machine's; stored times follow the server's clock",
                abs(self.offset.total_seconds()),
                "ahead of" if self.offset > _ZERO else "behind",
            )
        self._logged = large
