"""The API server's time, estimated from the ``Date`` of responses.

A time that one machine stores is read by another. A due time means the same on both if both use the server's clock.
Between responses, the estimate advances with this machine's boot time, so a step of the wall clock does not move it.
"""

from __future__ import annotations

import email.utils
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from reconciler.clock import Clock, boottime_of, current_clock

__all__ = ["ServerClock"]

_logger = logging.getLogger("reconciler.client")

_LOGGED_SKEW = timedelta(seconds=2)
"""A larger skew is logged: certificates, leases and log lines suffer from it too."""

_RESOLUTION = timedelta(seconds=1)
"""``Date`` is truncated to whole seconds."""

_STEP = timedelta(seconds=0.1)
"""A smaller difference between wall clock and boot time is the time between two readings, not a step."""

_ZERO = timedelta()


class ServerClock:
    """The offset of the server's clock, bounded by each response whose ``Date`` differs from the one before.

    It is an offset from the machine's *steady time*: the wall time of the first call, continued by boot time.

    A response was made at a server time from D to D + 1 s, after the request was sent and before the response arrived.
    So the offset lies within two bounds. The intersection over all responses narrows down. A response that contradicts
    it, because the server's clock was set, starts a new one. The estimate does not move while it is within the bounds:
    machines whose clocks agree have an offset of exactly 0. It is wrong by at most 1 s and the time of one exchange.

    Args:
        clock: returns the machine's clock.

    Attributes:
        offset: how far the server's clock is ahead of the steady time.
    """

    __slots__ = ("_clock", "_date", "_high", "_logged", "_low", "_zero", "offset")

    def __init__(self, clock: Callable[[], Clock] = current_clock) -> None:
        self.offset = _ZERO
        self._clock = clock
        self._zero: datetime | None = None  # the steady time at second 0 of boot time
        self._date = ""
        self._low = timedelta.min
        self._high = timedelta.max
        self._logged = False

    def steady_time(self) -> datetime:
        """Return the machine's steady time."""
        clock = self._clock()
        seconds = timedelta(seconds=boottime_of(clock)())
        if self._zero is None:
            self._zero = clock.now() - seconds
        return self._zero + seconds

    @property
    def ahead(self) -> timedelta:
        """The offset of the server's clock from the wall clock, whose steps are included."""
        stepped = self.steady_time() - self._clock().now()
        return self.offset + (stepped if abs(stepped) > _STEP else _ZERO)

    def is_new(self, date: str) -> bool:
        """Return whether a ``Date`` differs from the last one, and so may narrow the bounds."""
        return date != self._date

    def record(self, date: str, *, sent: datetime, received: datetime) -> None:
        """Narrow the bounds by a response.

        Args:
            date: its ``Date``; ignored if it is malformed, or at the end of time.
            sent: the steady time when the request was sent.
            received: the steady time when the response arrived.
        """
        self._date = date
        try:
            server = email.utils.parsedate_to_datetime(date)
            server = server if server.tzinfo is not None else server.replace(tzinfo=UTC)
            low, high = server - received, server + _RESOLUTION - sent
        except (ValueError, TypeError, IndexError, OverflowError):  # an error would hide that the request succeeded
            return
        self._low, self._high = max(self._low, low), min(self._high, high)
        if self._low > self._high:
            self._low, self._high = low, high
        if not self._low <= self.offset <= self._high:
            self.offset = _ZERO if self._low <= _ZERO <= self._high else self._low + (self._high - self._low) / 2
        self._log()

    def _log(self) -> None:
        """Log a skew once, until it is gone."""
        ahead = self.ahead
        large = abs(ahead) > _LOGGED_SKEW
        if large and not self._logged:
            _logger.warning(
                "the API server's clock is %.1f s %s this machine's; stored times follow the server's clock",
                abs(ahead.total_seconds()),
                "ahead of" if ahead > _ZERO else "behind",
            )
        self._logged = large
