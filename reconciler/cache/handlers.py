"""Event handlers of an informer, and the periodic resync that notifies them of every object again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable

from reconciler._core.cancellation import FAILURES
from reconciler.cache.object import CachedObject, CacheEvent, EventType
from reconciler.cache.store import Store
from reconciler.errors import RepeatedFailures

__all__ = ["Handler", "HandlerRegistration", "Handlers", "Resync", "unchanged"]


Handler = Callable[[CacheEvent], None]
"""Called on the event loop for each change. It must be quick: compute keys and add them to a queue."""

_logger = logging.getLogger("reconciler.cache")


class HandlerRegistration:
    """One handler registered with an informer; returned by `Informer.add_handler`.

    Attributes:
        errors: how often the handler failed.
    """

    def __init__(self, handler: Handler, handlers: Handlers, synced: asyncio.Event) -> None:
        self.errors = 0
        self._failures = RepeatedFailures(_logger, logging.ERROR, "handler failed on %s of %r")
        self._handler = handler
        self._handlers = handlers
        self._synced = synced

    @property
    def synced(self) -> bool:
        """Return whether the initial list was delivered to this handler."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait until `synced`. Cancellation changes nothing."""
        await self._synced.wait()

    def remove(self) -> None:
        """Stop notifying the handler; does nothing if it was already removed."""
        self._handlers.remove(self)

    def deliver(self, event: CacheEvent) -> None:
        """Call the handler; its exceptions are logged and counted."""
        try:
            self._handler(event)
        except FAILURES as error:
            self.errors += 1
            self._handlers.errors += 1
            self._failures.log(error, event.type.value, event.object)


class Handlers:
    """The handlers of one informer, notified in the order of registration.

    Attributes:
        errors: how often a handler failed, including removed handlers.
        events: number of delivered events.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.events = 0
        self._registrations: tuple[HandlerRegistration, ...] = ()  # replaced, never mutated: `notify` may be iterating

    def add(self, registration: HandlerRegistration) -> None:
        """Add a handler for all future events."""
        self._registrations = (*self._registrations, registration)

    def remove(self, registration: HandlerRegistration) -> None:
        """Remove a handler."""
        self._registrations = tuple(held for held in self._registrations if held is not registration)

    def notify(self, event: CacheEvent) -> None:
        """Deliver an event to every handler."""
        self.events += 1
        for registration in self._registrations:
            registration.deliver(event)

    def __len__(self) -> int:
        """Return the number of handlers."""
        return len(self._registrations)


JITTER = 0.1
"""Relative jitter of each resync period, so that informers do not resync together; controller-runtime's value."""

_EVENTS_BETWEEN_YIELDS = 100


class Resync:
    """Periodic RESYNC events for all stored objects; they cost no request.

    Args:
        store: contains the objects.
        handlers: the handlers to notify.
        rng: source of the jitter.
    """

    def __init__(self, store: Store, handlers: Handlers, *, rng: random.Random) -> None:
        self._store = store
        self._handlers = handlers
        self._rng = rng
        self._period: float | None = None
        self._changed = asyncio.Event()

    def every(self, period: float | None) -> None:
        """Set the period in seconds; the shortest of several requested periods applies, and None changes nothing.

        Raises:
            ValueError: the period is not positive.
        """
        if period is None:
            return
        if not period > 0:
            raise ValueError(f"resync must be more than 0 seconds, not {period!r}; None disables it")
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
        async for cached in unchanged(self._store):
            self._handlers.notify(CacheEvent(EventType.RESYNC, old=cached, new=cached))


async def unchanged(store: Store) -> AsyncIterator[CachedObject]:
    """Yield the objects of a store that are still the same when it is their turn, with pauses for the event loop."""
    for number, cached in enumerate(store, 1):
        if store.get(cached.request) is cached:
            yield cached
        if number % _EVENTS_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)
