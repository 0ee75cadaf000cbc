"""Shard filters: which keys this shard reconciles, and how it hands an object over to another shard.

What is guaranteed:

* A key is reconciled only while this process's cache holds its object and the object belongs to this shard. Both are
  checked right before each reconcile, including delayed and retried ones. A key whose object is gone or belongs to
  another shard is dropped: no reconcile, no timer, no backoff. A reconcile is therefore not notified that an object is
  gone; use a finalizer.
* In a ring a reconcile runs only while this shard's Lease is held, and every write is fenced by it; see `Elector`.
* A drain is acknowledged by a worker that took the key, instead of a reconcile, so never during a reconcile of the key.
  The patch applies to one version of the object only. The next shard therefore starts after this shard has finished.
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

__all__ = ["IndexShardFilter", "RingLabels", "RingShardFilter"]

_log = logging.getLogger("reconciler.manager")

_ATTEMPTS = 5
"""Attempts to acknowledge one drain when other writers cause conflicts; then the key backs off."""


class RingLabels(NamedTuple):
    """The label keys of a ring's objects.

    Attributes:
        shard: the label that names the shard to which an object is assigned.
        drain: the label that asks the shard to hand the object over.
    """

    shard: str
    drain: str


class IndexShardFilter:
    """A filter for sharding by index: this shard owns all objects in its cache, which holds only its own hash range.

    Args:
        controller: the controller's name.
        kind: the kind that it reconciles.
        client: reads the cache.
        counters: counts skipped reconciles.
    """

    sharded = True
    permissions: Sequence[Permission] = ()

    def __init__(self, controller: str, kind: KindLike, client: CachedClient, counters: ShardCounters) -> None:
        self._controller = controller
        self._kind = kind
        self._client = client
        self._counters = counters

    def matches(self, labels: Mapping[str, str], /) -> bool:  # noqa: ARG002 - ownership depends on the uid alone
        """Return whether an object with these labels belongs to this shard."""
        return True

    def must_drain(self, cached: CachedObject, /) -> bool:  # noqa: ARG002 - nothing is handed over
        """Return whether the object must be handed over."""
        return False

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether the cache holds the object."""
        if await self._client.peek(self._kind, request) is None:
            self._counters.record_skip(self._controller)
            return False
        return True


class RingShardFilter:
    """A filter for a ring: this shard owns the objects labeled with its name and hands over drained ones.

    Args:
        controller: the controller's name.
        kind: the kind that it reconciles.
        client: reads the cache and sends the patch that hands an object over.
        counters: counts skipped reconciles and handovers.
        labels: the ring's labels.
        name: the shard's name.
    """

    sharded = True

    def __init__(
        self,
        controller: str,
        kind: KindLike,
        client: CachedClient,
        counters: ShardCounters,
        *,
        labels: RingLabels,
        name: str,
    ) -> None:
        self._controller = controller
        self._kind = kind
        self._client = client
        self._counters = counters
        self._labels = labels
        self._name = name

    @property
    def permissions(self) -> Sequence[Permission]:
        """Return the permissions that a handover needs."""
        return (Permission(self._kind, "patch"),)

    def matches(self, labels: Mapping[str, str], /) -> bool:
        """Return whether an object with these labels belongs to this shard."""
        return labels.get(self._labels.shard) == self._name

    def must_drain(self, cached: CachedObject, /) -> bool:
        """Return whether the object must be handed over."""
        return self._labels.drain in cached.labels

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether the object belongs to this shard; if it is being drained, hand it over and return False."""
        cached = await self._client.peek(self._kind, request)
        if cached is None:
            self._counters.record_skip(self._controller)
            return False
        labels, version = cached.labels, str(cached.version)
        for attempts_left in reversed(range(_ATTEMPTS)):
            if not self.matches(labels):
                self._counters.record_skip(self._controller)
                return False
            if self._labels.drain not in labels:
                return True
            try:
                await self._hand_over(request, version)
            except Conflict:
                if not attempts_left:
                    raise
                # Another writer was faster. Decide by the server's version, which the cache may not have yet.
                labels, version = await self._read_live(request)
            else:
                return False
        return False

    async def _read_live(self, request: Request) -> tuple[Mapping[str, str], str]:
        """Return the labels and the version on the server; no labels if the object is gone."""
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
            self._counters.record_drain(self._controller)
            _log.debug("%s: handed over %s: drained from shard %s", self._controller, request, self._name)
