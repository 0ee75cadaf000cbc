"""Tell the handlers of an informer what happened, one after the other, and survive what they do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler.cache.store.object import CacheEvent

if TYPE_CHECKING:
    from reconciler.cache.informer import Informer

__all__ = ["Handler", "HandlerRegistration", "Handlers"]

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
