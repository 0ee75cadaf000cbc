"""Wake a controller by what is no object in the cluster: a queue, a stream, a loop of one's own.

A source runs beside the workers, from the moment the primary kind is known until the controller stops. It only names
keys; what is true is read by the reconcile.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from reconciler.controller.errors import ControllerError
from reconciler.controller.options import check_seconds
from reconciler.controller.wake import reasons
from reconciler.controller.wake.calls import bounded, is_cancelled
from reconciler.controller.wake.watches import check_requests
from reconciler.errors import ConfigurationError
from reconciler.meta import Request, ResourceType, request_of
from reconciler.objects import to_document
from reconciler.workqueue import WorkQueue

__all__ = ["ChannelSource", "CustomSources", "Enqueue", "Source", "SourceLike", "sources_of"]

_log = logging.getLogger("reconciler.controller")


class Enqueue(Protocol):
    """Have a key run: what a source is given."""

    def __call__(self, request: Request, /, *, after: float | None = None, priority: int = 0) -> None:
        """Queue a key, on the event loop.

        Args:
            request: the key.
            after: seconds; None is now.
            priority: higher ones run first. Default 0.

        Raises:
            TypeError: it is no Request.
            ValueError: it has a namespace and the controller's kind none, or the other way round.
        """
        ...


class Source(Protocol):
    """Name keys for as long as the controller runs."""

    async def run(self, enqueue: Enqueue, /) -> None:
        """Run until there is nothing more to name, or until cancelled, which happens when the controller stops.

        Raises:
            Exception: it cannot go on. The controller does not go on without it: `Controller.finished` raises it.
        """
        ...


SourceLike = Source | Callable[[Enqueue], Awaitable[None]]
"""A source, or its ``run`` as an ``async`` function; the function's name is what the reason shows."""


class ChannelSource:
    """Wake keys by what comes out of a stream or a queue.

    ::

        builds: asyncio.Queue[Build] = asyncio.Queue()
        manager.add_controller(..., sources=[ChannelSource(builds, mapper=lambda build: [Request(build.app, "prod")])])

    One item after the other is mapped. A mapper that fails or takes too long is logged, and its item is dropped. A
    stream has one reader: for two controllers make two. It ends with the stream; an `asyncio.Queue` never does.

    Args:
        items: what comes; items sent before the controller starts are in there and count.
        mapper: from an item to the keys to wake, plain and quick or ``async``. Default: the item is a `Request` or an
            object of the controller's kind, whose key runs.
        name: what the reason shows. Default ``"channel"``.
        mapper_timeout: seconds for a call of an ``async`` mapper, after which it is cancelled and counts as failed.
            Default 30.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    def __init__(
        self,
        items: AsyncIterable[Any] | asyncio.Queue[Any],
        *,
        mapper: Callable[[Any], Iterable[Request] | Awaitable[Iterable[Request]]] | None = None,
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
        items = _drained(self._items) if isinstance(self._items, asyncio.Queue) else self._items
        async for item in items:
            try:
                mapped = self._mapper(item)
                if inspect.isawaitable(mapped):
                    mapped = await bounded(mapped, self._timeout)
                for request in mapped:
                    enqueue(request)
            except (Exception, asyncio.CancelledError):
                if is_cancelled():
                    raise
                _log.exception("source %r failed on %s; the keys it would have named are not woken", self.name, item)


class CustomSources:
    """Run the sources of one controller.

    Args:
        name: the controller's name.
        sources: what to run.
        queue: the controller's queue.

    Attributes:
        tasks: one a source, from `start` on.
    """

    def __init__(self, name: str, sources: Sequence[SourceLike], queue: WorkQueue[Request]) -> None:
        self._name = name
        self._sources = sources
        self._queue = queue
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, primary: ResourceType) -> None:
        """Start them, for keys of a kind that is served like this."""
        for source in self._sources:
            name = _name_of(source)
            task = asyncio.create_task(self._run(source, name, primary), name=f"{self._name} source {name}")
            self.tasks.append(task)

    async def stop(self) -> None:
        """Cancel them and wait for their ends. Cancellation leaves them to end by themselves."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def _run(self, source: SourceLike, name: str, primary: ResourceType) -> None:
        reason = reasons.detailed(reasons.SOURCE, name)

        def enqueue(request: Request, /, *, after: float | None = None, priority: int = 0) -> None:
            check_requests([request], primary, who="a source")
            self._queue.add(request, after=after, priority=priority, reason=reason)

        try:
            await (source(enqueue) if callable(source) else source.run(enqueue))
        except asyncio.CancelledError as cancellation:
            if is_cancelled():
                raise
            error = ControllerError(f"source {name!r} was cancelled, and not by the controller: it awaited what was")
            _log.exception("source %r of %s failed; the controller ends", name, self._name)
            raise error from cancellation
        except Exception:
            _log.exception("source %r of %s failed; the controller ends", name, self._name)
            raise
        _log.info("source %r of %s has ended; it wakes no key any more", name, self._name)


def sources_of(name: str, sources: object) -> tuple[SourceLike, ...]:
    """Return the sources of a controller.

    Raises:
        ConfigurationError: it is no sequence of sources.
    """
    if isinstance(sources, (str, ChannelSource)) or not isinstance(sources, Iterable):
        raise ConfigurationError(f"controller {name!r}: sources is a sequence of sources, not {sources!r}")
    found = tuple(sources)
    for source in found:
        if not callable(source) and not inspect.iscoroutinefunction(getattr(source, "run", None)):
            raise ConfigurationError(
                f"controller {name!r}: sources holds {source!r}: give ChannelSource(…), an async function of enqueue, "
                "or an object with 'async def run(self, enqueue)'"
            )
    return found


def _name_of(source: SourceLike) -> str:
    return str(getattr(source, "name", None) or getattr(source, "__name__", None) or type(source).__name__)


def _key_of(item: object) -> list[Request]:
    return [item if isinstance(item, Request) else request_of(to_document(item))]


async def _drained(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while True:
        yield await queue.get()
