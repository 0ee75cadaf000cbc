"""The latest attempts, in memory: what the console shows of receivers and requests."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from reconciler._core.lru import LRU
from reconciler.notification.api.types import DeliveryAttempt
from reconciler.notification.observe.outbox import StatusChange

__all__ = ["ChannelHistory", "Entry", "History"]

ENTRIES = 200
"""Attempts that are kept, over all channels."""

CHANNELS = 1_000
"""Channels whose counts are kept; the least recently used is dropped."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt.

    Attributes:
        request: namespace and name of the request.
        attempt: the attempt, as in its status.
        next: what happens next with the request, as its status says.
    """

    request: str
    attempt: DeliveryAttempt
    next: str


@dataclass(slots=True)
class ChannelHistory:
    """The counts of a channel since the start of the process, and its last error."""

    delivered: int = 0
    failed: int = 0
    deferred: int = 0
    last_error: str = ""
    last_error_time: datetime | None = None


class History:
    """An observer that keeps the latest attempts, and counts for each channel."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=ENTRIES)
        self.channels: LRU[str, ChannelHistory] = LRU(CHANNELS)

    def status_saved(self, change: StatusChange, /) -> None:
        """Keep the attempts of a saved status change."""
        request = f"{change.request.namespace}/{change.request.name}"
        after = change.after
        following = after.next_step or "" if after.completion_time is None else after.phase or ""
        for attempt in change.attempts:
            self.entries.append(Entry(request, attempt, following))
            channel = self._channel(attempt.channel)
            if attempt.result == "success":
                channel.delivered += 1
            else:
                channel.failed += 1
                channel.last_error, channel.last_error_time = attempt.error or "", attempt.timestamp
        for name in change.deferred:
            self._channel(name).deferred += 1

    def _channel(self, name: str) -> ChannelHistory:
        found = self.channels[name] = self.channels.get(name) or ChannelHistory()
        return found
