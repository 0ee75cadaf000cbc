"""Hold the informers of a process, each once, and start and stop them together."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType, TracebackType
from typing import Self

from reconciler.cache.errors import CacheNotSynced, NotCached
from reconciler.cache.informer import Informer
from reconciler.cache.reflector.wire import Transform
from reconciler.cache.scope import Scope
from reconciler.cache.statistics import InformerStatistics
from reconciler.cache.store.partition import Partition
from reconciler.cache.store.selector import format_labels
from reconciler.cache.writes import version_in
from reconciler.client import Client
from reconciler.clock import Clock, current_clock
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.meta import GroupVersionKind, Request, ResourceType
from reconciler.objects import KindLike, gvk_from

__all__ = ["Cache", "CacheStatistics"]

_logger = logging.getLogger("reconciler.cache")

_MAX_FOUND = 1024
"""Kinds and namespaces whose informer is remembered; the others are looked for in each read."""


RENEWAL_TIMEOUT = 60.0
"""Seconds after which the lists that follow a restore of etcd are waited for no longer; they go on."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Count what a cache holds.

    Attributes:
        objects: in all informers together.
        bytes: of their documents.
        informers: each one's own figures, in the order in which they were asked for.
    """

    objects: int
    bytes: int
    informers: tuple[InformerStatistics, ...]


class Cache:
    """Share informers between all who want the same objects.

    Use it with ``async with``, or `start` and `stop` it. It belongs to one event loop.

    Args:
        client: sends lists and watches; a plain `Client`.
        namespaces: the namespaces that informers watch unless told otherwise; None, the default, for all of them.
        resync: seconds between two RESYNC events of each object, unless told otherwise; None, the default, for never.
        list_in_pages: list kinds in pages of 500 in place of one stream. On Kubernetes 1.34 and newer, which answer
            pages from memory, a large kind is ready sooner for less CPU on both sides (docs/performance.md); older API
            servers read each page from etcd. Default False.
        partition: gives the part of a kind that this process answers for, which narrows every informer of the kind;
            None for all of it. Default: all of every kind.
        clock: the clock in force by default.
        rng: source of jitter; a fresh one by default.

    Raises:
        ValueError: `namespaces` is empty.
        ConfigurationError: they are more than the client may open watches.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] | None = None,
        resync: float | None = None,
        list_in_pages: bool = False,
        partition: Callable[[GroupVersionKind], Partition | None] = lambda _: None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._partition = partition
        self._namespaces = _sorted(namespaces)
        self._resync = resync
        self._list_in_pages = list_in_pages
        self._clock = clock or current_clock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._informers: dict[Scope, Informer] = {}
        self._found: dict[tuple[GroupVersionKind, str | None], Informer] = {}  # as long as there are no others
        self._tasks: dict[Informer, asyncio.Task[None]] = {}
        self._renewal: asyncio.Task[None] | None = None  # lists everything after a restore of etcd
        self._started = False
        self._stopped = False
        if self._namespaces is not None:
            self._check_streams(len(self._namespaces))

    @property
    def started(self) -> bool:
        """Say whether informers are running."""
        return self._started and not self._stopped

    @property
    def informers(self) -> tuple[Informer, ...]:
        """Return all informers, in the order in which they were asked for."""
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
        resync: float | None = None,
    ) -> Informer:
        """Return the informer for some objects; made at the first call, and started at once if the cache runs.

        Whoever asks for the same gets the same. Metadata alone is served by an informer that holds whole objects, if
        there is one. A kind that the server does not serve yet is looked for again with back-off once the informer
        runs. Cancellation leaves the cache as it was.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"``, a GroupVersionKind or a ResourceType.
            namespaces: what to watch, each namespace by a watch of its own; None for all. Default: the cache's. Nothing
                of this holds for cluster-scoped kinds.
            label_selector: text in the API's syntax, or a mapping of what must be equal. Default: everything.
            field_selector: the same for fields.
            metadata_only: hold no spec, status or data. Default False.
            managed_fields: hold ``metadata.managedFields`` too. Default False.
            transform: applied to each object before it is stored; costs a decode and an encode an event.
            resync: seconds between two RESYNC events of each object. Default: the cache's.

        Raises:
            ValueError: a selector or the kind cannot be read, or `namespaces` is empty.
            ConfigurationError: the watches would be more than the client may have open.
            ReconcilerError: the cache is stopped.
        """
        if self._stopped:
            raise ReconcilerError("the cache is stopped; make a new one")
        resource = kind if isinstance(kind, ResourceType) else await self._resource_type(kind)
        gvk = resource.gvk if resource is not None else gvk_from(kind)  # type: ignore[arg-type]
        watched = self._namespaces if isinstance(namespaces, EllipsisType) else _sorted(namespaces)
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
        informer.resync_every(resync if resync is not None else self._resync)
        return informer

    async def _resource_type(self, kind: KindLike) -> ResourceType | None:
        try:
            return await self._client.resource_type(kind)
        except ReconcilerError as error:
            _logger.info("%s cannot be watched yet: %s", gvk_from(kind), error)
            return None

    def _existing(self, scope: Scope) -> Informer | None:
        found = self._informers.get(scope)
        if found is None and scope.metadata_only:
            found = self._informers.get(scope.of_whole_objects())
        return found

    def _add(self, scope: Scope, resource: ResourceType | None) -> Informer:
        self._check_streams(sum(one.streams for one in [*self._informers, scope]))
        self._found.clear()
        informer = self._informers[scope] = Informer(
            self._client.session,
            scope,
            resolve=lambda: self._client.resource_type(scope.gvk),
            resource=resource,
            list_in_pages=self._list_in_pages,
            clock=self._clock,
            rng=self._rng,
        )
        informer.on_restart(self._relist)
        if self.started:
            self._run(informer)
        return informer

    def _check_streams(self, streams: int) -> None:
        """Raise if the client cannot keep so many watches open: the last ones would wait for a connection forever."""
        limit = self._client.session.max_streams
        if limit is not None and streams > limit:
            raise ConfigurationError(
                f"the cache would open {streams} watches, one for each kind and namespace, but the client has a limit "
                f"of {limit}: watch all namespaces (namespaces=None), or raise max_streams of Client.from_config"
            )

    def find(self, gvk: GroupVersionKind, namespace: str | None = None) -> Informer:
        """Return the informer that answers reads of a kind: of whole objects, and the least narrowed.

        Args:
            gvk: the kind.
            namespace: where to read; None for all that is watched, or a cluster-scoped kind.

        Raises:
            NotCached: there is none, or the choice is not clear.
        """
        found = self._found.get((gvk, namespace))
        if found is None:
            found = self._find(gvk, namespace)
            if found.synced and len(self._found) < _MAX_FOUND:  # before that it is not known what the others cover
                self._found[gvk, namespace] = found
        return found

    def _find(self, gvk: GroupVersionKind, namespace: str | None) -> Informer:
        informers = [informer for informer in self._informers.values() if informer.gvk == gvk]
        whole = [informer for informer in informers if informer.scope.whole]
        covering = [informer for informer in whole if namespace is None or informer.covers(namespace)]
        plain = [informer for informer in covering if not informer.scope.selective]
        found = min(plain, key=_narrowness, default=None)
        if found is None and len(covering) == 1:
            found = covering[0]
        if found is None:
            raise NotCached(_why_not(gvk, namespace, informers, whole, covering))
        return found

    def wrote(self, resource: ResourceType, verb: str, request: Request, answer: bytes) -> None:
        """Lay the answer to a write of this process over what is cached of its kind; see `Informer.wrote`.

        What is cached in another version of the API is in doubt until the watch has come to the write, since the answer
        does not show the object in that version.
        """
        for informer in self._of_kind(resource, request.namespace):
            if informer.gvk == resource.gvk:
                informer.wrote(verb, request, answer)
            else:
                informer.overlay.doubt(request, version_in(answer, verb))

    def doubt(self, resource: ResourceType, request: Request) -> None:
        """Take it that this process may have written an object; see `Overlay.doubt`."""
        for informer in self._of_kind(resource, request.namespace):
            informer.overlay.doubt(request)

    def doubt_all(self, resource: ResourceType, namespace: str | None) -> None:
        """Take it that this process may have written any object of a namespace; see `Overlay.doubt_all`."""
        for informer in self._of_kind(resource, namespace):
            informer.overlay.doubt_all(namespace)

    def _of_kind(self, resource: ResourceType, namespace: str | None) -> list[Informer]:
        """Return the informers of a kind, in whatever version of the API, that cover a namespace."""
        group_kind = (resource.gvk.group, resource.gvk.kind)
        return [
            informer
            for informer in self._informers.values()
            if (informer.gvk.group, informer.gvk.kind) == group_kind and informer.covers(namespace)
        ]

    async def remove(self, informer: Informer) -> None:
        """End an informer's watch and forget it; harmless when it is not, or no more, of this cache.

        What is in its store can still be read, and grows old; its handlers hear nothing more. Who asks for the same
        again gets a new one. Nobody else may need it any more: it may be shared. Cancellation leaves the watch to end
        by itself.
        """
        if self._informers.get(informer.scope) is informer:
            del self._informers[informer.scope]
            self._found.clear()
        task = self._tasks.pop(informer, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def start(self) -> None:
        """Start all informers; returns before they are synced. Harmless when they run already; nothing to be cancelled.

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
            self._tasks[informer] = asyncio.create_task(informer.run(), name=f"informer of {informer.scope}")

    async def wait_synced(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Wait until every informer that exists now has its complete initial list. Cancellation changes nothing.

        Args:
            timeout: seconds; None, the default, waits for ever.

        Raises:
            CacheNotSynced: it took longer; the error says what was tried on which kind, and what the server answered.
        """
        informers = self.informers
        try:
            async with asyncio.timeout(timeout):
                for informer in informers:
                    await informer.wait_synced()
        except TimeoutError:
            problems = "; ".join(informer.problem for informer in informers if not informer.synced)
            started = "" if self.started else " (the cache is not started)"
            raise CacheNotSynced(f"the cache is not synced after {timeout:g} s{started}: {problems}") from None

    async def refresh(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the error says what is missing
        """Bring every informer that exists now to a state that is not older than this call; see `Informer.refresh`.

        Cancellation ends the waiting, not the lists.

        Args:
            timeout: seconds; None, the default, waits for ever.

        Raises:
            CacheNotSynced: it took longer.
        """
        informers = self.informers
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(informer.refresh() for informer in informers))
        except TimeoutError:
            problems = "; ".join(informer.problem for informer in informers if informer.last_error is not None)
            raise CacheNotSynced(f"the cache is not refreshed after {timeout:g} s: {problems or 'no answer'}") from None

    def _relist(self) -> None:
        """List every kind again, once: if the history of one was rewritten, so was that of the others.

        What is stored of them may be of the past that is gone, and their watches may go on as if nothing had happened.
        """
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(), name="lists after a restore of etcd")

    async def _renew(self) -> None:
        synced = [informer for informer in self.informers if informer.synced]
        await asyncio.gather(*(informer.refresh(RENEWAL_TIMEOUT) for informer in synced), return_exceptions=True)

    async def stop(self) -> None:
        """End all watches; what is cached can still be read, and grows old.

        Cancellation leaves the watches to end by themselves.
        """
        self._stopped = True
        tasks = [*self._tasks.values(), *([self._renewal] if self._renewal is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        """Start. Cancellation does not arrive here."""
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def unreadable(self) -> list[tuple[str, int]]:
        """Return each kind and how many of its cached objects cannot be decoded; may be called from any thread."""
        counts: Counter[str] = Counter()
        for informer in self.informers:
            counts[str(informer.gvk)] += informer.store.unreadable
        return list(counts.items())

    def statistics(self) -> CacheStatistics:
        """Count what is held and was done."""
        informers = tuple(informer.statistics() for informer in self._informers.values())
        return CacheStatistics(
            objects=sum(one.store.objects for one in informers),
            bytes=sum(one.store.bytes for one in informers),
            informers=informers,
        )


def _sorted(namespaces: Sequence[str] | None) -> tuple[str, ...] | None:
    if namespaces is None:
        return None
    if isinstance(namespaces, str) or not namespaces or not all(namespaces):
        raise ValueError(f"namespaces must be a sequence of names, or None for all, not {namespaces!r}")
    return tuple(sorted(set(namespaces)))


def _narrowness(informer: Informer) -> tuple[bool, int]:
    scope = informer.scope
    return scope.transform is not None, len(scope.namespaces) if scope.namespaces is not None else 0


def _why_not(
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
        return f"of {gvk} only metadata is cached: read it from the store of its informer, or {live}"
    if not covering:
        watched = sorted({name for informer in whole for name in informer.scope.namespaces or ()})
        return f"{gvk} is not cached in namespace {namespace!r}, only in {', '.join(watched)}: {live}"
    several = "; ".join(str(informer.scope) for informer in covering)
    return f"{gvk} is cached by several selectors ({several}): read the store of one of them, or {live}"
