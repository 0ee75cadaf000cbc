"""The shared memory of clients on one connection: server clock, written documents, warnings.

Each memory is bounded: the least recent entry is forgotten.

A time that one machine stores is read by another. A due time means the same on both if both use the server's clock.
It is estimated from the ``Date`` of responses. Between responses, the estimate advances with this machine's boot time,
so a step of the wall clock does not move it.
"""

from __future__ import annotations

import email.utils
import logging
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler._core.lru import LRU
from reconciler._core.wire import JSONObject
from reconciler.client.requests import SERVER_METADATA
from reconciler.client.responses import InvalidItem
from reconciler.clock import Clock, boottime_of, current_clock
from reconciler.http import HTTPRequest
from reconciler.meta import GroupVersionKind, Request, equal
from reconciler.meta.metadata import version_of

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


_MAX_INVALID = 1024
"""Versions of invalid objects that are remembered. A forgotten one would be logged again."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class WrittenDocuments:
    """For each object, the last document that was sent and the version that it became.

    A server fills in defaults, also inside lists. A caller that sets ``ports: [{port: 80}]`` reads back a protocol and
    a target port. Compared with the stored object, the same desired state always looks different, and each reconcile
    would write. At the version that the response had, the document that was sent is known to be what is stored.

    Args:
        most: objects that are remembered. A forgotten one costs one more write.
    """

    def __init__(self, most: int = 1000) -> None:
        self._sent: LRU[Hashable, tuple[str, Mapping[str, Any]]] = LRU(most)

    def record(self, key: Hashable, sent: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
        """Record that writing `sent` resulted in `stored`."""
        self._sent.pop(key, None)
        if not equal(without_server_metadata(sent), without_server_metadata(stored)):
            self._sent[key] = (version_of(stored), sent)

    def is_stored(self, key: Hashable, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Return whether writing `wanted` would change nothing in `stored`."""
        version, sent = self._sent.get(key, ("", None))
        return _is_same(stored, wanted, sent if version == version_of(stored) else None)

    def __len__(self) -> int:
        return len(self._sent)


def without_server_metadata(document: Mapping[str, Any]) -> JSONObject:
    """Return a document without the metadata that only the server writes."""
    metadata = document.get("metadata") or {}
    return {**document, "metadata": {key: metadata[key] for key in metadata if key not in SERVER_METADATA}}


def _is_same(stored: Any, wanted: Any, sent: Any) -> bool:
    """Return whether each part is as it is stored, or as it was sent when it became what is stored."""
    if equal(stored, wanted):
        return True
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping) and isinstance(sent, Mapping):
        keys = stored.keys() | wanted.keys()
        return all(_is_same_member(stored.get(key), wanted.get(key), sent.get(key)) for key in keys)
    if isinstance(stored, list) and isinstance(wanted, list) and isinstance(sent, list):
        return len(stored) == len(wanted) == len(sent) and all(map(_is_same_member, stored, wanted, sent))
    return False


def _is_same_member(stored: Any, wanted: Any, sent: Any) -> bool:
    # A member that is absent both from `wanted` and from `sent` was filled in by the server.
    return equal(wanted, sent) or _is_same(stored, wanted, sent)


class InvalidItemLog:
    """A log of the objects that lists leave out: one warning for each version of an object."""

    def __init__(self) -> None:
        self._seen: LRU[tuple[GroupVersionKind, Request, str], None] = LRU(_MAX_INVALID)

    def log(self, gvk: GroupVersionKind, items: Iterable[InvalidItem]) -> None:
        """Log the objects that were not yet logged at their version."""
        for item in items:
            key = (gvk, item.key, item.resource_version)
            if key not in self._seen:
                _logger.warning("the list leaves out the invalid object %s %s: %s", gvk, item.key, item.error)
            self._seen[key] = None


class WarningLog:
    """A log of the server's warnings: each message once.

    Args:
        most: texts that are remembered. A forgotten one would be logged again.
    """

    def __init__(self, most: int = 256) -> None:
        self._seen: LRU[str, None] = LRU(most)

    def log(self, request: HTTPRequest, warnings: Sequence[str]) -> None:
        """Log the new ones among the ``Warning`` headers of a response."""
        for warning in warnings:
            text = warning_text(warning)
            if text not in self._seen:
                _logger.warning("API server warning for %s: %s", request.label, text)
            self._seen[text] = None

    def __len__(self) -> int:
        return len(self._seen)


def warning_text(header: str) -> str:
    """Return the text in a Warning header (RFC 7234: code, agent, quoted text), or the whole header if malformed."""
    found = _QUOTED.search(header)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else header
