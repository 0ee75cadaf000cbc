"""Observers of a controller's reconciles, and the protocol of a back end for its metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from reconciler.cache import CachedClient, CacheEvent
from reconciler.meta import GroupVersionKind, Request

if TYPE_CHECKING:
    from reconciler.controller.controller import ControllerStatistics
    from reconciler.controller.reconcile.cycle import Reconcile


class ReconcileObserver:
    """An observer of a controller's reconciles; a subclass overrides the methods that it needs.

    The methods are called on the event loop, and must neither block nor raise. What the controller does next does not
    depend on them.
    """

    def client(self, client: CachedClient, /) -> CachedClient:
        """Return the client that the reconciler gets; a wrapper lets this observer see its reads and requests."""
        return client

    def event(self, key: Request, gvk: GroupVersionKind, event: CacheEvent, /) -> None:
        """Called when a watch event of an object of this kind has enqueued a key."""

    def echo(self, key: Request, /) -> None:
        """Called when a watch event of a key's own write was dropped."""

    def forgotten(self, key: Request, /) -> None:
        """Called when the object of a key is gone, or belongs to another process."""

    def begun(self, reconcile: Reconcile, /) -> None:
        """Called when a reconcile begins, in its context."""

    def ended(self, reconcile: Reconcile, /) -> None:
        """Called when a reconcile has ended, before its key is enqueued again."""

    def overtaken(self, reconcile: Reconcile, /) -> None:
        """Called after `ended` if the object changed during the reconcile, so that another one follows."""

    def again(self, reconcile: Reconcile, steps: int, /) -> None:
        """Called after `ended` if a number of successive reconciles, and this one, returned ``Result(again=True)``."""


_additional: ContextVar[tuple[ReconcileObserver, ...]] = ContextVar("additional_observers", default=())


def additional_observers() -> tuple[ReconcileObserver, ...]:
    """Return the observers of `observe_reconciles` in this context."""
    return _additional.get()


@contextlib.contextmanager
def observe_reconciles(observer: ReconcileObserver) -> Iterator[None]:
    """Let controllers that are created in this context notify an observer, too, until the block ends."""
    token = _additional.set((*_additional.get(), observer))
    try:
        yield
    finally:
        _additional.reset(token)


class Observers:
    """The observers of one controller: for each method those that override it, in their order."""

    def __init__(self, observers: Sequence[ReconcileObserver]) -> None:
        def overridden(name: str) -> list[Callable[..., None]]:
            default = getattr(ReconcileObserver, name)
            return [getattr(each, name) for each in observers if getattr(type(each), name) is not default]

        self.event: Sequence[Callable[[Request, GroupVersionKind, CacheEvent], None]] = overridden("event")
        self.echo: Sequence[Callable[[Request], None]] = overridden("echo")
        self.forgotten: Sequence[Callable[[Request], None]] = overridden("forgotten")
        self.begun: Sequence[Callable[[Reconcile], None]] = overridden("begun")
        self.ended: Sequence[Callable[[Reconcile], None]] = overridden("ended")
        self.overtaken: Sequence[Callable[[Reconcile], None]] = overridden("overtaken")
        self.again: Sequence[Callable[[Reconcile, int], None]] = overridden("again")


class ControllerMetrics(Protocol):
    """The metrics of one controller: how long its reconciles take.

    Everything else is a counter or a state that the controller has anyway, so it is read from its statistics when
    somebody asks.
    """

    def watch(self, statistics: Callable[[], ControllerStatistics], /) -> None:
        """Called when the controller is created, with a thread-safe function that returns its statistics.

        Called again at its end, with one that returns the last statistics, and does not refer to the controller.
        """

    def observe_reconcile_duration(self, seconds: float, /) -> None:
        """Called when a reconcile has ended, with its duration, including the status flush.

        It is called on the event loop, and must not block. What it raises is logged once and ignored.
        """
