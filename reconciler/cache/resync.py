"""Repeat all objects from time to time, out of the store alone."""

from __future__ import annotations

import asyncio
import random

from reconciler.cache.handlers import Handlers
from reconciler.cache.store.object import CacheEvent, EventType
from reconciler.cache.store.store import Store

__all__ = ["Resync"]

JITTER = 0.1
"""Share by which a period differs each time, so that informers do not resync together; controller-runtime's."""

_EVENTS_BETWEEN_YIELDS = 500


class Resync:
    """Tell the handlers of one informer of every object that it holds; asks the server for nothing.

    Args:
        store: holds the objects.
        handlers: hear of them.
        rng: source of the jitter.
    """

    def __init__(self, store: Store, handlers: Handlers, *, rng: random.Random) -> None:
        self._store = store
        self._handlers = handlers
        self._rng = rng
        self._period: float | None = None
        self._changed = asyncio.Event()

    def every(self, period: float | None) -> None:
        """Resync each so many seconds; of several periods asked for the shortest counts, and None changes nothing.

        Raises:
            ValueError: the period is not positive.
        """
        if period is None:
            return
        if not period > 0:
            raise ValueError(f"a resync period must be more than 0 s, not {period!r}; None for no resync")
        if self._period is None or period < self._period:
            self._period = period
            self._changed.set()

    async def run(self) -> None:
        """Resync until cancelled."""
        while True:
            period = self._period
            if period is not None:
                period *= self._rng.uniform(1 - JITTER, 1 + JITTER)
            try:
                async with asyncio.timeout(period):
                    await self._changed.wait()
                self._changed.clear()
            except TimeoutError:
                await self._repeat_all()

    async def _repeat_all(self) -> None:
        for number, cached in enumerate(self._store, 1):
            if self._store.get(cached.request) is cached:
                self._handlers.tell(CacheEvent(EventType.RESYNC, old=cached, new=cached))
            if number % _EVENTS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
