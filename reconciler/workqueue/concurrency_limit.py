"""A limit on concurrency that follows the latency of a server.

The law is that of Netflix' concurrency-limits (Gradient2): the limit is multiplied by the ratio of the latency without
a queue to the current one, and a small queue is added. Where nothing becomes slower the limit is at its maximum; where
requests queue, it settles at what the server processes at once, and a little more. The latency without a queue is
measured with one key at a time at intervals, as TCP BBR does: an average under load would become the load.

Latencies differ by chance, so only what exceeds the standard error of both measurements counts as slower. Without that,
a few fast responses in a measurement would limit a server that is not busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from reconciler.clock import Clock, current_clock

TOLERANCE = 1.2
"""The ratio of latencies that does not count as slower yet, beyond what can be chance."""

QUEUE = 1.0
"""Keys beyond what the server processes at once, so that it does not wait for this process."""

WINDOW = 40
"""Requests between two changes of the limit."""

WINDOW_LASTS = 2.0
"""Seconds after which fewer requests are enough."""

LONGEST_WINDOW = 5.0
"""Seconds after which `ConcurrencyLimit.update` changes the limit without as many requests. A key that waits for
something else than the server, or hangs, sends none."""

PROBE = 20
"""Requests that measure the latency without a queue."""

PROBE_EVERY = 15.0
"""Seconds between two measurements, while requests seem to queue."""

PROBE_SHARE = 0.03
"""The largest share of the time that measurements take: after a long one, the next is later."""

PROBE_LASTS = 10.0
"""Seconds after which a measurement ends in any case."""

PROBE_PAUSE = 1.0
"""Seconds without a request after which a measurement ends: the key in progress waits for something else."""

_FEWEST = 8
"""Requests without which neither a measurement nor a window has a result."""

_REMEMBERED = 200
"""Earlier requests that count beside those of a new measurement."""

_SMALLEST_STEP = 0.25
"""The limit falls to no less than a quarter with one change."""

_SHORTEST_REJECTION = 1.0
"""Seconds; kube-apiserver's Retry-After. Requests that were sent together are rejected one after the other."""

_LONGEST_REJECTION = 60.0

_KINDS = 64
"""Kinds of requests whose latency is remembered."""


class _Latency(NamedTuple):
    """The mean of the latencies of some requests.

    Attributes:
        mean: in seconds; or a ratio.
        deviation: the standard deviation of one of them.
        size: how many there are.
    """

    mean: float
    deviation: float
    size: int

    @classmethod
    def of(cls, values: Sequence[float]) -> _Latency:
        """Make it of at least one value."""
        count = len(values)
        mean = math.fsum(values) / count
        squares = math.fsum((each - mean) ** 2 for each in values)
        # One says nothing about the deviation, which is then that of an exponential distribution; a few say little.
        return cls(mean, math.sqrt((squares + mean**2 / count) / count), count)

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.deviation / math.sqrt(self.size)

    def followed_by(self, new: _Latency) -> _Latency:
        """Join a new measurement; it replaces this one if both cannot be of the same server."""
        if abs(new.mean - self.mean) > 2 * math.hypot(self.error, new.error):
            return new
        known = min(self.size, _REMEMBERED)
        count = known + new.size
        mean = (known * self.mean + new.size * new.mean) / count
        return _Latency(mean, math.sqrt((known * self.deviation**2 + new.size * new.deviation**2) / count), count)


class ConcurrencyLimit:
    """A limit on how many keys are processed at once, from 1 to a maximum, at which it begins.

    Requests of different kinds take different times, so each is compared with others of its kind. A rejected request
    (429) halves the limit, and while the server's Retry-After lasts it is 1. If on average not more than one request is
    in progress, the keys wait for something else than the server, and the limit rises.

    Args:
        maximum: the largest limit.
        clock: source of monotonic time. Defaults to the current clock.

    Attributes:
        in_use: the number of keys in progress.
        unanswered: the number of requests in progress. Time alone does not raise the limit while there are any.
        on_raise: called when the limit may have risen.
    """

    def __init__(self, maximum: int, *, clock: Clock | None = None) -> None:
        self.in_use = 0
        self.unanswered = 0
        self.on_raise: Callable[[], None] = lambda: None
        self._maximum = maximum
        self._now = (clock or current_clock()).monotonic
        self._limit = float(maximum)
        self._unloaded: dict[Hashable, _Latency] = {}  # of each kind of request without a queue
        self._rejected_until = -math.inf
        self._probe: dict[Hashable, list[float]] | None = None  # the measurement in progress
        self._probe_began = -math.inf  # of the last measurement
        self._heard = -math.inf  # when the last response came in it
        self._next_probe = -math.inf  # when the next one may begin
        self._is_alone = False  # whether the last response came while one key was in progress
        self._begin_window()

    @property
    def limit(self) -> int:
        """Return how many keys may be processed at once."""
        now = self._now()
        return 1 if self._probe is not None or now < self._rejected_until else int(self._limit)

    @property
    def rises_at(self) -> float:
        """Return the monotonic second at which `update` may raise the limit; infinite at the maximum."""
        if self._probe is not None:
            return self._probe_ends()
        if self._now() < self._rejected_until:
            return self._rejected_until
        return math.inf if self._limit >= self._maximum else self._began + LONGEST_WINDOW

    def update(self) -> None:
        """End what has lasted long enough: a pause, a measurement, or a window."""
        if self._probe is not None:
            if self._now() >= self._probe_ends():
                self._end_measurement(self._probe)
        elif self._now() >= max(self._rejected_until, self._began + LONGEST_WINDOW):
            if self.unanswered:
                self._begin_window()
            else:
                self._adapt()
        self.on_raise()

    @property
    def full(self) -> bool:
        """Return whether no other key may be processed now."""
        return self.in_use >= self.limit

    def begin(self) -> None:
        """Count a key whose processing begins."""
        self.in_use += 1

    def end(self) -> None:
        """Count a key whose processing has ended."""
        self.in_use -= 1

    def observe(self, kind: Hashable, seconds: float) -> None:
        """Record the latency of a request that was sent for a key in progress.

        Args:
            kind: requests of one kind take about the same time.
            seconds: from sending it to its response.
        """
        if self._probe is not None:
            self._measure(self._probe, kind, seconds)
            return
        self._window.append((kind, seconds))
        if len(self._window) >= (WINDOW if self._now() < self._began + WINDOW_LASTS else _FEWEST):
            self._adapt()

    def reject(self, retry_after: float | None = None) -> None:
        """Record that the server rejected a request because it is overloaded.

        Args:
            retry_after: the seconds that it asked to wait, of which 1 to 60 count; None if it did not say.
        """
        now = self._now()
        pause = min(max(retry_after or 0.0, _SHORTEST_REJECTION), _LONGEST_REJECTION)
        if now >= self._rejected_until:  # a further one is the response to a request that was sent at the same time
            self._limit = max(1.0, self._limit / 2)
        self._rejected_until = max(self._rejected_until, now + pause)
        self._begin_window()

    def _begin_window(self) -> None:
        self._began = self._now()
        self._window: list[tuple[Hashable, float]] = []  # kind and latency of each request

    def _adapt(self) -> None:
        """Change the limit after a window, or begin a measurement first if requests seem to queue."""
        now = self._now()
        in_progress = math.fsum(seconds for _, seconds in self._window) / max(now - self._began, 1e-9)  # Little's law
        seem_to_queue = in_progress > 1 and self._ratio() > TOLERANCE
        if seem_to_queue and now >= self._next_probe:
            self._probe, self._is_alone = {}, False
            self._probe_began = self._heard = now
        else:
            self._change(self._ratio() if seem_to_queue else 1.0)

    def _change(self, ratio: float) -> None:
        """Apply the law, and begin the next window.

        Args:
            ratio: of latencies to those without a queue; infinite if it is unknown.
        """
        gradient = max(_SMALLEST_STEP, TOLERANCE / ratio) if TOLERANCE < ratio < math.inf else 1.0
        self._limit = min(float(self._maximum), max(1.0, self._limit * gradient + QUEUE))
        self._begin_window()
        self.on_raise()

    def _ratio(self) -> float:
        """The mean ratio of the window's latencies to those without a queue, less what can be chance."""
        measured = [
            (seconds, self._unloaded[kind])
            for kind, seconds in self._window
            if kind in self._unloaded and self._unloaded[kind].mean
        ]
        if not measured:
            return math.inf
        found = _Latency.of([seconds / unloaded.mean for seconds, unloaded in measured])
        error = math.fsum(unloaded.error / unloaded.mean for _, unloaded in measured) / found.size
        return found.mean - math.hypot(found.error, found.mean * error)

    def _probe_ends(self) -> float:
        """Return the monotonic second at which the measurement in progress may end, if no other response comes.

        A request that is unanswered may be answered at any time, so its pause has not begun.
        """
        silent_since = self._now() if self.unanswered else self._heard
        return min(self._probe_began + PROBE_LASTS, silent_since + PROBE_PAUSE)

    def _measure(self, probe: dict[Hashable, list[float]], kind: Hashable, seconds: float) -> None:
        if self._is_alone:
            probe.setdefault(kind, []).append(seconds)
        self._is_alone = self.in_use <= 1  # the next request is sent after the response to all others
        self._heard = self._now()
        if sum(map(len, probe.values())) >= PROBE or self._heard >= self._probe_began + PROBE_LASTS:
            self._end_measurement(probe)

    def _end_measurement(self, probe: dict[Hashable, list[float]]) -> None:
        now = self._now()
        self._next_probe = max(self._probe_began + PROBE_EVERY, now + (now - self._probe_began) / PROBE_SHARE)
        if sum(map(len, probe.values())) >= _FEWEST:
            for each, found in probe.items():
                known, new = self._unloaded.get(each), _Latency.of(found)
                if known is not None or len(self._unloaded) < _KINDS:
                    self._unloaded[each] = new if known is None else known.followed_by(new)
        self._probe = None
        self._change(self._ratio())  # of the window before, which seemed to queue
