"""Shard filters: which keys this shard reconciles, and how it hands an object over to another shard.

What is guaranteed:

* A key is reconciled only while this process's cache holds its object and the object belongs to this shard. Both are
  checked right before each reconcile, including delayed and retried ones. A key whose object is gone or belongs to
  another shard is dropped: no reconcile, no timer, no backoff. A reconcile is therefore not notified that an object is
  gone; use a finalizer.
* In a ring a reconcile runs only while this shard's Lease is held, and every write is fenced by it; see `Elector`.
* A drain is acknowledged by a worker that took the key, instead of a reconcile, and only while no other controller of
  this process reconciles the object. So it never happens during a reconcile of the key. The patch applies to one
  version of the object only. The next shard therefore starts after this shard has finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

from reconciler.cache import CachedClient, CachedObject
from reconciler.controller import Permission
from reconciler.errors import Conflict, NotFound
from reconciler.meta import Request
from reconciler.objects.kinds import KindLike
from reconciler.telemetry import ShardCounters

__all__ = ["IndexShardFilter", "KindInProgress", "RingLabels", "RingShardFilter"]

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


@dataclass(frozen=True, slots=True)
class IndexShardFilter:
    """A filter for sharding by index: this shard owns all objects in its cache, which holds only its own hash range."""

    controller: str
    kind: KindLike
    client: CachedClient
    counters: ShardCounters

    sharded = True
    permissions = ()

    def matches(self, labels: Mapping[str, str], /) -> bool:  # noqa: ARG002 - ownership depends on the uid alone
        """Return whether an object with these labels belongs to this shard."""
        return True

    def must_drain(self, cached: CachedObject, /) -> bool:  # noqa: ARG002 - nothing is handed over
        """Return whether the object must be handed over."""
        return False

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether the cache holds the object."""
        if await self.client.peek(self.kind, request) is None:
            self.counters.record_skip(self.controller)
            return False
        return True

    def ended(self, request: Request, /) -> None:
        """Do nothing: no object is handed over."""


class KindInProgress:
    """The keys of one kind that the controllers of this process reconcile, so that the last one hands an object over.

    Each controller gets the event of a drain. One that finds that another one reconciles the object leaves the
    handover to that one, which takes the key again afterwards.
    """

    def __init__(self) -> None:
        self._keys: Counter[Request] = Counter()
        self._locks: WeakValueDictionary[Request, asyncio.Lock] = WeakValueDictionary()

    def lock(self, request: Request) -> asyncio.Lock:
        """Return the lock of a key, for its check: no reconcile begins while another controller hands it over."""
        return self._locks.setdefault(request, asyncio.Lock())

    def begin(self, request: Request) -> None:
        """Record that a reconcile begins."""
        self._keys[request] += 1

    def end(self, request: Request) -> None:
        """Record that a reconcile has ended."""
        self._keys[request] -= 1
        if not self._keys[request]:
            del self._keys[request]

    def __contains__(self, request: Request) -> bool:
        """Return whether a controller reconciles the key."""
        return request in self._keys


@dataclass(frozen=True, slots=True)
class RingShardFilter:
    """A filter for a ring: this shard owns the objects labeled with its name and hands over drained ones.

    Attributes:
        in_progress: shared by the controllers of the kind.
    """

    controller: str
    kind: KindLike
    client: CachedClient
    counters: ShardCounters
    labels: RingLabels
    name: str
    in_progress: KindInProgress

    sharded = True

    @property
    def permissions(self) -> Sequence[Permission]:
        """Return the permissions that a handover needs."""
        return (Permission(self.kind, "patch"),)

    def matches(self, labels: Mapping[str, str], /) -> bool:
        """Return whether an object with these labels belongs to this shard."""
        return labels.get(self.labels.shard) == self.name

    def must_drain(self, cached: CachedObject, /) -> bool:
        """Return whether the object must be handed over."""
        return self.labels.drain in cached.labels

    async def may_reconcile(self, request: Request, /) -> bool:
        """Return whether the object belongs to this shard; if it is being drained, hand it over and return False."""
        async with self.in_progress.lock(request):
            if not await self._belongs(request):
                return False
            self.in_progress.begin(request)
            return True

    def ended(self, request: Request, /) -> None:
        """Let the next controller that takes the key hand the object over, unless another one reconciles it."""
        self.in_progress.end(request)

    async def _belongs(self, request: Request) -> bool:
        cached = await self.client.peek(self.kind, request)
        if cached is None:
            self.counters.record_skip(self.controller)
            return False
        labels, version = cached.labels, str(cached.version)
        for attempts_left in reversed(range(_ATTEMPTS)):
            if not self.matches(labels):
                self.counters.record_skip(self.controller)
                return False
            if self.labels.drain not in labels:
                return True
            if request in self.in_progress:
                return False
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
            found = await self.client.live.get(self.kind, request.name, request.namespace)
        except NotFound:
            return {}, ""
        metadata = found.to_dict()["metadata"]
        return metadata.get("labels") or {}, str(metadata["resourceVersion"])

    async def _hand_over(self, request: Request, version: str) -> None:
        labels = {self.labels.shard: None, self.labels.drain: None}
        with contextlib.suppress(NotFound):
            await self.client.patch(
                self.kind,
                request.name,
                request.namespace,
                patch={"metadata": {"resourceVersion": version, "labels": labels}},
            )
            self.counters.record_drain(self.controller)
            _log.debug("%s: handed over %s: drained from shard %s", self.controller, request, self.name)
