"""Watches of other kinds, with their mappers, and sources that are not objects in the cache.

A mapper turns a watched object into requests. `controller_owner` and `every_owner` read the owner references and do not
decode the object; any other mapper is a function of the object, plain or ``async``. Both the old and the new object of
an update are mapped, so that keys which the old object named are enqueued too.

A source, such as a queue, a stream, or a loop of your own, runs beside the workers, from the moment the primary kind is
known until the controller stops. It only names keys; the reconcile reads the state.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from reconciler._core.durations import DurationLike, Seconds, seconds_of
from reconciler._core.user_code import FAILURES, is_cancelled
from reconciler.cache import CachedObject
from reconciler.controller.result import ControllerError
from reconciler.controller.wake import reasons
from reconciler.controller.wake.predicates import EventFilter
from reconciler.errors import ConfigurationError, describe_error
from reconciler.meta import Request, request_of
from reconciler.meta.metadata import ResourceType
from reconciler.objects import Unstructured
from reconciler.objects.kinds import KindLike, TypedObject, to_document
from reconciler.workqueue import WorkQueue

T = TypeVar("T")


async def wait_at_most(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await user code in a task of its own, for a limited time, and return its result.

    Cancellation cancels the user code and is raised when that has ended.

    Raises:
        ControllerError: it did not end in time, or was cancelled by someone other than the caller.
        BaseException: what it raised.
    """
    call = asyncio.ensure_future(awaited(awaitable))
    try:
        done, _ = await asyncio.wait({call}, timeout=seconds)
    finally:
        if not call.done():
            call.cancel()
            await asyncio.wait({call})
        error = None if call.cancelled() else call.exception()
    if not done:
        raise ControllerError(f"it did not end within {seconds:g} s") from error
    if call.cancelled():
        raise ControllerError("it was cancelled, but not by the controller: something that it awaited was cancelled")
    return call.result()


def discard(awaitable: Awaitable[Any]) -> None:
    """Drop an awaitable that will not be awaited, without Python's warning about it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


async def awaited(awaitable: Awaitable[T]) -> T:
    """Await something in a coroutine, which a task can be made of."""
    return await awaitable


R = TypeVar("R", bound=TypedObject)

Requests = Iterable[Request] | Awaitable[Iterable[Request]]
"""What a mapper returns, plain or ``async``."""

Mapper = Callable[[Any], Requests]
"""Returns the keys to enqueue for an object of the watched kind: an instance of its class, or an Unstructured."""


class OwnerMapper:
    """A mapper to the owners of an object that are of the controller's kind.

    The API version of the owner is not compared, because owner references keep the one they were written with.

    Args:
        every: all owners of the kind, or only the one that is marked as controller.
    """

    def __init__(self, *, every: bool) -> None:
        self._every = every

    def map(self, obj: CachedObject, primary: ResourceType) -> list[Request]:
        """Return the keys of an object's owners of the primary kind; a cluster-scoped owner has no namespace."""
        namespace = obj.namespace if primary.namespaced else None
        return [
            Request(reference.name, namespace)
            for reference in obj.owner_references
            if reference.kind == primary.gvk.kind
            and reference.group == primary.gvk.group
            and (self._every or reference.controller)
        ]

    def __repr__(self) -> str:
        return "every_owner" if self._every else "controller_owner"


controller_owner = OwnerMapper(every=False)
"""Maps an object to the owner that is marked as controller; the mapper of ``owns=``."""

every_owner = OwnerMapper(every=True)
"""Maps an object to every owner of the controller's kind, marked as controller or not."""


@dataclass(frozen=True)
class Watch:
    """A watch on another kind whose changes enqueue keys of the controller.

    Attributes:
        kind: ``"v1/ConfigMap"``, a GroupVersionKind or a Resource class.
        mapper: from an object to the keys to enqueue. None: the key of the same name and namespace. A plain function is
            called on the event loop and must be quick: it blocks the whole process. An ``async`` one may read through
            the client and is called for ten objects at a time. Either is called again when it fails, with backoff from
            0.1 s to 60 s, for as long as the object exists; a deleted object is given up after ten minutes. An object
            that does not fit its class is read leniently; see `Resource.from_dict`.
        mapper_timeout: seconds for a call of an ``async`` mapper, after which it is cancelled and counts as failed.
            Default 30.
        predicates: each gets the `CacheEvent` and returns whether it matters; all must. Default: every event matters.
        metadata_only: fetch and store no spec, status or data, which saves most of the memory. The mapper gets an
            Unstructured with the metadata, and the watch does not make the kind readable from the cache. Default False.
    """

    kind: KindLike
    _: KW_ONLY
    mapper: Mapper | OwnerMapper | None = None
    mapper_timeout: Seconds = Seconds(30.0)
    predicates: Sequence[EventFilter] = ()
    metadata_only: bool = False

    if TYPE_CHECKING:  # the kind states what the mapper gets

        @overload
        def __init__(
            self,
            kind: type[R],
            *,
            mapper: Callable[[R], Requests] | OwnerMapper | None = None,
            mapper_timeout: DurationLike = 30.0,
            predicates: Sequence[EventFilter] = (),
            metadata_only: Literal[False] = False,
        ) -> None: ...
        @overload
        def __init__(
            self,
            kind: KindLike,
            *,
            mapper: Callable[[Unstructured], Requests] | OwnerMapper | None = None,
            mapper_timeout: DurationLike = 30.0,
            predicates: Sequence[EventFilter] = (),
            metadata_only: bool = False,
        ) -> None: ...
        def __init__(self, kind: KindLike, *, mapper: Any = None, **options: Any) -> None: ...


def check_requests(requests: object, primary: ResourceType, *, giver: str = "a mapper") -> list[Request]:
    """Check the requests that a mapper or a source gave, and return each once.

    Args:
        requests: what it gave.
        primary: the controller's kind.
        giver: who gave them, for error messages.

    Raises:
        TypeError: it is not an iterable of requests.
        ValueError: a request has a namespace although the primary kind is cluster-scoped, or the other way round.
    """
    if isinstance(requests, (str, Request)) or not isinstance(requests, Iterable):
        raise TypeError(
            f"{giver} must return a list, such as [Request(name, namespace)], not {type(requests).__name__}"
        )
    found = list(requests)
    for request in found:
        if not isinstance(request, Request):
            raise TypeError(f"{giver} must return Request(name, namespace), not {type(request).__name__}")
        if bool(request.namespace) != primary.namespaced:
            raise ValueError(
                f"{giver} gave {request!r}, but {primary.gvk.kind} is "
                + ("namespaced" if primary.namespaced else "cluster-scoped")
            )
    return list(dict.fromkeys(found))


_log = logging.getLogger("reconciler.controller")


class Enqueue(Protocol):
    """The function that a source is given to enqueue keys."""

    def __call__(self, request: Request, /, *, after: DurationLike | None = None, priority: int = 0) -> None:
        """Enqueue a key; call it on the event loop.

        Args:
            request: the key.
            after: seconds; None is now.
            priority: keys with a higher one come first. Default 0.

        Raises:
            TypeError: it is not a Request.
            ValueError: it has a namespace although the controller's kind is cluster-scoped, or the other way round.
        """


class KeySource(Protocol):
    """An object that enqueues keys for as long as the controller runs."""

    async def run(self, enqueue: Enqueue, /) -> None:
        """Run until there are no more keys, or until cancelled, which happens when the controller stops.

        Raises:
            Exception: it cannot continue. The controller does not continue without it: `Controller.finished` raises it.
        """


SourceLike = KeySource | Callable[[Enqueue], Awaitable[None]]
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
        mapper_timeout: DurationLike = 30.0,
    ) -> None:
        if not isinstance(items, (AsyncIterable, asyncio.Queue)):
            raise ConfigurationError(f"ChannelSource takes an async iterable or an asyncio.Queue, not {items!r}")
        self._items = items
        self._mapper = mapper or _key_of
        self._timeout = seconds_of("ChannelSource: mapper_timeout", mapper_timeout)
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


def start_sources(
    controller: str, sources: Sequence[SourceLike], queue: WorkQueue[Request], primary: ResourceType
) -> list[asyncio.Task[None]]:
    """Start the sources of a controller; return their tasks.

    Args:
        controller: the controller's name.
        sources: the sources.
        queue: the controller's queue.
        primary: its primary kind.
    """
    names = map(_name_of, sources)
    return [
        asyncio.create_task(_run_source(source, name, controller, queue, primary), name=f"{controller} source {name}")
        for source, name in zip(sources, names, strict=True)
    ]


async def _run_source(
    source: SourceLike, name: str, controller: str, queue: WorkQueue[Request], primary: ResourceType
) -> None:
    reason = reasons.detailed(reasons.SOURCE, name)

    def enqueue(request: Request, /, *, after: DurationLike | None = None, priority: int = 0) -> None:
        check_requests([request], primary, giver="a source")
        queue.add(request, after=after, priority=priority, reason=reason)

    try:
        await (source(enqueue) if callable(source) else source.run(enqueue))
    except FAILURES as raised:
        error = raised
        if isinstance(raised, asyncio.CancelledError):
            if is_cancelled():
                raise
            error = ControllerError(
                f"source {name!r} was cancelled, but not by the controller: something that it awaited was cancelled"
            )
            error.__cause__ = raised
        text = describe_error(error)
        _log.exception("source %r of %s failed, so the controller stops: %s", name, controller, text)
        raise error from error.__cause__
    _log.info("source %r of %s has ended and enqueues no more keys", name, controller)


def _name_of(source: SourceLike) -> str:
    return str(getattr(source, "name", None) or getattr(source, "__name__", None) or type(source).__name__)


def _key_of(item: object) -> list[Request]:
    return [item if isinstance(item, Request) else request_of(to_document(item))]


async def _items_of(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while True:
        yield await queue.get()
