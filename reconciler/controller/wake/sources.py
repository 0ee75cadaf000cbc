"""Sources: triggers that are not objects in the cluster, such as a queue, a stream, or a loop of your own.

A source runs beside the workers, from the moment the primary kind is known until the controller stops. It only names
keys; the reconcile reads the state.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from reconciler._core.cancellation import FAILURES, is_cancelled
from reconciler.controller.errors import ControllerError
from reconciler.controller.wake import reasons
from reconciler.controller.wake.user_code import check_seconds, wait_at_most
from reconciler.controller.wake.watches import Requests, check_requests
from reconciler.errors import ConfigurationError, describe_error
from reconciler.meta import Request, request_of
from reconciler.meta.reference import ResourceType
from reconciler.objects.kinds import to_document
from reconciler.workqueue import WorkQueue

__all__ = ["ChannelSource", "Enqueue", "Source", "SourceLike", "SourceRunner"]

T = TypeVar("T")

_log = logging.getLogger("reconciler.controller")


class Enqueue(Protocol):
    """The function that a source is given to enqueue keys."""

    def __call__(self, request: Request, /, *, after: float | None = None, priority: int = 0) -> None:
        """Enqueue a key; call it on the event loop.

        Args:
            request: the key.
            after: seconds; None is now.
            priority: keys with a higher one come first. Default 0.

        Raises:
            TypeError: it is not a Request.
            ValueError: it has a namespace although the controller's kind is cluster-scoped, or the other way round.
        """
        ...


class Source(Protocol):
    """An object that enqueues keys for as long as the controller runs."""

    async def run(self, enqueue: Enqueue, /) -> None:
        """Run until there are no more keys, or until cancelled, which happens when the controller stops.

        Raises:
            Exception: it cannot continue. The controller does not continue without it: `Controller.finished` raises it.
        """
        ...


SourceLike = Source | Callable[[Enqueue], Awaitable[None]]
"""A source, or its ``run`` as an ``async`` function, whose name is part of the reason."""


class ChannelSource:
    """A source that reads a stream or a queue and enqueues the keys of each item.

    ::

        builds: asyncio.Queue[Build] = asyncio.Queue()
        manager.add_controller(..., sources=[ChannelSource(builds, mapper=lambda build: [Request(build.app, "prod")])])

    Items are mapped one after the other. If the mapper fails or takes too long, the error is logged and the item is
    dropped. A stream has one reader, so two controllers need two streams. The source ends with the stream; an
    `asyncio.Queue` never ends.

    Args:
        items: the stream or queue; items that were sent before the controller starts are included.
        mapper: from an item to the keys to enqueue; a plain, quick function, or an ``async`` one. Default: the item is
            a `Request` or an object of the controller's kind, whose key is enqueued.
        name: part of the reason. Default ``"channel"``.
        mapper_timeout: seconds for a call of an ``async`` mapper, after which it is cancelled and counts as failed.
            Default 30.

    Raises:
        ConfigurationError: an option is out of range.
    """

    def __init__(
        self,
        items: AsyncIterable[T] | asyncio.Queue[T],
        *,
        mapper: Callable[[T], Requests] | None = None,
        name: str = "channel",
        mapper_timeout: float = 30.0,
    ) -> None:
        if not isinstance(items, (AsyncIterable, asyncio.Queue)):
            raise ConfigurationError(f"ChannelSource takes an async iterable or an asyncio.Queue, not {items!r}")
        check_seconds("ChannelSource: mapper_timeout", mapper_timeout)
        self._items = items
        self._mapper = mapper or _key_of
        self._timeout = mapper_timeout
        self.name = name

    async def run(self, enqueue: Enqueue, /) -> None:
        """Map items until the stream ends. Cancellation loses the item that is being mapped, and no other."""
        items = _items_of(self._items) if isinstance(self._items, asyncio.Queue) else self._items
        async for item in items:
            try:
                mapped = self._mapper(item)
                if inspect.isawaitable(mapped):
                    mapped = await wait_at_most(self._timeout, mapped)
                for request in mapped:
                    enqueue(request)
            except FAILURES as error:
                if is_cancelled():
                    raise
                _log.exception(
                    "source %r failed on %s, so the keys of this item are not enqueued: %s",
                    self.name,
                    item,
                    describe_error(error),
                )


class SourceRunner:
    """The running sources of one controller.

    Args:
        name: the controller's name.
        sources: the sources.
        queue: the controller's queue.

    Attributes:
        tasks: one per source, from `start` on.
    """

    def __init__(self, name: str, sources: Sequence[SourceLike], queue: WorkQueue[Request]) -> None:
        self._name = name
        self._sources = sources
        self._queue = queue
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, primary: ResourceType) -> None:
        """Start the sources of a controller for this primary kind."""
        for source in self._sources:
            name = _name_of(source)
            task = asyncio.create_task(self._run(source, name, primary), name=f"{self._name} source {name}")
            self.tasks.append(task)

    async def stop(self) -> None:
        """Cancel the sources and wait until they have ended. If this is cancelled, they end by themselves."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def _run(self, source: SourceLike, name: str, primary: ResourceType) -> None:
        reason = reasons.detailed(reasons.SOURCE, name)

        def enqueue(request: Request, /, *, after: float | None = None, priority: int = 0) -> None:
            check_requests([request], primary, giver="a source")
            self._queue.add(request, after=after, priority=priority, reason=reason)

        try:
            await (source(enqueue) if callable(source) else source.run(enqueue))
        except asyncio.CancelledError as cancellation:
            if is_cancelled():
                raise
            error = ControllerError(
                f"source {name!r} was cancelled, but not by the controller: something that it awaited was cancelled"
            )
            _log.exception("source %r of %s failed, so the controller stops: %s", name, self._name, error)
            raise error from cancellation
        except Exception as error:
            _log.exception(
                "source %r of %s failed, so the controller stops: %s", name, self._name, describe_error(error)
            )
            raise
        _log.info("source %r of %s has ended and enqueues no more keys", name, self._name)


def _name_of(source: SourceLike) -> str:
    return str(getattr(source, "name", None) or getattr(source, "__name__", None) or type(source).__name__)


def _key_of(item: object) -> list[Request]:
    return [item if isinstance(item, Request) else request_of(to_document(item))]


async def _items_of(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while True:
        yield await queue.get()
