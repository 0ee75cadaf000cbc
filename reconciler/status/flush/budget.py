"""The time of one flush, divided among its requests.

A request may use two thirds of the time that is left. A stalled write is therefore cut off while there is time to read
it back and to send it again; so is a stalled read.
"""

from __future__ import annotations

import asyncio

__all__ = ["Budget"]

SHARE = 2 / 3
"""Of the time that is left. Of 10 s a write has 6.7 s, the read back 2.2 s: an API server answers within 1 s,
and one that is slow but alive is waited for."""


class Budget:
    """The time that one flush may take. It can be shortened while the flush runs.

    Args:
        now: monotonic seconds; the clock that the caller asks in all calls.
        seconds: how long the flush may take.
    """

    def __init__(self, now: float, seconds: float) -> None:
        self._end = now + seconds
        self._limit: asyncio.Timeout | None = None

    def allows(self, now: float, pause: float = 0.0) -> bool:
        """Return whether time is left after a pause."""
        return now + pause < self._end

    def share(self, now: float) -> float:
        """Return the seconds that a request may take."""
        return max(0.0, self._end - now) * SHARE

    def request(self, now: float) -> asyncio.Timeout:
        """Return the timeout of a request that begins now, on the running event loop."""
        self._limit = asyncio.timeout(self.share(now))
        return self._limit

    def shorten(self, now: float, seconds: float) -> None:
        """Leave no more than these seconds, and its share of them for the request in progress."""
        self._end = min(self._end, now + seconds)
        limit, latest = self._limit, now + self.share(now)
        if limit is not None and not limit.expired() and (limit.when() or latest) > latest:
            limit.reschedule(latest)
