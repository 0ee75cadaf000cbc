"""Tell the handlers of an informer what happened, one after the other, and survive what they do.

---

Repeat all objects from time to time, out of the store alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler.cache.object import CacheEvent, EventType
from reconciler.cache.store import Store

if TYPE_CHECKING:
    from reconciler.cache.informer import Informer

__all__ = ["Handler", "HandlerRegistration", "Handlers", "Resync"]


Handler = Callable[[CacheEvent], None]
"""Hear of a change. Called on the event loop, so it must be quick; it computes keys and adds them to a queue."""

_logger = logging.getLogger("reconciler.cache")


class HandlerRegistration:
    """Be one handler's place at an informer; made by `Informer.add_handler`.

    Attributes:
        errors: how often the handler failed.
    """

    def __init__(self, handler: Handler, informer: Informer, handlers: Handlers) -> None:
        self.errors = 0
        self._handler = handler
        self._informer = informer
        self._handlers = handlers

    @property
    def synced(self) -> bool:
        """Say whether everything that was there at the beginning was delivered to this handler."""
        return self._informer.synced

    async def wait_synced(self) -> None:
        """Wait until `synced`. Cancellation changes nothing."""
        await self._informer.wait_synced()

    def remove(self) -> None:
        """Let the handler hear nothing more; harmless when it was removed before."""
        self._handlers.remove(self)

    def deliver(self, event: CacheEvent) -> None:
        """Call the handler and contain what it raises."""
        try:
            self._handler(event)
        except Exception:
            self.errors += 1
            self._handlers.errors += 1
            level = logging.ERROR if self.errors == 1 else logging.DEBUG
            _logger.log(level, "a handler failed on %s of %r", event.type.value, event.object, exc_info=True)


class Handlers:
    """Hold the handlers of one informer.

    Attributes:
        errors: how often one of them failed, removed ones included.
        events: how many events were told.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.events = 0
        self._registrations: tuple[HandlerRegistration, ...] = ()  # replaced, never changed: it may be iterated over

    def add(self, registration: HandlerRegistration) -> None:
        """Let a handler hear of what follows."""
        self._registrations = (*self._registrations, registration)

    def remove(self, registration: HandlerRegistration) -> None:
        """Let a handler hear nothing more."""
        self._registrations = tuple(held for held in self._registrations if held is not registration)

    def tell(self, event: CacheEvent) -> None:
        """Deliver an event to every handler, in the order in which they came."""
        self.events += 1
        for registration in self._registrations:
            registration.deliver(event)

    def __len__(self) -> int:
        """Return the number of handlers."""
        return len(self._registrations)


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
