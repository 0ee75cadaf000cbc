"""The cache: a process's informers, shared, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
import operator
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Self

from reconciler._core.durations import DurationLike, optional_seconds, seconds_of
from reconciler._core.user_code import cancel_and_wait
from reconciler.cache.decoding import version_in
from reconciler.cache.informer import Informer, InformerStatistics
from reconciler.cache.overlay import Baseline
from reconciler.cache.scope import Partition, Scope, Transform, format_labels
from reconciler.cache.store import DocumentValues, field_values, refuse_coroutine_function
from reconciler.cache.watch import CacheNotSynced, NotCached, in_time
from reconciler.client import Client
from reconciler.clock import Clock, current_clock
from reconciler.errors import ConfigurationError, ReconcilerError, describe_error
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.metadata import ResourceType
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.telemetry.registry import CachedKind

_logger = logging.getLogger("reconciler.cache")

_MAX_LOOKUPS = 1024
"""Number of kind-and-namespace lookups to remember; others are searched on each read."""


RELIST_TIMEOUT = 60.0
"""Seconds to wait for the lists that follow a restore of etcd; the lists continue after that."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """The numbers of objects and informers in a cache.

    Attributes:
        objects: number of objects in all informers.
        bytes: total length of their documents.
        held: bytes of memory that the documents take; idle ones are compressed.
        informers: the counters of each informer, in order of creation.
    """

    objects: int
    bytes: int
    held: int
    informers: tuple[InformerStatistics, ...]


class Cache:
    """A set of informers, shared between all users that want the same objects.

    Use it with ``async with``, or call `start` and `stop`. It belongs to one event loop.

    Args:
        client: sends lists and watches; a plain `Client`.
        namespaces: the namespaces that informers watch by default; None, the default, for all.
        resync: the default duration between two RESYNC events of each object; None, the default, for never.
        list_in_pages: whether to list kinds in pages of 500 instead of one stream. Default None: if the server is
            Kubernetes 1.34 or newer, which answers pages from memory, so that a large kind is ready sooner for less CPU
            on both sides (docs/performance.md). Older API servers read each page from etcd.
        partition: returns the part of a kind that this process is responsible for, which narrows every informer of the
            kind; None for all of it. Default: all of every kind.
        clock: default: the current clock.
        rng: source of jitter; default: a new one.

    Attributes:
        list_in_pages: as given; for informers that are added later.

    Raises:
        ValueError: `namespaces` is empty.
        ConfigurationError: there are more namespaces than watches that the client may open.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] | None = None,
        resync: DurationLike | None = None,
        list_in_pages: bool | None = None,
        partition: Callable[[GroupVersionKind], Partition | None] = lambda _: None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._partition = partition
        self._namespaces = _sorted_names(namespaces)
        self._resync = optional_seconds("resync", resync)
        self.list_in_pages = list_in_pages
        self._clock = clock or current_clock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._informers: dict[Scope, Informer] = {}
        self._indexes: dict[GroupVersionKind, dict[str, DocumentValues | None]] = {}
        self._lookups: dict[
            tuple[GroupVersionKind, str | None], Informer
        ] = {}  # lookups; cleared when an informer is added or removed
        self._tasks: dict[Informer, asyncio.Task[None]] = {}
        self._relist_task: asyncio.Task[None] | None = None  # lists everything again after a restore of etcd
        self._started = False
        self._stopped = False
        self._finished = asyncio.Event()
        self._failure: BaseException | None = None  # of the first informer that ended
        if self._namespaces is not None:
            self._check_streams(len(self._namespaces))

    @property
    def started(self) -> bool:
        """Return whether informers are running."""
        return self._started and not self._stopped

    @property
    def informers(self) -> tuple[Informer, ...]:
        """Return all informers, in order of creation."""
        return tuple(self._informers.values())

    async def informer(
        self,
        kind: KindLike | ResourceType,
        *,
        namespaces: Sequence[str] | EllipsisType | None = ...,
        label_selector: str | Mapping[str, str] | None = None,
        field_selector: str | Mapping[str, str] | None = None,
        metadata_only: bool = False,
        managed_fields: bool = False,
        transform: Transform | None = None,
        resync: DurationLike | None = None,
    ) -> Informer:
        """Return the informer for some objects; the first call creates it, and starts it if the cache is running.

        Equal arguments return the same informer. A metadata-only request is served by an informer with whole objects if
        there is one. If the server does not serve the kind yet, the running informer retries discovery with backoff.
        Cancellation leaves the cache unchanged.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"``, a GroupVersionKind or a ResourceType.
            namespaces: the namespaces to watch, one watch each; None for all. Default: the cache's. Ignored for
                cluster-scoped kinds.
            label_selector: text in the API's syntax, or a mapping of required values. Default: everything.
            field_selector: the same for fields.
            metadata_only: store no spec, status or data. Default False.
            managed_fields: store ``metadata.managedFields`` too. Default False.
            transform: applied to each object before it is stored; costs one decode and one encode per event.
            resync: the duration (seconds, a timedelta or ``"10m"``) between two RESYNC events of each object.
                Default: the cache's.

        Raises:
            ValueError: a selector or the kind is malformed, or `namespaces` is empty.
            ConfigurationError: there would be more watches than the client may open.
            ReconcilerError: the cache is stopped.
        """
        if self._stopped:
            raise ReconcilerError("the cache is stopped; make a new one")
        period = self._resync if resync is None else seconds_of("resync", resync)
        resource = kind if isinstance(kind, ResourceType) else await self._resource_type(kind)
        gvk = resource.gvk if resource is not None else gvk_from(kind)  # type: ignore[arg-type]
        watched = self._namespaces if isinstance(namespaces, EllipsisType) else _sorted_names(namespaces)
        scope = Scope(
            gvk,
            None if resource is not None and not resource.namespaced else watched,
            format_labels(label_selector),
            format_labels(field_selector),
            metadata_only,
            managed_fields,
            transform,
            self._partition(gvk),
        )
        informer = self._existing(scope) or self._add(scope, resource)
        informer.resync_every(period)
        return informer

    def add_index(self, kind: KindLike, path: str, values: DocumentValues | None = None) -> None:
        """Index a kind by a field, so that ``list(kind, field_selector="spec.tenant=acme")`` reads the cache.

        It needs no informer yet, so an operator can declare its indexes beside its controllers, with
        ``manager.cache.add_index``. Every informer with whole objects of the kind has the index. It costs one decode
        per object and event (about 4 µs for 1.5 KB).

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            path: the field's path as in the selector, such as ``"spec.tenant"``; with `values` any name.
            values: computes the values of one document. An object on which it fails has none. Default: the value of the
                field, or each item if it is a list; numbers and bools as in JSON.

        Raises:
            ValueError: the kind is malformed, or it has another index of this name.
            TypeError: `values` is a coroutine function.
        """
        gvk = gvk_from(kind)
        function = field_values(path) if values is None else values
        refuse_coroutine_function(function, "an index")
        indexes = self._indexes.setdefault(gvk, {})
        if path in indexes:
            if indexes[path] is values:
                return
            raise ValueError(f"index {path!r} of {gvk} already exists")
        indexes[path] = values
        for scope, informer in self._informers.items():
            if scope.gvk == gvk and not scope.metadata_only:
                informer.store.add_index(path, function)

    async def _resource_type(self, kind: KindLike) -> ResourceType | None:
        try:
            return await self._client.resource_type(kind)
        except ReconcilerError as error:
            _logger.info("%s cannot be watched yet, discovery will be retried: %s", gvk_from(kind), error)
            return None

    def _existing(self, scope: Scope) -> Informer | None:
        found = self._informers.get(scope)
        if found is None and scope.metadata_only:
            found = self._informers.get(replace(scope, metadata_only=False))
        return found

    def _add(self, scope: Scope, resource: ResourceType | None) -> Informer:
        self._check_streams(sum(one.streams for one in [*self._informers, scope]))
        self._lookups.clear()
        informer = self._informers[scope] = Informer(
            self._client.session,
            scope,
            resolve=lambda: self._client.resource_type(scope.gvk),
            resource=resource,
            list_in_pages=self.list_in_pages,
            clock=self._clock,
            rng=self._rng,
        )
        informer.on_restart(self._relist)
        for path, values in {} if scope.metadata_only else self._indexes.get(scope.gvk, {}).items():
            informer.store.add_index(path, values or field_values(path))
        if self.started:
            self._run(informer)
        return informer

    def _check_streams(self, streams: int) -> None:
        """Raise if the client cannot keep so many watches open: the last ones would wait for a connection forever."""
        limit = self._client.session.connection.max_streams
        if limit is not None and streams > limit:
            raise ConfigurationError(
                f"the cache would open {streams} watches, one for each kind and namespace, but the client has a "
                f"limit of {limit}: watch all namespaces (namespaces=None), or raise max_streams of Client.from_config"
            )

    def find(self, gvk: GroupVersionKind, namespace: str | None = None) -> Informer:
        """Find the informer that answers reads of a kind: one with whole objects, and the least narrowed.

        Args:
            gvk: the kind.
            namespace: the namespace to read; None for all that are watched, or a cluster-scoped kind.

        Raises:
            NotCached: no informer qualifies, or the choice is ambiguous.
        """
        found = self._lookups.get((gvk, namespace))
        if found is None:
            found = self._find(gvk, namespace)
            if found.synced and len(self._lookups) < _MAX_LOOKUPS:  # until then the others' scopes are unknown
                self._lookups[gvk, namespace] = found
        return found

    def _find(self, gvk: GroupVersionKind, namespace: str | None) -> Informer:
        informers = [informer for informer in self._informers.values() if informer.gvk == gvk]
        whole = [informer for informer in informers if not informer.scope.metadata_only]
        covering = [informer for informer in whole if namespace is None or informer.covers(namespace)]
        plain = [informer for informer in covering if not informer.scope.has_selector]
        found = min(plain, key=_narrowness, default=None)
        if found is None and len(covering) == 1:
            found = covering[0]
        if found is None:
            raise NotCached(_not_cached_message(gvk, namespace, informers, whole, covering))
        return found

    def begin_write(self, resource: ResourceType, request: Request) -> dict[Informer, Baseline]:
        """Called before a write of this process is sent; returns what is known of the object by then."""
        return {each: each.overlay.baseline(request) for each in self._of_kind(resource, request.namespace)}

    def record_write(
        self, resource: ResourceType, verb: str, request: Request, answer: bytes, begun: Mapping[Informer, Baseline]
    ) -> None:
        """Apply the response to a write of this process to the informers of its kind; see `Informer.record_write`.

        The response does not show the object in another version of the API. Objects cached in another version are
        therefore invalidated until the watch reaches the write.
        """
        for informer in self._of_kind(resource, request.namespace):
            baseline = begun.get(informer)
            if informer.gvk == resource.gvk:
                informer.record_write(verb, request, answer, baseline)
            else:
                informer.overlay.invalidate(request, version_in(answer, verb), baseline)

    def invalidate(self, resource: ResourceType, request: Request) -> None:
        """Mark an object as possibly written by this process; see `Overlay.invalidate`."""
        for informer in self._of_kind(resource, request.namespace):
            informer.overlay.invalidate(request)

    def invalidate_all(self, resource: ResourceType, namespace: str | None) -> None:
        """Mark every object of a namespace as possibly written by this process; see `Overlay.invalidate_all`."""
        for informer in self._of_kind(resource, namespace):
            informer.overlay.invalidate_all(namespace)

    def _of_kind(self, resource: ResourceType, namespace: str | None) -> Iterator[Informer]:
        """Yield the informers of a kind, in any version of the API, that cover a namespace."""
        group_kind = (resource.gvk.group, resource.gvk.kind)
        for informer in self._informers.values():
            if (informer.gvk.group, informer.gvk.kind) == group_kind and informer.covers(namespace):
                yield informer

    async def remove(self, informer: Informer) -> None:
        """Stop an informer and remove it; does nothing if it does not belong to this cache.

        Its store remains readable but is no longer updated, and its handlers are no longer notified. A later request
        for the same objects creates a new informer. Make sure nothing else uses it: it may be shared. If cancelled, the
        watch ends in the background.
        """
        if self._informers.get(informer.scope) is informer:
            del self._informers[informer.scope]
            self._lookups.clear()
        await cancel_and_wait([self._tasks.pop(informer, None)])

    async def start(self) -> None:
        """Start all informers and return before they are synced; does nothing if they are running.

        There is no await in it, so cancellation cannot interrupt it.

        Raises:
            ReconcilerError: the cache was stopped.
        """
        if self._stopped:
            raise ReconcilerError("the cache is stopped; make a new one")
        self._started = True
        for informer in self._informers.values():
            self._run(informer)

    def _run(self, informer: Informer) -> None:
        if informer not in self._tasks:
            task = self._tasks[informer] = asyncio.create_task(informer.run(), name=f"informer of {informer.scope}")
            task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        text = describe_error(error)
        _logger.error("the %s has ended, so its objects are outdated from now on: %s", task.get_name(), text)
        self._failure = self._failure or error
        self._finished.set()

    async def finished(self) -> None:
        """Wait until the cache is stopped. Cancellation changes nothing.

        Raises:
            BaseException: what ended an informer: a BaseException of a handler, predicate or transform that is not an
                Exception, such as the outcome of ``pytest.fail``. A manager ends with it.
        """
        await self._finished.wait()
        if self._failure is not None:
            raise self._failure

    async def wait_synced(self, timeout: DurationLike | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Wait until every existing informer has its complete initial list. Cancellation changes nothing.

        Args:
            timeout: a duration: seconds, a timedelta or ``"30s"``. None, the default, waits indefinitely.

        Raises:
            CacheNotSynced: the timeout expired. The error contains the failed action, the kind and the server's
                response.
        """
        informers, seconds = self.informers, optional_seconds("timeout", timeout, zero=True)
        try:
            async with asyncio.timeout(seconds):
                for informer in informers:
                    await informer.wait_synced()
        except TimeoutError:
            problems = "; ".join(informer.problem for informer in informers if not informer.synced)
            started = "" if self.started else " (the cache is not started)"
            raise CacheNotSynced(f"the cache is not synced after {seconds:g} s{started}: {problems}") from None

    async def refresh(self, timeout: DurationLike | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Bring every existing informer to a state not older than this call; see `Informer.refresh`.

        Cancellation ends the waiting, not the lists.

        Args:
            timeout: a duration: seconds, a timedelta or ``"30s"``. None, the default, waits indefinitely.

        Raises:
            CacheNotSynced: the timeout expired.
        """
        failing = (informer.problem for informer in self.informers if informer.last_error is not None)
        async with in_time(timeout, "the cache is not refreshed", lambda: "; ".join(failing) or "no response"):
            await asyncio.gather(*(informer.refresh() for informer in self.informers))

    def _relist(self) -> None:
        """List every kind again, once: if the history of one was rewritten, so was that of the others.

        Their stores may contain objects of the lost history, and their watches may continue as if nothing had happened.
        """
        if self._relist_task is None or self._relist_task.done():
            self._relist_task = asyncio.create_task(self._relist_all(), name="lists after a restore of etcd")

    async def _relist_all(self) -> None:
        synced = [informer for informer in self.informers if informer.synced]
        await asyncio.gather(*(informer.refresh(RELIST_TIMEOUT) for informer in synced), return_exceptions=True)

    async def stop(self) -> None:
        """Stop all watches; the stores remain readable but are no longer updated.

        If cancelled, the watches end in the background.
        """
        self._stopped = True
        self._finished.set()
        await cancel_and_wait([*self._tasks.values(), self._relist_task])

    async def __aenter__(self) -> Self:
        """Start the cache. Cancellation cannot interrupt it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def kinds(self) -> list[CachedKind]:
        """Return what is cached of each kind. Safe to call from any thread."""
        found: dict[str, CachedKind] = {}
        for informer in self.informers:
            kind, store = str(informer.gvk), informer.store
            _, *sums = found.get(kind, CachedKind(kind, 0, 0, 0))
            here = (store.unreadable, store.bytes, store.held)
            found[kind] = CachedKind(kind, *map(operator.add, sums, here))
        return list(found.values())

    def statistics(self) -> CacheStatistics:
        """Return what the cache contains."""
        informers = tuple(informer.statistics() for informer in self._informers.values())
        return CacheStatistics(
            objects=sum(one.store.objects for one in informers),
            bytes=sum(one.store.bytes for one in informers),
            held=sum(one.store.held for one in informers),
            informers=informers,
        )


def _sorted_names(namespaces: Sequence[str] | None) -> tuple[str, ...] | None:
    if namespaces is None:
        return None
    if isinstance(namespaces, str) or not namespaces or not all(namespaces):
        raise ValueError(f"namespaces must be a sequence of names, or None for all, not {namespaces!r}")
    return tuple(sorted(set(namespaces)))


def _narrowness(informer: Informer) -> tuple[bool, int]:
    scope = informer.scope
    return scope.transform is not None, len(scope.namespaces) if scope.namespaces is not None else 0


def _not_cached_message(
    gvk: GroupVersionKind,
    namespace: str | None,
    informers: Sequence[Informer],
    whole: Sequence[Informer],
    covering: Sequence[Informer],
) -> str:
    live = "read it from the server with client.live"
    if not informers:
        return f"{gvk} is not cached: declare it (owns=, watches=, cache.informer), or {live}"
    if not whole:
        return f"only metadata is cached of {gvk}: read it from the store of its informer, or {live}"
    if not covering:
        watched = sorted({name for informer in whole for name in informer.scope.namespaces or ()})
        return f"{gvk} is not cached in namespace {namespace!r}, only in {', '.join(watched)}: {live}"
    several = "; ".join(str(informer.scope) for informer in covering)
    return f"{gvk} is cached by several selectors ({several}): read the store of one of these informers, or {live}"
