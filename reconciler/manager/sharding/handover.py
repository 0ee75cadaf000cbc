"""Decide before each reconcile whose the key is, and hand over what is to be another's.

What is promised:

* A key is reconciled only while this process's cache holds its object, and the object says that it is this shard's.
  Both are looked at right before each reconcile, also one that was delayed or is retried. What is gone, or another's,
  is let go: no reconcile, no timer, no back-off. So no reconcile hears that an object is gone; a finalizer does.
* In a ring a reconcile runs only while this shard's Lease is held, and every write is fenced by it; see `_leader`.
* A drain is acknowledged only with the key in hand, hence never while a reconcile of it runs, by a patch that holds for
  one version of the object alone. So the next shard begins after this one has ended.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reconciler.cache import CachedClient, CachedObject
from reconciler.controller import Permission
from reconciler.errors import Conflict, NotFound
from reconciler.meta import Request
from reconciler.objects import KindLike
from reconciler.telemetry import ShardCounters

__all__ = ["Held", "Labels", "Ours"]

_log = logging.getLogger("reconciler.manager")

_ATTEMPTS = 5
"""Acknowledgements of one drain against others' writes, before the key backs off."""


class Labels(NamedTuple):
    """Name the labels of a ring's objects.

    Attributes:
        shard: says whose an object is.
        drain: says that it is to be handed over.
    """

    shard: str
    drain: str


class Held:
    """Answer for what the cache holds.

    Args:
        controller: the name of the controller whose keys they are.
        kind: what it reconciles.
        client: reads the cache.
        counters: count what is let go.
    """

    sharded = True

    def __init__(self, controller: str, kind: KindLike, client: CachedClient, counters: ShardCounters) -> None:
        self._controller = controller
        self._kind = kind
        self._client = client
        self._counters = counters

    @property
    def permissions(self) -> Sequence[Permission]:
        """What the handover must be allowed to do."""
        return ()

    def matches(self, labels: Mapping[str, str], /) -> bool:  # noqa: ARG002 - a uid stays, and its hash with it
        """Return whether an object with these labels belongs to this replica."""
        return True

    def must_drain(self, cached: CachedObject, /) -> bool:  # noqa: ARG002 - nothing is handed over
        """Return whether the object must be handed over."""
        return False

    async def may_reconcile(self, request: Request, /) -> bool:
        """Say whether the cache holds the object."""
        return await self._held(request) is not None

    async def _held(self, request: Request) -> CachedObject | None:
        cached = await self._client.peek(self._kind, request)
        if cached is None:
            self._counters.leave(self._controller)
        return cached


class Ours(Held):
    """Answer for what is labelled as this shard's, and hand over what is to be drained.

    Args:
        controller: the name of the controller whose keys they are.
        kind: what it reconciles.
        client: reads the cache, and hands over.
        counters: count what is let go and handed over.
        labels: of the ring.
        name: of the shard.
    """

    def __init__(
        self,
        controller: str,
        kind: KindLike,
        client: CachedClient,
        counters: ShardCounters,
        *,
        labels: Labels,
        name: str,
    ) -> None:
        super().__init__(controller, kind, client, counters)
        self._labels = labels
        self._name = name

    @property
    def permissions(self) -> Sequence[Permission]:
        """What the handover must be allowed to do."""
        return (Permission(self._kind, "patch"),)

    def matches(self, labels: Mapping[str, str], /) -> bool:
        """Return whether an object with these labels belongs to this replica."""
        return labels.get(self._labels.shard) == self._name

    def must_drain(self, cached: CachedObject, /) -> bool:
        """Return whether the object must be handed over."""
        return self._labels.drain in cached.labels

    async def may_reconcile(self, request: Request, /) -> bool:
        """Say whether the object is this shard's, and not to be drained; if it is, hand it over."""
        cached = await self._held(request)
        if cached is None:
            return False
        labels, version = cached.labels, str(cached.version)
        for attempts_left in reversed(range(_ATTEMPTS)):
            if not self.matches(labels):
                self._counters.leave(self._controller)
                return False
            if self._labels.drain not in labels:
                return True
            try:
                await self._hand_over(request, version)
            except Conflict:
                if not attempts_left:
                    raise
                # Somebody else has written; what is there now decides, and the cache may not know it yet.
                labels, version = await self._now(request)
            else:
                return False
        return False

    async def _now(self, request: Request) -> tuple[Mapping[str, str], str]:
        """Return labels and version as the server has them; none of what is gone."""
        try:
            found = await self._client.live.get(self._kind, request.name, request.namespace)
        except NotFound:
            return {}, ""
        metadata = found.to_dict()["metadata"]
        return metadata.get("labels") or {}, str(metadata["resourceVersion"])

    async def _hand_over(self, request: Request, version: str) -> None:
        labels = {self._labels.shard: None, self._labels.drain: None}
        with contextlib.suppress(NotFound):
            await self._client.patch(
                self._kind,
                request.name,
                request.namespace,
                patch={"metadata": {"resourceVersion": version, "labels": labels}},
            )
            self._counters.drain(self._controller)
            _log.debug("%s hands %s over: it is drained from shard %s", self._controller, request, self._name)
