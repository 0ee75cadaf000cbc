"""The recent history of the controllers' figures, for charts."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.cache.informer import Informer
from reconciler.clock import Clock
from reconciler.controller import Controller

__all__ = ["PERIOD", "SECONDS", "Samples"]

PERIOD = 2.0
"""Seconds between two samples."""

SECONDS = 300
"""Seconds that the charts show."""

_KEPT = int(SECONDS / PERIOD)


class _Sample(NamedTuple):
    at: float
    ready: int
    active: int
    reconciles: int
    errors: int


class Samples:
    """Samples of all controllers, and of when the informers last received something, while `run` runs."""

    def __init__(
        self, controllers: Callable[[], Sequence[Controller]], informers: Callable[[], Sequence[Informer]], clock: Clock
    ) -> None:
        self._controllers = controllers
        self._informers = informers
        self._clock = clock
        self._samples: dict[str, deque[_Sample]] = {}
        self._received: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.take()
            await asyncio.sleep(PERIOD)

    def take(self) -> None:
        """Take one sample."""
        now = self._clock.monotonic()
        for each in self._controllers():
            figures = each.statistics()
            sample = _Sample(now, figures.queue.ready, figures.active, figures.reconciles, figures.results["error"])
            self._samples.setdefault(each.name, deque(maxlen=_KEPT + 1)).append(sample)
        for informer in self._informers():
            scope, counts = str(informer.scope), informer.statistics().reflectors
            number = counts.events + counts.lists
            if self._received.get(scope, (0, 0.0))[0] != number:
                self._received[scope] = (number, now)

    def charts(self, controller: str) -> JSONObject:
        """Return the series of a controller, oldest value first, one value per sample.

        ``ready`` and ``active`` are numbers at the time of the sample; ``reconciles`` and ``errors`` are per minute.
        """
        samples = list(self._samples.get(controller, ()))
        pairs = list(itertools.pairwise(samples))
        return {
            "ready": [each.ready for each in samples],
            "active": [each.active for each in samples],
            "reconciles": [_per_minute(new.reconciles - old.reconciles, new.at - old.at) for old, new in pairs],
            "errors": [_per_minute(new.errors - old.errors, new.at - old.at) for old, new in pairs],
        }

    def silence(self, scope: str) -> float | None:
        """Return the seconds since an informer received something, 2 s too many at most; None if it never did."""
        if scope not in self._received:
            return None
        return self._clock.monotonic() - self._received[scope][1]


def _per_minute(count: int, seconds: float) -> float:
    return round(60 * count / max(seconds, PERIOD / 2), 1)
