"""Observers of the requests of a reconcile: which change other objects, which must not be sent, and how long they take.

Changes of other objects matter for the detection of tight loops. The gate matters where several processes share a kind.
A reconcile belongs to the process that its object belonged to when it began. The object can move meanwhile, without a
drain: somebody changes its label, or its shard is considered dead. Then another process reconciles it, and this one
must not write any more. Each write of the reconcile passes the gate, which asks whether the object still belongs to
this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus

from reconciler._core.wire import JSONObject
from reconciler.cache import Cache, CachedClient, CachedObject
from reconciler.cache.informer import Informer
from reconciler.cache.overlay import Baseline
from reconciler.clock import Clock
from reconciler.controller.permissions import access_of
from reconciler.controller.reconcile.cycle import Reconcile, current_reconcile
from reconciler.controller.result import ObjectMoved
from reconciler.errors import NotFound
from reconciler.http import HTTPRequest, HTTPResponse, Transport, parse_retry_after
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.cycle import current_cycle
from reconciler.meta.metadata import ResourceType
from reconciler.objects import InvalidObject
from reconciler.workqueue.concurrency_limit import ConcurrencyLimit


class OwnChanges:
    """The observer of a controller's writes: notifies the reconcile if one changed another object, and the cache.

    Only cached objects count, since no other one can enqueue a key. A write that only confirms what is stored, such as
    an apply of the same configuration, is not a change.

    Args:
        cache: observes the writes as well.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.begin_write = cache.begin_write
        self.invalidate = cache.invalidate
        self.invalidate_all = cache.invalidate_all

    def record_write(
        self, resource: ResourceType, verb: str, request: Request, answer: bytes, begun: Mapping[Informer, Baseline]
    ) -> None:
        """Called after each successful write of an object."""
        cycle = current_reconcile()
        if cycle is None or cycle.changed_others or cycle.is_own(resource.gvk, request):
            self._cache.record_write(resource, verb, request, answer, begun)
            return
        before = [
            (informer, informer.overlay.peek(request))
            for informer in self._cache.informers
            if informer.gvk == resource.gvk and informer.covers(request.namespace)
        ]
        self._cache.record_write(resource, verb, request, answer, begun)
        cycle.changed_others = any(_is_changed(informer, old, request) for informer, old in before)


def _is_changed(informer: Informer, before: CachedObject | None, request: Request) -> bool:
    """Return whether a write changed an object; another writer may have changed its status in between."""
    after = informer.overlay.peek(request)
    if before is None or after is None:
        return before is not after
    if before.version == after.version:
        return False
    with contextlib.suppress(InvalidObject):
        return informer.scope.metadata_only or _desired(before) != _desired(after)
    return True


def _desired(cached: CachedObject) -> JSONObject:
    document = cached.decode()
    document.pop("status", None)
    document["metadata"] = {
        k: v for k, v in document["metadata"].items() if k not in ("resourceVersion", "managedFields")
    }
    return document


class Ownership:
    """The answer to whether the object of a reconcile belongs to this process.

    The cache answers, with own writes. The server is asked if the cache has no such object, which was deleted or has
    moved, and after a conflict, which shows that the cache is behind.

    Args:
        gvk: the primary kind.
        client: reads from the cache and from the server.
        matches: returns whether an object with these labels belongs to this process.
    """

    def __init__(
        self, gvk: GroupVersionKind, client: CachedClient, matches: Callable[[Mapping[str, str]], bool]
    ) -> None:
        self._gvk = gvk
        self._client = client
        self._matches = matches

    async def check(self, cycle: Reconcile) -> None:
        """Raise unless a reconcile may write. A cancelled check has no answer.

        Raises:
            ObjectMoved: another process reconciles the object by now; it is raised for each later write as well.
            APIError, TransportError: the server was asked and did not answer.
        """
        if cycle.owned is None and not await self._is_owned(cycle):
            cycle.owned = False
        if cycle.owned is False:
            raise ObjectMoved(
                f"{self._gvk.kind} {cycle.request} moved to another shard during its reconcile, which must not write "
                "any more"
            )

    def end(self, cycle: Reconcile, stored: CachedObject | None) -> None:
        """Decide about writes after the end, such as Events, if the informer's store still has the object."""
        if cycle.owned is None and not cycle.behind and stored is not None and self._matches(stored.labels):
            cycle.owned = True

    async def _is_owned(self, cycle: Reconcile) -> bool:
        key = cycle.request
        cached = await self._client.peek(self._gvk, key)
        if cached is not None and not cycle.behind:
            return self._matches(cached.labels)
        cycle.behind = False
        try:
            found = await self._client.live.get_metadata(self._gvk, key.name, key.namespace)
        except NotFound:
            return True  # it was deleted, so no other process has it
        except BaseException:
            cycle.behind = True
            raise
        return cached is not None and self._matches(found.to_dict()["metadata"].get("labels") or {})


class OwnershipGate:
    """A transport that refuses the writes of a reconcile whose object another process reconciles by now.

    Args:
        transport: sends the other requests.
        ownership: is asked before each write.
    """

    def __init__(self, transport: Transport, ownership: Ownership) -> None:
        self._transport = transport
        self._ownership = ownership

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request if it only reads, or if the object of the current reconcile still belongs to this process.

        Raises:
            ObjectMoved: it does not; nothing was sent.
        """
        cycle = current_reconcile()
        if cycle is None or request.method in ("GET", "HEAD"):
            return await self._transport.send(request)
        await self._ownership.check(cycle)
        response = await self._transport.send(request)
        if response.status == 409 and request.method != "POST":  # of a POST it says that an object exists
            cycle.behind = True
        return response


class LatencyObserver:
    """A transport that reports the latency of the requests of reconciles of low priority to their limit.

    Lists are left out, since the time that they take depends on their length. So are requests of a task that goes on
    after its reconcile: its key is no longer in progress, so they are not what the limit limits.

    Args:
        transport: sends the requests.
        limit: of the concurrency of these reconciles.
        clock: measures the time.
    """

    def __init__(self, transport: Transport, limit: ConcurrencyLimit, clock: Clock) -> None:
        self._transport = transport
        self._limit = limit
        self._clock = clock

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request."""
        cycle = current_cycle.get()
        if not isinstance(cycle, Reconcile) or cycle.run.priority >= 0 or cycle.is_over:
            return await self._transport.send(request)
        began = self._clock.monotonic()
        self._limit.unanswered += 1
        try:
            response = await self._transport.send(request)
        finally:
            self._limit.unanswered -= 1
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._limit.reject(parse_retry_after(response.headers, self._clock.now()))
        elif (access := access_of(request)) is not None and access[2] in _SINGLE and not cycle.is_over:
            self._limit.observe(access, self._clock.monotonic() - began)
        return response


_SINGLE = frozenset({"get", "create", "update", "patch", "apply", "delete"})
"""The verbs that concern one object."""
