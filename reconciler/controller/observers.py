"""Observers of a controller's reconciles, and the protocol of a back end for its metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Protocol

from reconciler.cache import CachedClient, CacheEvent
from reconciler.meta import GroupVersionKind, Request

if TYPE_CHECKING:
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
    """The observers of one controller; each method calls those that override it, in their order."""

    def __init__(self, observers: Sequence[ReconcileObserver]) -> None:
        def overridden(name: str) -> Callable[..., None]:
            default = getattr(ReconcileObserver, name)
            return _each([getattr(each, name) for each in observers if getattr(type(each), name) is not default])

        self.event: Callable[[Request, GroupVersionKind, CacheEvent], None] = overridden("event")
        self.echo: Callable[[Request], None] = overridden("echo")
        self.forgotten: Callable[[Request], None] = overridden("forgotten")
        self.begun: Callable[[Reconcile], None] = overridden("begun")
        self.ended: Callable[[Reconcile], None] = overridden("ended")
        self.overtaken: Callable[[Reconcile], None] = overridden("overtaken")
        self.again: Callable[[Reconcile, int], None] = overridden("again")


def _each(methods: Sequence[Callable[..., None]]) -> Callable[..., None]:
    """Return a function that calls several; the function itself if it is the only one, since many calls are hot."""
    if len(methods) == 1:
        return methods[0]

    def call(*arguments: Any) -> None:
        for method in methods:
            method(*arguments)

    return call


ReconcileResult = Literal["success", "error", "requeue", "requeue_after"]
"""How a reconcile ended, in controller-runtime's words; ``requeue`` is ``Result(again=True)``, also with backoff."""


class ControllerMetrics(Protocol):
    """The metrics of one controller. The methods are called on the event loop, and must not block.

    An exception of a method that is called while the controller runs is logged once and ignored.
    """

    def set_max_concurrent_reconciles(self, workers: int, /) -> None:
        """Called once, at the start, with the number of workers."""
        ...

    def watch_active_workers(self, active: Callable[[], int], /) -> None:
        """Called once, at the start, with the function that returns how many workers are reconciling. Thread-safe."""
        ...

    def reconciled(
        self,
        result: ReconcileResult,
        seconds: float,
        reasons: Iterable[str],
        /,
        *,
        terminal: bool,
        timed_out: bool,
        panicked: bool,
    ) -> None:
        """Called when a reconcile has ended.

        Args:
            result: how it ended.
            seconds: its duration, including the status flush.
            reasons: the words of why it ran (``"event"``, ``"retry"``), few in number.
            terminal: it ended with a `TerminalError`.
            timed_out: its timeout expired.
            panicked: it ended with a cancellation that did not come from the controller.
        """
        ...

    def echo_dropped(self) -> None:
        """Called when a watch event of an own write was dropped."""
        ...

    def storm(self) -> None:
        """Called when a key was found to reconcile in a tight loop."""
        ...

    def mapper_failed(self) -> None:
        """Called when a call of a mapper failed or took too long."""
        ...

    def unmapped(self, versions: int, /) -> None:
        """Called when versions of a watched object were given up, so that their keys are not enqueued."""
        ...


class NoMetrics:
    """Metrics that ignore everything."""

    def set_max_concurrent_reconciles(self, workers: int, /) -> None:
        """Ignore it."""

    def watch_active_workers(self, active: Callable[[], int], /) -> None:
        """Ignore it."""

    def reconciled(
        self,
        result: ReconcileResult,
        seconds: float,
        reasons: Iterable[str],
        /,
        *,
        terminal: bool,
        timed_out: bool,
        panicked: bool,
    ) -> None:
        """Ignore it."""

    def echo_dropped(self) -> None:
        """Ignore it."""

    def storm(self) -> None:
        """Ignore it."""

    def mapper_failed(self) -> None:
        """Ignore it."""

    def unmapped(self, versions: int, /) -> None:
        """Ignore it."""
