"""The console's page of receivers: breaker, limits, queue, counts and last error of each, and the latest attempts.

It imports htpy (the extra ``console``), so import it where there is a console.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import htpy as h
from htpy import Node

from reconciler._core.lru import LRU
from reconciler._core.wire import JSONObject
from reconciler.manager.console import Page
from reconciler.manager.console.html import address, pill, section, table
from reconciler.meta.documents import format_micro_time
from reconciler.notification.api import DeliveryAttempt
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.channels.limits import LimitedChannel
from reconciler.notification.schedule import StatusChange

ENTRIES = 200
"""Attempts that are kept, over all channels."""

CHANNELS = 1_000
"""Channels whose counts are kept; the least recently used is dropped."""


@dataclass(frozen=True, slots=True)
class AttemptEntry:
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
        self.entries: deque[AttemptEntry] = deque(maxlen=ENTRIES)
        self.channels: LRU[str, ChannelHistory] = LRU(CHANNELS)

    def status_saved(self, change: StatusChange, /) -> None:
        """Keep the attempts of a saved status change."""
        request = f"{change.request.namespace}/{change.request.name}"
        after = change.after
        following = after.next_step or "" if after.completion_time is None else after.phase or ""
        for attempt in change.attempts:
            self.entries.append(AttemptEntry(request, attempt, following))
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


SHOWN = 50
"""Attempts on the page; the newest first."""

_BREAKER = {"closed": "good", "half-open": "warn", "open": "bad"}
_RESULT = {"success": "good", "failure": "bad", "unknown": "warn"}


def receivers_page(channels: ChannelRegistry, history: History, waiting: Callable[[], Mapping[str, int]]) -> Page:
    """Return the page.

    ``?request=NAMESPACE/NAME`` shows the timeline of one request, ``?channel=NAME`` the attempts of one channel.
    """

    def body(_: JSONObject, query: Mapping[str, str]) -> Node:
        queued, counts = waiting(), dict(history.channels)
        names = sorted({*channels, *counts})
        rows = [_receiver(name, channels, counts.get(name, ChannelHistory()), queued) for name in names]
        columns = ("Channel", "Breaker", "Limits", "Waiting ", "Delivered ", "Failed ", "Deferred ", "Last error")
        chosen = [
            entry
            for entry in reversed(tuple(history.entries))
            if query.get("request") in (None, entry.request) and query.get("channel") in (None, entry.attempt.channel)
        ]
        title = "Attempts" + "".join(f" of {query[name]}" for name in ("request", "channel") if name in query)
        everything = h.a(href="/receivers")["all"] if {"request", "channel"} & query.keys() else None
        return [
            section("Receivers", table(columns, rows, label="Receivers")),
            section(title, _attempts(chosen[:SHOWN]), aside=everything),
        ]

    return Page("/receivers", "Receivers", body)


def _receiver(name: str, channels: ChannelRegistry, counts: ChannelHistory, queued: Mapping[str, int]) -> Node:
    channel = channels.get(name)
    state, limits = (channel.breaker.state, channel.limits) if isinstance(channel, LimitedChannel) else ("", "")
    missing = pill("gone", "warn") if channel is None else None
    when = "" if counts.last_error_time is None else f"{format_micro_time(counts.last_error_time)[:19]}Z "
    return h.tr[
        h.th(scope="row")[h.a(href=address("/receivers", channel=name))[name], missing],
        h.td[pill(state, _BREAKER[state]) if state else "none"],
        h.td[limits or "none"],
        h.td(".number")[queued.get(name, 0) or ""],
        h.td(".number")[counts.delivered or ""],
        h.td(".number")[counts.failed or ""],
        h.td(".number")[counts.deferred or ""],
        h.td[h.span(".quiet")[when], counts.last_error],
    ]


def _attempts(entries: list[AttemptEntry]) -> Node:
    if not entries:
        return h.p(".calm.quiet")["No attempt since the start of the process."]
    columns = ("Time", "Request", "Channel", "Attempt ", "Result", "Then", "Error")
    return table(columns, map(_attempt, entries), label="Attempts")


def _attempt(entry: AttemptEntry) -> Node:
    attempt = entry.attempt
    return h.tr[
        h.td[f"{format_micro_time(attempt.timestamp)[:19]}Z"],
        h.th(scope="row")[h.a(href=address("/receivers", request=entry.request))[entry.request]],
        h.td[attempt.channel],
        h.td(".number")[attempt.attempt],
        h.td[pill(attempt.result, _RESULT[attempt.result])],
        h.td[entry.next],
        h.td[attempt.error],
    ]
